/*
 * bench_pointers MEGABYTES BLOCKS: blocks of one size that fill so much memory, of whose words every tenth points to
 * another block. Prints "ready" when they are there, and waits for the end of its input.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* What malloc needs beside a block. */
enum { HEADER = 16, EVERY = 10 };

static uint64_t state = 88172645463325252ull;

static uint64_t dice(void)
{
	/* Marsaglia's xorshift */
	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

int main(int argc, char **argv)
{
	size_t megabytes = argc > 2 ? atol(argv[1]) : 1024, count = argc > 2 ? atol(argv[2]) : 1000000;
	size_t size = (megabytes << 20) / count - HEADER, words = size / 8;
	uint64_t **blocks = malloc(count * sizeof(*blocks));
	char byte;

	for (size_t i = 0; i < count; i++)
		blocks[i] = malloc(size);
	for (size_t i = 0; i < count; i++)
		for (size_t word = 0; word < words; word++)
			blocks[i][word] = word % EVERY ? dice() >> 24 : (uint64_t)blocks[dice() % count];
	puts("ready");
	fflush(stdout);
	return read(STDIN_FILENO, &byte, 1) < 0;
}
