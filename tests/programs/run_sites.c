/*
 * run_sites FIRST SECOND: keeps so many blocks of 100 bytes at first_site() and of 10 at second_site(). Built with
 * -DMOVED, the same functions have other addresses and other lines.
 * Answer: 100 * FIRST bytes and 10 * SECOND bytes.
 */
#include "talk.c"

static void *volatile block;

#ifdef MOVED
NOINLINE static void another(void)
{
	for (int i = 0; i < 3; i++) {
		block = malloc(3000 + i);
		free(block);
	}
}

int moved_data[5000] = {1};
#line 501
#endif

NOINLINE static void first_site(int count)
{
	for (int i = 0; i < count; i++)
		block = malloc(100);
}

NOINLINE static void second_site(int count)
{
	for (int i = 0; i < count; i++)
		block = malloc(10);
}

int main(int argc, char **argv)
{
	require(argc == 3, "both numbers are given");
#ifdef MOVED
	another();
#endif
	first_site(atoi(argv[1]));
	second_site(atoi(argv[2]));
	return 0;
}
