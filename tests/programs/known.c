/*
 * known: one thread, every C allocator function that all C libraries have, by known amounts. Answer: what each by_...()
 * function allocated and what of it was freed, as it says itself; the same under every allocator.
 */
#include "talk.c"
#include <stdint.h>
#include <stdlib.h>

enum { ROUNDS = 100 };

struct tally {
	const char *name;
	uint64_t bytes, count, allocated_bytes, allocated_count, freed_count;
};

/* Lets no compiler leave an allocation and its free out (C17 5.1.2.3). */
static void escape(void *pointer)
{
	__asm__ volatile("" : : "r"(pointer) : "memory");
}

/* Half of the blocks are freed at once, by free() or by realloc(). */
static void *settle(struct tally *tally, void *block, size_t size, int round)
{
	require(block != NULL, tally->name);
	escape(block);
	tally->allocated_bytes += size;
	tally->allocated_count++;
	if (round % 2) {
		free(block);
		tally->freed_count++;
		return NULL;
	}
	tally->bytes += size;
	tally->count++;
	return block;
}

#define BY(name, size, call)                                                                                           \
	static struct tally name##_tally = { #name, 0, 0, 0, 0, 0 };                                                   \
	NOINLINE static void *name(int round)                                                                          \
	{                                                                                                              \
		void *block = NULL;                                                                                    \
		size_t bytes = (size);                                                                                 \
		call;                                                                                                  \
		return settle(&name##_tally, block, bytes, round);                                                     \
	}

BY(by_malloc, 10 + round, block = malloc(bytes))
BY(by_calloc, 3 * (20 + round), block = calloc(3, 20 + round))
BY(by_realloc_null, 30 + round, block = realloc(NULL, bytes))
BY(by_posix_memalign, 40 + round, require(posix_memalign(&block, 128, bytes) == 0, "posix_memalign gives memory"))
BY(by_aligned_alloc, 64 * (1 + round), block = aligned_alloc(64, bytes))

/* A block of a megabyte, which allocators have from elsewhere. */
BY(by_large, (1 << 20) + round, block = malloc(bytes))

static struct tally by_realloc_tally = { "by_realloc", 0, 0, 0, 0, 0 };

NOINLINE static void by_realloc(int round, void *block, struct tally *old, size_t old_size)
{
	size_t size = round % 4 ? 5000 + round : 5;

	block = realloc(block, size);
	old->bytes -= old_size;
	old->count--;
	old->freed_count++;
	settle(&by_realloc_tally, block, size, round % 3);
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
		void *block = by_malloc(round);

		if (block && round % 8)
			by_realloc(round, block, &by_malloc_tally, 10 + round);
		by_calloc(round);
		by_realloc_null(round);
		by_posix_memalign(round);
		by_aligned_alloc(round);
		if (round < 4)
			by_large(round);
	}
	tell(&by_malloc_tally);
	tell(&by_realloc_tally);
	tell(&by_calloc_tally);
	tell(&by_realloc_null_tally);
	tell(&by_posix_memalign_tally);
	tell(&by_aligned_alloc_tally);
	tell(&by_large_tally);
	say("end\n");
	wait_line();
	return 0;
}
