/*
 * symbols_shelf: a library with one function for other files, and one that only its .symtab has. Answer: put_away(size)
 * gets a block of that size in hide(). -DOTHER makes the same code under other names.
 */
#include <stdlib.h>

#ifdef OTHER
#define hide other_hide
#endif

static void *volatile block;

__attribute__((noinline, noclone)) static void hide(size_t size)
{
	block = malloc(size);
	__asm__ volatile("" ::: "memory");
}

__attribute__((noinline, noclone)) void put_away(size_t size)
{
	hide(size);
	__asm__ volatile("" ::: "memory");
}
