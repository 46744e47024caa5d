/*
 * samples DISTANCE: 200,000 blocks of known mixed sizes: small() of 16 to 271 bytes, medium() of 500 to 1999, large() of
 * 4096 to 6095, and blocks that aligned() and resized() get by functions that do so in more than one call. The first
 * step allocates, the second frees all. Answer: how many bytes and blocks each function holds, and what the variance of
 * an estimate of its bytes is: by_rate times (n - 1) where one in n is taken, by_bytes where one in DISTANCE bytes is.
 */
#include "talk.c"
#include <stdint.h>
#include <stdlib.h>

enum { ALL = 200000 };

static void *blocks[ALL];
static unsigned held;
static uint64_t distance;

struct tally {
	const char *name;
	uint64_t bytes, count, by_rate, by_bytes;
};

static void keep(struct tally *tally, void *block, size_t size)
{
	/* A whole number of blocks that each one stands for, so rounded up. */
	uint64_t weight = size < distance ? (distance + size - 1) / size : 1;

	require(block != NULL, tally->name);
	blocks[held++] = block;
	tally->bytes += size;
	tally->count++;
	tally->by_rate += size * size;
	tally->by_bytes += (weight - 1) * size * size;
}

static void *align(size_t size)
{
	void *block = NULL;

	require(posix_memalign(&block, 64, size) == 0, "posix_memalign gives memory");
	return block;
}

#define BY(function, call)                                                                                             \
	static struct tally function##_tally = { .name = #function };                                                  \
	NOINLINE static void function(size_t size)                                                                     \
	{                                                                                                              \
		keep(&function##_tally, call, size);                                                                   \
	}

BY(small, malloc(size))
BY(medium, malloc(size))
BY(large, malloc(size))
BY(aligned, align(size))
BY(resized, realloc(malloc(size / 3), size))

static void tell(const struct tally *tally)
{
	say("{\"function\": \"%s\", \"bytes\": %lu, \"count\": %lu, \"by_rate\": %lu, \"by_bytes\": %lu}\n",
	    tally->name, tally->bytes, tally->count, tally->by_rate, tally->by_bytes);
}

int main(int argc, char **argv)
{
	require(argc == 2, "samples DISTANCE");
	distance = strtoul(argv[1], NULL, 10);
	say("ready\n");
	wait_line();
	/* In turn, as a sampler that goes by turns would see some and not others. */
	for (unsigned i = 0; held < ALL; i++) {
		unsigned turn = i % 20;

		if (turn < 10)
			small(16 + i * 7 % 256);
		else if (turn < 15)
			medium(500 + i * 7 % 1500);
		else if (turn < 16)
			large(4096 + i * 7 % 2000);
		else if (turn < 18)
			aligned(200 + i * 7 % 400);
		else
			resized(300 + i * 7 % 600);
	}
	tell(&small_tally);
	tell(&medium_tally);
	tell(&large_tally);
	tell(&aligned_tally);
	tell(&resized_tally);
	say("end\n");
	wait_line();
	while (held)
		free(blocks[--held]);
	say("end\n");
	wait_line();
	return 0;
}
