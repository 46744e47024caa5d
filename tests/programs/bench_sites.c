/*
 * bench_sites [SITES]: prints "ready", waits for a line on standard input, then allocates 48 bytes at the end of each of
 * SITES different call stacks (default 10,000; at most 16,384): the paths through 14 levels of a choice between two
 * functions. It walks them three times, keeps every block, prints "held BLOCKS" and sleeps.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { LEVELS = 14, PATHS = 1 << LEVELS, ROUNDS = 3, BLOCK_BYTES = 48 };

static void **newest;

static void left(unsigned path, int level);
static void right(unsigned path, int level);

static __attribute__((noinline)) void keep_block(void)
{
	void **block = malloc(BLOCK_BYTES);

	if (!block)
		exit(1);
	*block = newest;
	newest = block;
}

/* The empty asm after each call keeps it from becoming a jump, which would leave no frame. */
#define DESCEND(path, level)                                            \
	do {                                                            \
		if ((level) == 0)                                       \
			keep_block();                                   \
		else if ((path) & 1)                                    \
			right((path) >> 1, (level) - 1);                \
		else                                                    \
			left((path) >> 1, (level) - 1);                 \
		__asm__ volatile("" ::: "memory");                      \
	} while (0)

static __attribute__((noinline, noclone)) void left(unsigned path, int level)
{
	DESCEND(path, level);
	__asm__ volatile("# left");
}

static __attribute__((noinline, noclone)) void right(unsigned path, int level)
{
	DESCEND(path, level);
	__asm__ volatile("# right");
}

int main(int argc, char **argv)
{
	unsigned sites = argc > 1 ? (unsigned)atoi(argv[1]) : 10000;

	if (sites > PATHS)
		return 2;

	setvbuf(stdout, NULL, _IOLBF, 256);
	puts("ready");
	if (getchar() == EOF)
		return 1;
	for (int round = 0; round < ROUNDS; round++)
		for (unsigned path = 0; path < sites; path++)
			DESCEND(path, LEVELS);
	printf("held %u\n", ROUNDS * sites);
	for (;;)
		pause();
}
