/*
 * bench_hold BLOCKS: prints "ready", waits for a line on standard input, allocates BLOCKS blocks of 32 bytes from
 * 16 call sites in turn, prints "held BLOCKS" and sleeps. All of them stay reachable: each points at the one before.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { SITES = 16, BLOCK_BYTES = 32 };

static void **newest;

/* One function a site, so that each is one stack of its own, with or without line numbers. */
#define SITE(n)                                                         \
	static __attribute__((noinline)) void *site_##n(void)           \
	{                                                               \
		void **block = malloc(BLOCK_BYTES);                     \
		if (!block)                                             \
			exit(1);                                        \
		*block = newest;                                        \
		return newest = block;                                  \
	}
SITE(0) SITE(1) SITE(2) SITE(3) SITE(4) SITE(5) SITE(6) SITE(7)
SITE(8) SITE(9) SITE(10) SITE(11) SITE(12) SITE(13) SITE(14) SITE(15)

static void *(*const sites[SITES])(void) = {
	site_0, site_1, site_2, site_3, site_4, site_5, site_6, site_7,
	site_8, site_9, site_10, site_11, site_12, site_13, site_14, site_15,
};

int main(int argc, char **argv)
{
	long blocks = argc > 1 ? atol(argv[1]) : 900000;

	setvbuf(stdout, NULL, _IOLBF, 256);
	puts("ready");
	if (getchar() == EOF)
		return 1;
	for (long i = 0; i < blocks; i++)
		sites[i % SITES]();
	printf("held %ld\n", blocks);
	for (;;)
		pause();
}
