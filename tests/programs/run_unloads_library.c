/* run_unloads_library.so: lose_from_library() loses 3 blocks of 50 bytes. */
#include <stdlib.h>

static void *volatile kept;

__attribute__((noinline)) void lose_from_library(void)
{
	for (int i = 0; i < 3; i++)
		kept = malloc(50);
}
