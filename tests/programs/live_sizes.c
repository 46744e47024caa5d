/*
 * live_sizes: blocks of known sizes, one function for each kind, in two steps of the same; then an end. Answer, for every
 * step: the function, the size of each block, how many, and their addresses.
 *
 *   one_large      1 block of 30000 bytes
 *   some           10 of 500
 *   many_small     50 of 100
 *   grown          1 of 700 that was made 9000 by realloc
 *   shrunk         1 of 9000 that was made 700 by realloc
 *   freed          5 of 300, all freed again
 */
#include "talk.c"
#include <string.h>

static char addresses[2048];

static void *keep(void *block)
{
	require(block != NULL, "there is memory");
	snprintf(addresses + strlen(addresses), sizeof(addresses) - strlen(addresses), "%s\"%p\"", *addresses ? ", " : "",
		 block);
	return block;
}

static void answer(const char *name, int size, int count)
{
	char line[sizeof(addresses) + 128];
	int length = snprintf(line, sizeof(line), "{\"function\": \"%s\", \"size\": %d, \"count\": %d, \"addresses\": [%s]}\n",
			      name, size, count, addresses);

	require(write(1, line, length) == length, "the test listens");
	*addresses = 0;
}

#define KIND(name, size, number)                                                                                       \
	NOINLINE static void name(void)                                                                                \
	{                                                                                                              \
		for (int i = 0; i < number; i++)                                                                       \
			keep(malloc(size));                                                                            \
		answer(#name, size, number);                                                                           \
	}

KIND(one_large, 30000, 1)
KIND(some, 500, 10)
KIND(many_small, 100, 50)

NOINLINE static void grown(void)
{
	keep(realloc(malloc(700), 9000));
	answer("grown", 9000, 1);
}

NOINLINE static void shrunk(void)
{
	keep(realloc(malloc(9000), 700));
	answer("shrunk", 700, 1);
}

NOINLINE static void freed(void)
{
	void *blocks[5];

	for (int i = 0; i < 5; i++)
		blocks[i] = keep(malloc(300));
	for (int i = 0; i < 5; i++)
		free(blocks[i]);
	answer("freed", 300, 5);
}

int main(void)
{
	say("ready\n");
	for (int step = 0; step < 2; step++) {
		wait_line();
		one_large();
		some();
		many_small();
		grown();
		shrunk();
		freed();
		say("end\n");
	}
	wait_line();
	return 0;
}
