/*
 * live_library.so, built with -DKEEPS=name: a library whose one function, of that name, keeps ten blocks of the size that
 * it is given. Two of them differ in nothing but the name, so that each may be loaded where the other one was.
 */
#include <stdlib.h>

static void *volatile block;

__attribute__((noinline)) void KEEPS(int size)
{
	for (int i = 0; i < 10; i++)
		block = malloc(size);
}
