/*
 * live_busy: four threads fill, resize, check and free blocks. Steps: a measured amount of work; work until the next
 * line; the same measured amount again; and so on. Answer: nanoseconds of the measured work, rounds done, and how many
 * of them found other bytes in their blocks than they had put there: 0.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

enum { THREADS = 4, BLOCKS = 64, MOVES = 512, MEASURED_ROUNDS = 300 };

struct worker {
	pthread_t thread;
	uint64_t rounds, wrong;
};

static struct worker workers[THREADS];
static pthread_barrier_t begin, end;
static volatile long wanted; /* rounds; 0: until told */
static volatile int stop;

static uint64_t next_random(uint64_t *state)
{
	*state = *state * 6364136223846793005 + 1442695040888963407;
	return *state >> 33;
}

static uint64_t sum(const unsigned char *block, size_t size)
{
	uint64_t total = 0;

	for (size_t i = 0; i < size; i++)
		total += block[i];
	return total;
}

/* The sums of the bytes at each free() or realloc(); with memory = 0 those that are expected, by arithmetic alone. */
NOINLINE static uint64_t round_of_work(uint64_t seed, int memory)
{
	unsigned char *blocks[BLOCKS] = { 0 }, bytes[BLOCKS] = { 0 };
	size_t sizes[BLOCKS] = { 0 };
	uint64_t state = seed, checksum = 0;

	for (int move = 0; move < MOVES + BLOCKS; move++) {
		uint64_t random = next_random(&state);
		int at = move < MOVES ? random % BLOCKS : move - MOVES;
		size_t size = 16 + (random >> 8) % 300, had = sizes[at];
		int resize = move < MOVES && random >> 20 & 1 && had;

		checksum = checksum * 31 + (memory ? (had ? sum(blocks[at], had) : 0) : bytes[at] * had);
		if (memory && resize) {
			blocks[at] = realloc(blocks[at], size);
			/* What was there must have moved along. */
			if (sum(blocks[at], had < size ? had : size) != bytes[at] * (had < size ? had : size))
				checksum++;
		} else if (memory) {
			free(blocks[at]);
			blocks[at] = move < MOVES ? malloc(size) : NULL;
		}
		sizes[at] = move < MOVES ? size : 0;
		bytes[at] = random >> 24;
		if (memory && sizes[at])
			memset(blocks[at], bytes[at], size);
	}
	return checksum;
}

static void *work(void *argument)
{
	struct worker *worker = argument;
	uint64_t seed = worker - workers + 1, expected = round_of_work(seed, 0);

	for (;;) {
		pthread_barrier_wait(&begin);
		for (long round = 0; wanted ? round < wanted : !stop; round++) {
			worker->rounds++;
			worker->wrong += round_of_work(seed, 1) != expected;
		}
		pthread_barrier_wait(&end);
	}
	return NULL;
}

static int64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000000LL + time.tv_nsec;
}

static void answer(int64_t ns)
{
	uint64_t rounds = 0, wrong = 0;

	for (int i = 0; i < THREADS; i++) {
		rounds += workers[i].rounds;
		wrong += workers[i].wrong;
		workers[i].rounds = 0;
	}
	say("{\"ns\": %lld, \"rounds\": %llu, \"wrong\": %llu}\nend\n", (long long)ns, (unsigned long long)rounds,
	    (unsigned long long)wrong);
}

/* The best of three, as others use the machine too. */
static void measured(void)
{
	int64_t best = INT64_MAX;

	wanted = MEASURED_ROUNDS;
	for (int i = 0; i < 3; i++) {
		int64_t before = now(), took;

		pthread_barrier_wait(&begin);
		pthread_barrier_wait(&end);
		took = now() - before;
		best = took < best ? took : best;
	}
	answer(best);
}

static void until_told(void)
{
	wanted = 0;
	stop = 0;
	pthread_barrier_wait(&begin);
	wait_line();
	stop = 1;
	pthread_barrier_wait(&end);
	answer(0);
}

int main(void)
{
	require(!pthread_barrier_init(&begin, NULL, THREADS + 1) && !pthread_barrier_init(&end, NULL, THREADS + 1),
		"there are barriers");
	for (int i = 0; i < THREADS; i++)
		require(!pthread_create(&workers[i].thread, NULL, work, &workers[i]), "threads start");
	say("ready\n");
	for (;;) {
		wait_line();
		measured();
		wait_line();
		until_told();
	}
}
