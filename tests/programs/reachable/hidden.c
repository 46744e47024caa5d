/*
 * Pointers that cannot be seen: combined by exclusive or, inverted, not aligned, turned by half
 * a word; and one with a tag.
 * Truth: definitely 640 bytes in 6 blocks, possibly 110 bytes in 1 block, reachable 90 bytes in 1 block.
 */
#include "held.h"

struct pair {
	uintptr_t both;
	char text[82];
};

uintptr_t inverted, tagged, turned;
struct __attribute__((packed)) { char one; void *pointer; char more[7]; } packed __attribute__((aligned(8)));
struct pair *first;

/* Each has its neighbours' addresses, combined, so only the first can be followed, and not further. */
NOINLINE static void make_pairs(void)
{
	struct pair *nodes[5] = {NULL};

	for (int number = 1; number < 5; number++)
		nodes[number] = (struct pair *)calloc(1, sizeof(struct pair) - 6);
	for (int number = 1; number < 5; number++)
		nodes[number]->both = (uintptr_t)nodes[number - 1] ^ (uintptr_t)(number < 4 ? nodes[number + 1] : NULL);
	nodes[4]->both = ~(uintptr_t)nodes[3];
	nodes[1]->both = ~(uintptr_t)nodes[2];
	first = nodes[1];
}

NOINLINE static void make(void)
{
	uintptr_t address;

	make_pairs();
	inverted = ~(uintptr_t)calloc(1, 120);
	tagged = (uintptr_t)calloc(1, 110) | 1;
	packed.pointer = calloc(1, 130);
	address = (uintptr_t)calloc(1, 120);
	turned = address << 32 | address >> 32;
}

int main(void)
{
	make();
	end();
}
