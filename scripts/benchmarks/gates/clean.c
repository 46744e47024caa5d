/*
 * clean: frees all that it allocates, after calls for which glibc keeps memory of its own: a stream, a locale, a time zone.
 * Answer: nothing.
 */
#include <locale.h>
#include <stdio.h>
#include <time.h>

#include "block.h"

NOINLINE static void work(void)
{
	for (size_t size = 1; size < 100000; size *= 2) {
		void *block = use(calloc(1, size));

		free(use(realloc(block, 2 * size)));
	}
}

int main(void)
{
	time_t now = time(NULL);

	setlocale(LC_ALL, "C.UTF-8");
	printf("%s", asctime(localtime(&now)));
	work();
	return 0;
}
