/*
 * leaks: forgets a ring of three blocks that point at each other, made by a callee of main, and ends within 5 ms.
 * Answer: 120 bytes in 3 blocks at make_ring.
 */
#include "block.h"

struct node {
	struct node *next;
	char text[32];
};

NOINLINE static struct node *make_ring(int count)
{
	struct node *last = use(malloc(sizeof(*last)));
	struct node *first = last;

	while (--count) {
		struct node *node = use(malloc(sizeof(*node)));

		node->next = first;
		first = node;
	}
	last->next = first;
	return first;
}

NOINLINE static void work(void)
{
	use(make_ring(3));
}

int main(void)
{
	work();
	other_work();
	return 0;
}
