/*
 * What every program here has around its subject: a pace, and innocent work beside which a leak is small.
 *
 * A program runs for as many seconds as its first argument says (35 if there is none, so that it outlives 30 s of
 * tracing), in 100 steps a second, and sleeps in between. In each step the innocent work does what a server does:
 * start-up tables of 2.4 MB are loaded during the first 3 s, two entries of a full cache of 1 MB are replaced by chance
 * (they live 1.3 s on average, and some 10 s), a request and its reply come and go, and every fifth step opens a
 * session that lives 2 to 8 s. That is about 530 allocations a second; no site of it grows after 8 s.
 */
#ifndef TRAFFIC_H
#define TRAFFIC_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define NOINLINE __attribute__((noinline, noclone))
#define STEPS_A_SECOND 100
#define TABLES 300
#define CACHED 256
#define SESSIONS 256

/* Makes the compiler believe that a pointer is used, so that no allocation is left out. */
static inline void *use(void *pointer)
{
	__asm__ volatile("" : "+r"(pointer) : : "memory");
	return pointer;
}

/* A number below a bound: the same ones in each run. */
static inline unsigned chance(unsigned bound)
{
	static unsigned long long state = 88172645463325252ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return (unsigned)(state >> 33) % bound;
}

/* Fills a block as a program would, so that its pages are there. */
static inline void *filled(void *block, size_t size)
{
	if (!block)
		abort();
	return memset(block, 'x', size);
}

/* Volatile: what is never read again would not be kept. */
static void *volatile tables[TABLES];
static void *cached[CACHED];
static struct { void *block; long ends; } sessions[SESSIONS];

NOINLINE static void load_table(long step)
{
	tables[step] = filled(malloc(8192), 8192);
}

NOINLINE static void cache_page(void)
{
	unsigned slot = chance(CACHED);

	free(cached[slot]);
	cached[slot] = filled(malloc(4096), 4096);
}

NOINLINE static void *read_request(void)
{
	size_t size = 100 + chance(400);

	return filled(malloc(size), size);
}

NOINLINE static void *write_reply(void)
{
	size_t size = 500 + chance(1500);

	return filled(malloc(size), size);
}

NOINLINE static void open_session(long step)
{
	int slot = 0;

	while (slot < SESSIONS && sessions[slot].block)
		slot++;
	if (slot == SESSIONS)
		return;
	sessions[slot].block = filled(calloc(1, 600), 600);
	sessions[slot].ends = step + 200 + chance(600);
}

static inline void close_sessions(long step)
{
	for (int slot = 0; slot < SESSIONS; slot++)
		if (sessions[slot].block && sessions[slot].ends <= step) {
			free(sessions[slot].block);
			sessions[slot].block = NULL;
		}
}

static inline void innocent_work(long step)
{
	void *request = read_request();
	void *reply = write_reply();

	if (step < TABLES)
		load_table(step);
	cache_page();
	cache_page();
	close_sessions(step);
	if (step % 5 == 0)
		open_session(step);
	free(reply);
	free(request);
}

/* Does the innocent work and the given step, 100 times a second, for as long as was asked; returns main's result. */
static inline int run(int count, char **words, void (*work)(long step))
{
	double seconds = count > 1 ? atof(words[1]) : 35;
	struct timespec next;

	clock_gettime(CLOCK_MONOTONIC, &next);
	for (long step = 0; step < seconds * STEPS_A_SECOND; step++) {
		innocent_work(step);
		work(step);
		next.tv_nsec += 1000000000L / STEPS_A_SECOND;
		if (next.tv_nsec >= 1000000000L) {
			next.tv_nsec -= 1000000000L;
			next.tv_sec++;
		}
		while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &next, NULL) == EINTR)
			;
	}
	return 0;
}

#endif
