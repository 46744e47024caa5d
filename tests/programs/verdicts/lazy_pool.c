/*
 * Truth: no leak: a pool of 300 connections is filled as they are first needed, and its members are used again.
 */
#include "traffic.h"

#define ROOM 300

static void *pool[ROOM];

NOINLINE static void *new_connection(void)
{
	return filled(malloc(2000), 2000);
}

static void work(long step)
{
	/* Demand is higher at first, as after a start, and its peaks reach all of the pool. */
	unsigned slot = step < 600 ? (unsigned)step % ROOM : chance(ROOM);

	if (!pool[slot])
		pool[slot] = new_connection();
	memset(pool[slot], step & 127, 100);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
