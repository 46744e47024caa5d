/*
 * suppressed: loses 8 blocks at a function that the suppression files name, and one at a function that they do not.
 * Answer: 77 bytes in 1 block at fresh_leak.
 */
#include "block.h"

NOINLINE static void known_leak(void)
{
	use(malloc(100));
}

NOINLINE static void fresh_leak(void)
{
	use(malloc(77));
}

int main(void)
{
	for (int i = 0; i < 8; i++)
		known_leak();
	fresh_leak();
	other_work();
	return 0;
}
