/*
 * Blocks that hold each other: rings of three and of two, one that points at itself, a ring with a
 * tail, and a held ring.
 * Truth: definitely 320 bytes in 5 blocks, indirectly 448 bytes in 7 blocks, reachable 256 bytes in 4 blocks.
 */
#include "held.h"

struct node {
	struct node *next;
	struct node *tail;
	char text[48];
};

struct node *held;

NOINLINE static struct node *make_ring(int count)
{
	struct node *last = (struct node *)calloc(1, sizeof(*last));
	struct node *first = last;

	while (--count) {
		struct node *node = (struct node *)calloc(1, sizeof(*node));

		node->next = first;
		first = node;
	}
	last->next = first;
	return first;
}

NOINLINE static void make(void)
{
	struct node *ring;

	use(make_ring(3));
	use(make_ring(2));
	use(make_ring(1));
	ring = make_ring(3);
	ring->next->tail = make_ring(1);
	/* A ring that a lost block points at is that block's. */
	ring = make_ring(1);
	ring->next = NULL;
	ring->tail = make_ring(1);
	held = make_ring(4);
}

int main(void)
{
	make();
	end();
}
