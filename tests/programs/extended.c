/*
 * extended: jemalloc's own interface, mallocx() to sdallocx(), with calls that fail. Link with -ljemalloc. Answer: what
 * each by_...() function allocated and what of it was freed. A block that xallocx() resized belongs to that call then.
 */
#include "talk.c"
#include <jemalloc/jemalloc.h>
#include <stdint.h>

enum { ROUNDS = 64 };

struct tally {
	const char *name;
	uint64_t bytes, count, allocated_bytes, allocated_count, freed_count;
};

static struct tally mallocx_tally = { "by_mallocx", 0, 0, 0, 0, 0 };
static struct tally rallocx_tally = { "by_rallocx", 0, 0, 0, 0, 0 };
static struct tally xallocx_tally = { "by_xallocx", 0, 0, 0, 0, 0 };
static volatile size_t huge = PTRDIFF_MAX / 2;

static void born(struct tally *tally, size_t size)
{
	tally->bytes += size;
	tally->count++;
	tally->allocated_bytes += size;
	tally->allocated_count++;
}

static void died(struct tally *tally, size_t size)
{
	tally->bytes -= size;
	tally->count--;
	tally->freed_count++;
}

NOINLINE static void *by_mallocx(size_t size, int flags)
{
	void *block = mallocx(size, flags);

	require(block != NULL, "mallocx gives memory");
	born(&mallocx_tally, size);
	return block;
}

NOINLINE static void *by_rallocx(void *block, size_t old, size_t size)
{
	block = rallocx(block, size, 0);
	require(block != NULL, "rallocx gives memory");
	died(&mallocx_tally, old);
	born(&rallocx_tally, size);
	return block;
}

NOINLINE static void by_xallocx(void *block, size_t old, size_t size)
{
	require(xallocx(block, size, 0, 0) >= size, "xallocx makes it smaller in place");
	died(&mallocx_tally, old);
	born(&xallocx_tally, size);
}

NOINLINE static void fail(void *block)
{
	require(mallocx(huge, 0) == NULL, "mallocx fails");
	require(rallocx(block, huge, 0) == NULL, "rallocx fails");
	require(xallocx(block, 1 << 24, 0, 0) < 1 << 24, "xallocx fails");
}

static void tell(const struct tally *tally)
{
	say("{\"function\": \"%s\", \"bytes\": %lu, \"count\": %lu, \"allocated_bytes\": %lu, \"allocated_count\": %lu, "
	    "\"freed_count\": %lu}\n",
	    tally->name, tally->bytes, tally->count, tally->allocated_bytes, tally->allocated_count, tally->freed_count);
}

int main(void)
{
	say("ready\n");
	wait_line();
	for (int round = 0; round < ROUNDS; round++) {
		size_t size = 1000 + round;
		void *block = by_mallocx(size, round % 2 ? MALLOCX_ZERO : MALLOCX_ALIGN(256));

		fail(block);
		if (round % 8 == 1) {
			dallocx(block, 0);
			died(&mallocx_tally, size);
		} else if (round % 8 == 2) {
			sdallocx(block, size, MALLOCX_ALIGN(256));
			died(&mallocx_tally, size);
		} else if (round % 8 == 3) {
			block = by_rallocx(block, size, 3 * size);
			if (round % 16 == 3) {
				dallocx(block, 0);
				died(&rallocx_tally, 3 * size);
			}
		} else if (round % 8 == 4) {
			by_xallocx(block, size, size - 10);
			if (round % 16 == 4) {
				dallocx(block, 0);
				died(&xallocx_tally, size - 10);
			}
		}
	}
	tell(&mallocx_tally);
	tell(&rallocx_tally);
	tell(&xallocx_tally);
	say("end\n");
	wait_line();
	return 0;
}
