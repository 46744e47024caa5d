/*
 * memory_parts WHAT FILE: memory of known kinds. WHAT is
 *   leak      each step keeps 2,000 blocks of 1,000 bytes.
 *   fragment  each step shrinks 300 blocks of 16,000 bytes and more to 24 where they lie; the next step's are larger
 *             than the gaps that are left, so the heap grows by these and not by what is held.
 *   parts     one step: 4 threads use 1 MB of their stacks each; 3 MB of FILE (which has as many), 5 MB of shared memory,
 *             7 MB of private anonymous memory and 2 MB of a global variable are touched; 4,000 blocks of 1,000 stay.
 * Answer: each step prints the bytes and blocks it holds since the start.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define MB (1UL << 20)
#define BLOCKS 2000
#define SHRUNK 300
#define STEPS 40
#define THREADS 4

static char *kept[STEPS][BLOCKS], global[2 * MB];
static pthread_barrier_t done;

static void *use_stack(void *unused)
{
	volatile char deep[MB];

	for (size_t at = 0; at < sizeof(deep); at += 1024)
		deep[at] = 1;
	pthread_barrier_wait(&done);
	for (;;)
		pause();
	return unused;
}

static void touch(int flags, int file, size_t size, int value)
{
	volatile char *memory = mmap(NULL, size, PROT_READ | (value ? PROT_WRITE : 0), flags, file, 0);

	require(memory != MAP_FAILED, "memory can be mapped");
	for (size_t at = 0; at < size; at += 4096)
		if (value)
			memory[at] = value;
		else
			(void)memory[at];
}

static void make_parts(const char *path)
{
	pthread_t thread;
	int file = open(path, O_RDONLY);

	require(file >= 0, "the file can be opened");
	touch(MAP_PRIVATE, file, 3 * MB, 0);
	touch(MAP_SHARED | MAP_ANONYMOUS, -1, 5 * MB, 1);
	touch(MAP_PRIVATE | MAP_ANONYMOUS, -1, 7 * MB, 1);
	memset(global, 1, sizeof(global));
	pthread_barrier_init(&done, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++)
		require(!pthread_create(&thread, NULL, use_stack, NULL), "a thread starts");
	pthread_barrier_wait(&done);
}

int main(int argc, char **argv)
{
	int fragment = argc > 1 && !strcmp(argv[1], "fragment"), parts = argc > 2 && !strcmp(argv[1], "parts");
	int blocks = fragment ? SHRUNK : parts ? 2 * BLOCKS : BLOCKS;
	unsigned long bytes = 0, count = 0;

	say("ready\n");
	for (int step = 0; step < STEPS; step++) {
		size_t size = fragment ? 16000 + 200 * step : 1000, stays = fragment ? 24 : size;

		wait_line();
		for (int i = 0; i < blocks; i++) {
			char *block = malloc(size);

			require(block != NULL, "there is memory");
			memset(block, 1, size);
			kept[step + i / BLOCKS][i % BLOCKS] = block;
			bytes += stays;
			count++;
		}
		for (int i = 0; fragment && i < blocks; i++)
			kept[step][i] = realloc(kept[step][i], stays);
		if (parts)
			make_parts(argv[2]);
		say("{\"bytes\": %lu, \"count\": %lu}\nend\n", bytes, count);
	}
	return 0;
}
