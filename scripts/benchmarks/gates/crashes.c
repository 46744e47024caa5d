/*
 * crashes: loses 5 blocks, then writes through a null pointer and is ended by SIGSEGV.
 * Answer: 500 bytes in 5 blocks at lose.
 */
#include "block.h"

static int *volatile nowhere;

NOINLINE static void lose(void)
{
	for (int i = 0; i < 5; i++)
		use(malloc(100));
}

int main(void)
{
	lose();
	other_work();
	*nowhere = 1;
	return 0;
}
