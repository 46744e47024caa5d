/*
 * image_threads: two threads make threads without end, each of which ends at once. After a line, the first one makes a
 * child by vfork(), which says its number and waits for a line to end: so the first cannot be stopped meanwhile.
 * Answer: the child's number and "end"; then, when that is over, its exit code, 5, and "end".
 */
#define _GNU_SOURCE
#include "talk.c"
#include <pthread.h>
#include <sys/wait.h>

static void *end(void *unused)
{
	return unused;
}

static void *make(void *unused)
{
	pthread_t thread;

	for (;;)
		if (!pthread_create(&thread, NULL, end, NULL))
			pthread_join(thread, NULL);
	return unused;
}

int main(void)
{
	pthread_t thread;
	int status;
	pid_t child;

	for (int i = 0; i < 2; i++)
		require(!pthread_create(&thread, NULL, make, NULL), "a thread begins");
	say("ready\n");
	for (;;) {
		wait_line();
		child = vfork();
		if (child == 0) {
			say("{\"child\": %d}\nend\n", getpid());
			wait_line();
			_exit(5);
		}
		require(waitpid(child, &status, 0) == child, "the child ends");
		say("{\"exit_code\": %d}\nend\n", WEXITSTATUS(status));
	}
}
