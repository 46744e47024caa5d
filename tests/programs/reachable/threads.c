/*
 * Blocks that only a live frame, another thread's frame, or a thread's own variables hold; and one that a thread lost.
 * Truth: definitely 70 bytes in 1 block, reachable 1,000 bytes in 4 blocks.
 */
#include <pthread.h>
#include <semaphore.h>
#include <unistd.h>

#include "held.h"

__thread void *own;
static sem_t waits;

NOINLINE static void make_own(size_t size)
{
	own = malloc(size);
}

NOINLINE static void lose(void)
{
	use(malloc(70));
}

static void *hold(void *nothing)
{
	void *volatile local = malloc(300);

	make_own(400);
	lose();
	clear_stack();
	sem_post(&waits);
	for (;;)
		pause();
	use(local);
	return nothing;
}

NOINLINE static void hold_in_frame(void)
{
	void *volatile local = malloc(100);

	make_own(200);
	end();
	use(local);
}

int main(void)
{
	pthread_t thread;

	sem_init(&waits, 0, 0);
	if (pthread_create(&thread, NULL, hold, NULL))
		return 1;
	while (sem_wait(&waits))
		;
	usleep(50000);  /* until it sleeps */
	hold_in_frame();
}
