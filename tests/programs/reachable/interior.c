/*
 * Blocks that are pointed at, but not at their start; what such a block points at; and pointers just outside.
 * Truth: definitely 80 bytes in 2 blocks, possibly 690 bytes in 4 blocks, reachable 250 bytes in 2 blocks.
 */
#include "held.h"

void *into_middle, *into_last_byte, *into_both[2], *to_owner;
void *past_end, *before_start;

NOINLINE static void make(void)
{
	char *block = (char *)calloc(1, 100);
	char **owner;

	into_middle = block + 50;
	block = (char *)calloc(1, 190);
	into_last_byte = block + 189;
	/* A pointer to the start counts, whatever others there are. */
	block = (char *)calloc(1, 150);
	into_both[0] = block + 8;
	into_both[1] = block;
	/* A possibly lost block's block, although it is pointed at as it should be. */
	owner = (char **)calloc(1, 200);
	owner[3] = (char *)calloc(1, 200);
	into_middle = use(into_middle);
	to_owner = (char *)owner + 16;
	/* And a reachable one's block, at its start. */
	owner = (char **)into_both[1];
	owner[2] = (char *)calloc(1, 100);
	past_end = (char *)calloc(1, 40) + 40;
	before_start = (char *)calloc(1, 40) - 8;
}

int main(void)
{
	make();
	end();
}
