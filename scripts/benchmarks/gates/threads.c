/*
 * threads: 100 threads at once allocate and free, each loses one block, and all have ended and been joined at the end.
 * Answer: 4,800 bytes in 100 blocks at serve.
 */
#include <pthread.h>

#include "block.h"

#define THREADS 100

NOINLINE static void *serve(void *unused)
{
	use(malloc(48));
	for (int i = 0; i < 1000; i++)
		free(use(malloc(64)));
	return unused;
}

int main(void)
{
	pthread_t threads[THREADS];

	for (int i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, serve, NULL))
			return 99;
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	return 0;
}
