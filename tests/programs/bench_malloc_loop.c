/*
 * Allocates and frees 64 bytes in a loop, through a call chain of five functions, and prints
 * "rate PAIRS_PER_SECOND" every half second. Holds one block at a time; leaks nothing.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { BLOCK_BYTES = 64, BURST = 256 };
static const double INTERVAL_S = 0.5;

/* The compiler may otherwise delete a malloc whose block is only freed. */
static void *volatile keep;

#define LINK __attribute__((noinline))
/* The empty asm after the call keeps it from becoming a jump, which would leave no frame. */
#define STAY __asm__ volatile("" ::: "memory")

LINK static void make_node(void)
{
	keep = malloc(BLOCK_BYTES);
	free(keep);
}
LINK static void parse_field(void) { make_node(); STAY; }
LINK static void parse_record(void) { parse_field(); STAY; }
LINK static void handle_request(void) { parse_record(); STAY; }
LINK static void serve_burst(void)
{
	for (int i = 0; i < BURST; i++)
		handle_request();
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(void)
{
	double start = now_s();
	long pairs = 0;

	setvbuf(stdout, NULL, _IOLBF, 256);
	for (;;) {
		serve_burst();
		pairs += BURST;
		double elapsed = now_s() - start;
		if (elapsed < INTERVAL_S)
			continue;
		printf("rate %.1f\n", (double)pairs / elapsed);
		start = now_s();
		pairs = 0;
	}
}
