/*
 * Blocks that globals of every sort hold, directly or through other blocks; one of them has no byte.
 * Truth: reachable 1,220 bytes in 9 blocks.
 */
#include "held.h"

struct link {
	struct link *next;
	char text[92];
};

void *plain;
void *in_array[4];
struct { int number; void *pointer; } in_struct = {7, NULL};
void *initialised[2] = {&plain, &plain};
struct link *chain;
void *empty;

NOINLINE static void make(void)
{
	plain = malloc(101);
	in_array[3] = malloc(203);
	in_struct.pointer = calloc(10, 30);
	initialised[1] = malloc(200);
	empty = malloc(0);
	for (int number = 0; number < 4; number++) {
		struct link *link = (struct link *)malloc(sizeof(*link));

		link->next = chain;
		chain = link;
	}
}

int main(void)
{
	make();
	end();
}
