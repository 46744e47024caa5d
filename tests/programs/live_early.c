/*
 * live_early.so: a library that allocates before the program's entry point. Answer: library_constructor() keeps one
 * block of 1111 bytes.
 */
#include <stdlib.h>

void *early_block;

__attribute__((constructor, noinline)) static void library_constructor(void)
{
	early_block = malloc(1111);
}
