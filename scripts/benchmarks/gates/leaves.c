/*
 * leaves: loses 6 blocks and leaves by _exit(0), so that nothing which was registered with atexit() runs.
 * Answer: 600 bytes in 6 blocks at lose.
 */
#include <unistd.h>

#include "block.h"

NOINLINE static void lose(void)
{
	for (int i = 0; i < 6; i++)
		use(malloc(100));
}

int main(void)
{
	lose();
	other_work();
	_exit(0);
}
