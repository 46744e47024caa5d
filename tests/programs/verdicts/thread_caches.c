/*
 * Truth: no leak: four threads take jobs' memory, and each keeps up to 40 freed pieces to use again.
 */
#include <pthread.h>
#include <unistd.h>

#include "traffic.h"

#define KEPT 40

static __thread void *kept[KEPT];
static __thread int count_kept;

NOINLINE static void *take_piece(void)
{
	return count_kept ? kept[--count_kept] : filled(malloc(1500), 1500);
}

NOINLINE static void give_back(void *piece)
{
	if (count_kept < KEPT)
		kept[count_kept++] = piece;
	else
		free(piece);
}

static void *serve_forever(void *thread)
{
	unsigned state = 7 + (unsigned)(size_t)thread;
	void *pieces[60];

	for (;;) {
		unsigned count;

		state = state * 1103515245 + 12345;
		count = 1 + state / 65536 % 60;
		for (unsigned number = 0; number < count; number++)
			pieces[number] = take_piece();
		usleep(100000);
		while (count)
			give_back(pieces[--count]);
	}
	return NULL;
}

static void work(long step)
{
	pthread_t thread;

	if (step < 4)
		pthread_create(&thread, NULL, serve_forever, (void *)step);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
