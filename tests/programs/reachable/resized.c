/*
 * Blocks held by a table that realloc moved, that it shrank, or that it could not resize.
 * Truth: definitely 480 bytes in 12 blocks, reachable 8,920 bytes in 31 blocks.
 */
#include "held.h"

#define MOVED 20
#define CUT 20

void **moved, **cut, *kept;

/* Something lies behind the table, so that it has to move when it grows. */
NOINLINE static void grow_table(void)
{
	moved = (void **)calloc(MOVED, sizeof(*moved));
	for (int number = 0; number < MOVED; number++)
		moved[number] = calloc(1, 40);
	moved = (void **)realloc(use(moved), 7600);
	memset(moved + MOVED, 0, 7600 - MOVED * sizeof(*moved));
}

/* The pointers behind the new end are no longer in a block. */
NOINLINE static void cut_table(void)
{
	cut = (void **)calloc(CUT, sizeof(*cut));
	for (int number = 0; number < CUT; number++)
		cut[number] = calloc(1, 40);
	cut = (void **)realloc(use(cut), 8 * sizeof(*cut));
}

/* Its old block stays. */
NOINLINE static void fail_to_grow(void)
{
	volatile size_t too_much = (size_t)-1 / 2 - 4096;
	void *none;

	kept = calloc(1, 136);
	none = realloc(kept, too_much);
	if (none)
		abort();
}

NOINLINE static void make(void)
{
	grow_table();
	cut_table();
	fail_to_grow();
}

int main(void)
{
	make();
	end();
}
