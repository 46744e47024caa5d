/*
 * memory_heap: what glibc's malloc says of itself, next to what is read from outside. Step 1: a fragmented main arena
 * (200,000 blocks of 40 to 1,000 bytes, of which each 50th stays), and two blocks of 1 MB of their own mapping. Step 2:
 * the same, smaller, in 3 threads that stay, each with an arena of its own. Step 3: all is freed but the first blocks.
 * Answer: each step prints mallinfo2()'s figures: arena, free (in lists and at the top, without the threads' caches),
 * mapped (bytes in mappings of their own), top.
 */
#include "talk.c"
#include <malloc.h>
#include <pthread.h>
#include <string.h>

#define MANY 200000
#define FEW 20000
#define THREADS 3
#define STAYS 50

static char *blocks[MANY], *others[THREADS][FEW], *large[2];
static pthread_barrier_t done;

static void fragment(char **into, int count)
{
	for (int i = 0; i < count; i++)
		if ((into[i] = malloc(40 + i * 37 % 960)))
			memset(into[i], 1, 40);
	for (int i = 0; i < count; i++)
		if (i % STAYS) {
			free(into[i]);
			into[i] = NULL;
		}
}

static void *work(void *which)
{
	fragment(others[(long)which], FEW);
	pthread_barrier_wait(&done);
	for (;;)
		pause();
	return NULL;
}

static void tell(void)
{
	char *text = NULL, *line;
	size_t size = 0;
	FILE *stream = open_memstream(&text, &size);
	unsigned long long arena = 0, fast = 0, rest = 0, mapped = 0, found;
	struct mallinfo2 main_arena = mallinfo2();

	malloc_info(0, stream);
	fclose(stream);
	/* The sums over all arenas come last, without indentation. */
	for (line = strstr(text, "</heap>\n<total"); line && (line = strchr(line, '\n')); ) {
		line++;
		sscanf(line, "<total type=\"fast\" count=\"%*u\" size=\"%llu\"", &fast);
		sscanf(line, "<total type=\"rest\" count=\"%*u\" size=\"%llu\"", &rest);
		sscanf(line, "<total type=\"mmap\" count=\"%*u\" size=\"%llu\"", &mapped);
		if (sscanf(line, "<system type=\"current\" size=\"%llu\"", &found) == 1)
			arena = found;
	}
	free(text);
	say("{\"arena\": %llu, \"free\": %llu, \"mapped\": %llu, \"top\": %zu, \"main_free\": %zu}\nend\n",
	    arena, fast + rest, mapped, main_arena.keepcost, main_arena.fordblks);
}

int main(void)
{
	pthread_t thread;

	require(mallopt(M_MMAP_THRESHOLD, 1 << 17) == 1, "mallopt works");
	pthread_barrier_init(&done, NULL, THREADS + 1);
	say("ready\n");
	wait_line();
	fragment(blocks, MANY);
	for (int i = 0; i < 2; i++)
		if ((large[i] = malloc(1 << 20)))
			memset(large[i], 1, 1 << 20);
	tell();
	wait_line();
	for (long i = 0; i < THREADS; i++)
		require(!pthread_create(&thread, NULL, work, (void *)i), "a thread starts");
	pthread_barrier_wait(&done);
	tell();
	wait_line();
	for (int i = STAYS; i < MANY; i += STAYS)
		free(blocks[i]);
	tell();
	wait_line();
	return 0;
}
