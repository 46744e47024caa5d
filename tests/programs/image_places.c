/*
 * image_places [MEGABYTES]: keeps words that a scan of its memory must find, and says where each is. They are in a
 * variable, the heap, a mapping of its own, shared memory, memory that was protected against writing, and a thread's
 * stack and thread-local storage; one is in a register of that thread only, which spins. There are also guards: a
 * mapping that cannot be read, and the second page of one of four in the middle; a mapping of 1 TB of which one page is
 * in use; and the heap of that thread. With MEGABYTES, a heap of that size in touched blocks of 1 MB. Answer: the
 * addresses, the value, how far the thread has counted and how many signals SIGRTMIN + 1 came, after each line.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#define VALUE 0x1eac7eace0000000ul
#define PAGE 4096

static volatile uint64_t global = VALUE + 1;
static __thread volatile uint64_t local;
static volatile uint64_t *thread_local, *thread_heap, *thread_stack;
static volatile uint64_t thread_dead, count, signals;

static char *map(size_t size, int protection, int flags)
{
	char *at = mmap(NULL, size, protection, MAP_ANONYMOUS | flags, -1, 0);

	require(at != MAP_FAILED, "memory is mapped");
	return at;
}

static void on_signal(int number)
{
	if (number == SIGRTMIN + 1)
		__sync_fetch_and_add(&signals, 1);
}

/* Leaves a word behind below the stack pointer of its caller. */
NOINLINE static void leave(void)
{
	volatile uint64_t words[512];

	memset((void *)words, 0, sizeof(words));
	words[8] = VALUE + 9;
	thread_dead = (uint64_t)&words[8];
}

static void *work(void *unused)
{
	volatile uint64_t on_stack = VALUE + 7;
	uint64_t in_register = VALUE;

	thread_stack = &on_stack;
	local = VALUE + 6;
	thread_local = &local;
	thread_heap = malloc(100);
	thread_heap[0] = VALUE + 8;
	leave();
	/* The sum is never in memory. */
	__asm__ volatile("add $10, %0\n\tmov %0, %%r15\n\txor %0, %0\n1:\tincq %1\n\tjmp 1b"
			 : "+r"(in_register), "+m"(count) : : "r15", "memory");
	return unused;
}

static void fill_heap(int megabytes)
{
	for (int i = 0; i < megabytes; i++) {
		char *block = malloc(1 << 20);

		require(block != NULL, "there is memory");
		memset(block, 1, 1 << 20);
	}
}

static void answer(uint64_t **places, int number)
{
	say("{\"value\": %lu, \"count\": %lu, \"signals\": %lu}\n", VALUE, count, signals);
	for (int i = 0; i < number; i++)
		say("{\"place\": %lu, \"word\": %lu}\n", (uint64_t)places[i], *places[i]);
	say("{\"dead\": %lu}\n", thread_dead);
	say("end\n");
}

int main(int argc, char **argv)
{
	uint64_t *places[9];
	pthread_t thread;
	char *closed, *four;

	mallopt(M_MMAP_THRESHOLD, 1 << 30);
	signal(SIGRTMIN + 1, on_signal);
	places[0] = (uint64_t *)&global;
	places[1] = malloc(64);
	places[2] = (uint64_t *)map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	places[3] = (uint64_t *)map(PAGE, PROT_READ | PROT_WRITE, MAP_SHARED);
	places[4] = (uint64_t *)map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	places[5] = (uint64_t *)(map(1ul << 40, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE) + (1ul << 39));
	for (int i = 1; i < 6; i++)
		*places[i] = VALUE + 10 * i;
	mprotect(places[4], PAGE, PROT_READ);
	closed = map(PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	*closed = 1;
	mprotect(closed, PAGE, PROT_NONE);
	four = map(4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE);
	memset(four, 0, 4 * PAGE);
	mprotect(four + PAGE, PAGE, PROT_NONE);
	fill_heap(argc > 1 ? atoi(argv[1]) : 0);
	require(!pthread_create(&thread, NULL, work, NULL), "a thread begins");
	while (!count)
		usleep(1000);
	places[6] = (uint64_t *)thread_local;
	places[7] = (uint64_t *)thread_stack;
	places[8] = (uint64_t *)thread_heap;
	say("ready\n");
	for (;;) {
		wait_line();
		answer(places, 9);
	}
}
