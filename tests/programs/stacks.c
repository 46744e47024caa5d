/*
 * stacks MODE: allocations whose number, or whose stacks, exceed what a small trace has room for. The last step frees
 * all. Answer: bytes and count that are held.
 *
 *   blocks      5000 blocks of 16 to 115 bytes from one call site, and three of a megabyte at the end
 *   paths       one block for each of 256 different stacks: eight calls of left() or right() deep
 *   load        as blocks, without the three, and then a library is loaded and unloaded 400 times
 *   recursion   100 blocks under a recursion of 100 levels, and 50 under one of 90 that begins elsewhere
 */
#include "talk.c"
#include <dlfcn.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { BLOCKS = 5000, LEVELS = 8, LOADS = 400, MOST = BLOCKS + 3 };

static void *blocks[MOST];
static uint64_t bytes, count;

NOINLINE static void hold(size_t size)
{
	void *block = malloc(size);

	require(block != NULL, "malloc gives memory");
	blocks[count++] = block;
	bytes += size;
}

static void walk(unsigned path, unsigned levels);

NOINLINE static void left(unsigned path, unsigned levels)
{
	walk(path, levels);
	__asm__ volatile("");
}

NOINLINE static void right(unsigned path, unsigned levels)
{
	walk(path, levels);
	__asm__ volatile("");
}

NOINLINE static void walk(unsigned path, unsigned levels)
{
	if (!levels)
		hold(100 + path);
	else if (path >> (levels - 1) & 1)
		left(path, levels - 1);
	else
		right(path, levels - 1);
	__asm__ volatile("");
}

NOINLINE static void recurse(unsigned levels)
{
	if (levels)
		recurse(levels - 1);
	else
		hold(64);
	__asm__ volatile("");
}

NOINLINE static void one_way(unsigned levels)
{
	recurse(levels);
	__asm__ volatile("");
}

NOINLINE static void another_way(unsigned levels)
{
	recurse(levels);
	__asm__ volatile("");
}

static void work(const char *mode)
{
	if (!strcmp(mode, "blocks")) {
		for (unsigned i = 0; i < BLOCKS; i++)
			hold(16 + i % 100);
		for (unsigned i = 0; i < 3; i++)
			hold(1 << 20);
	} else if (!strcmp(mode, "load")) {
		for (unsigned i = 0; i < BLOCKS; i++)
			hold(16);
		for (unsigned i = 0; i < LOADS; i++)
			require(!dlclose(dlopen("libm.so.6", RTLD_NOW)), "libm can be loaded");
	} else if (!strcmp(mode, "paths")) {
		for (unsigned path = 0; path < 1u << LEVELS; path++)
			walk(path, LEVELS);
	} else {
		for (unsigned i = 0; i < 100; i++)
			one_way(100);
		for (unsigned i = 0; i < 50; i++)
			another_way(90);
	}
}

int main(int argc, char **argv)
{
	require(argc == 2, "stacks MODE");
	say("ready\n");
	wait_line();
	work(argv[1]);
	say("{\"bytes\": %lu, \"count\": %lu}\nend\n", bytes, count);
	wait_line();
	for (unsigned i = 0; i < count; i++)
		free(blocks[i]);
	say("end\n");
	wait_line();
	return 0;
}
