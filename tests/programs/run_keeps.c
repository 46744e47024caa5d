/*
 * run_keeps: has glibc keep what it never frees, stdout's buffer and a locale's names, and keeps a block of its own.
 * Answer: own_site() holds 100 bytes in 1 block; all else is glibc's.
 */
#include "talk.c"
#include <locale.h>

static void *volatile block;

NOINLINE static void own_site(void)
{
	block = malloc(100);
}

int main(void)
{
	require(setlocale(LC_ALL, "C.UTF-8") != NULL, "the locale C.UTF-8 is there");
	printf("a line that needs stdout's buffer\n");
	fflush(stdout);
	own_site();
	_exit(0);
}
