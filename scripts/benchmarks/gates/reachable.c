/*
 * reachable: ends with a cache of 100 blocks of 64 bytes that a global variable still leads to, so none of them is lost.
 * Answer: nothing.
 */
#include "block.h"

struct entry {
	struct entry *next;
	char text[56];
};

static struct entry *cache;

NOINLINE static void remember(void)
{
	struct entry *entry = use(malloc(sizeof(*entry)));

	entry->next = cache;
	cache = entry;
}

int main(void)
{
	for (int i = 0; i < 100; i++)
		remember();
	return 0;
}
