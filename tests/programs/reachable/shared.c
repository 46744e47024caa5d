/*
 * Two lost trees that share a child, a lost tree that shares one with a held block, and a child of a
 * possibly lost one.
 * Truth: definitely 300 bytes in 3 blocks, indirectly 180 bytes in 3 blocks, possibly 170 bytes in 2 blocks,
 * reachable 170 bytes in 2 blocks.
 */
#include "held.h"

struct tree {
	void *children[2];
	char text[84];
};

struct tree *held;
char *into;

NOINLINE static struct tree *make_tree(void *left, void *right)
{
	struct tree *tree = (struct tree *)calloc(1, sizeof(struct tree) - 4);

	tree->children[0] = left;
	tree->children[1] = right;
	return tree;
}

NOINLINE static void make(void)
{
	void *shared = calloc(1, 60);
	void *also_held = calloc(1, 70);
	void *also_possible = calloc(1, 70);

	use(make_tree(shared, calloc(1, 60)));
	use(make_tree(calloc(1, 60), shared));
	use(make_tree(also_held, also_possible));
	held = make_tree(NULL, also_held);
	into = (char *)make_tree(also_possible, NULL) + 32;
}

int main(void)
{
	make();
	end();
}
