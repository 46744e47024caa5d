/*
 * Truth: leaks at make_context(): ten threads a second end and leave their context, whose key has no destructor.
 */
#include <pthread.h>

#include "traffic.h"

static pthread_key_t key;

NOINLINE static void *make_context(void)
{
	return filled(malloc(320), 320);
}

static void *serve(void *nothing)
{
	pthread_setspecific(key, make_context());
	free(use(malloc(1000)));
	return nothing;
}

static void work(long step)
{
	pthread_t thread;

	if (step % 10 || pthread_create(&thread, NULL, serve, NULL))
		return;
	pthread_join(thread, NULL);
}

int main(int count, char **words)
{
	pthread_key_create(&key, NULL);
	return run(count, words, work);
}
