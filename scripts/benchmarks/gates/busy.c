/*
 * busy: allocates and frees a block 5 million times, then loses one.
 * Answer: 100 bytes in 1 block at lose.
 */
#include "block.h"

NOINLINE static void work(void)
{
	for (int i = 0; i < 5000000; i++)
		free(use(malloc(64)));
}

NOINLINE static void lose(void)
{
	use(malloc(100));
}

int main(void)
{
	work();
	lose();
	other_work();
	return 0;
}
