/*
 * Blocks that only freed memory points at, and blocks that a freed block pointed at but a held one does too.
 * Truth: definitely 600 bytes in 12 blocks, reachable 100 bytes in 2 blocks.
 */
#include "held.h"

struct owner {
	void *room_for_the_allocator[4];
	void *owned[12];
};

void *held[2];

NOINLINE static void free_owner(void)
{
	struct owner *owner = (struct owner *)calloc(1, sizeof(*owner));

	for (int number = 0; number < 12; number++)
		owner->owned[number] = calloc(1, 50);
	held[0] = owner->owned[5];
	free(use(owner));
}

/* A larger one, which the allocator joins with what lies beside it. */
NOINLINE static void free_table(void)
{
	void **table = (void **)calloc(1, 4000);

	table[400] = calloc(1, 50);
	held[1] = calloc(1, 50);
	table[401] = held[1];
	free(use(table));
}

NOINLINE static void make(void)
{
	free_owner();
	free_table();
}

int main(void)
{
	make();
	end();
}
