/*
 * Raises a signal that it handles, 20,000 times, and prints "rate SIGNALS_PER_SECOND" once. Leaks nothing.
 */
#include <signal.h>
#include <stdio.h>
#include <time.h>

enum { SIGNALS = 20000 };

static volatile sig_atomic_t handled;

static void handle(int number)
{
	(void)number;
	handled++;
}

static double now_s(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(void)
{
	signal(SIGUSR1, handle);
	double start = now_s();
	for (int i = 0; i < SIGNALS; i++)
		raise(SIGUSR1);
	printf("rate %.1f\n", handled / (now_s() - start));
	return handled != SIGNALS;
}
