/*
 * Truth: leaks at buffer_of(): a thread's buffer that is too small is replaced by one of the new size, and not freed.
 */
#include <pthread.h>
#include <unistd.h>

#include "traffic.h"

static __thread char *buffer;
static __thread size_t room;

NOINLINE static char *buffer_of(size_t size)
{
	if (size != room) {
		buffer = (char *)filled(malloc(size), size);
		room = size;
	}
	return buffer;
}

static void *print_forever(void *thread)
{
	size_t first = 300 + 50 * (size_t)thread;

	for (size_t page = 0;; page++) {
		use(buffer_of(first + page / 10 % 4 * 64));
		usleep(100000);
	}
	return NULL;
}

static void work(long step)
{
	pthread_t thread;

	if (step < 4)
		pthread_create(&thread, NULL, print_forever, (void *)step);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
