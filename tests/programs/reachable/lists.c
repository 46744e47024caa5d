/*
 * Lists whose head is lost, whose middle is held, and one with both ends held; a tree that is lost from its root.
 * Truth: definitely 240 bytes in 3 blocks, indirectly 1,040 bytes in 13 blocks, reachable 1,200 bytes in 15 blocks.
 */
#include "held.h"

struct node {
	struct node *left;
	struct node *right;
	char text[64];
};

struct node *middle, *first, *last_of_first;

NOINLINE static struct node *make_node(struct node *left, struct node *right)
{
	struct node *node = (struct node *)calloc(1, sizeof(*node));

	node->left = left;
	node->right = right;
	return node;
}

NOINLINE static struct node *make_list(int count)
{
	struct node *head = NULL;

	while (count--)
		head = make_node(head, NULL);
	return head;
}

NOINLINE static struct node *make_tree(int height)
{
	return height ? make_node(make_tree(height - 1), make_tree(height - 1)) : NULL;
}

NOINLINE static void make(void)
{
	struct node *list;

	use(make_list(8));
	use(make_tree(3));
	/* One is lost before the five that are held from their first on. */
	list = make_list(6);
	middle = list->left;
	/* The pointers go forth only: the last of a held list is held twice. */
	first = make_list(10);
	for (list = first; list->left; list = list->left)
		;
	last_of_first = list;
}

int main(void)
{
	make();
	end();
}
