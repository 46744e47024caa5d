/*
 * follow_threads [PROGRAM]: makes a child by fork, which has four threads. At the same time, each of these keeps 5 blocks
 * of 200 bytes in thread_keeps() and makes 5 children by fork, each of which keeps 1 of 20 in newborn_keeps(); then all
 * but one allocate and free without end. That one becomes PROGRAM with the words "leaf 12", if there is one; else the
 * process ends. Answer: that, by process; the exit code of each is said, 3 if something went wrong.
 */
#include "talk.c"
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

#define THREADS 4
#define CHILDREN 5

static void *volatile block;
static pthread_barrier_t barrier;
static char *program;

NOINLINE static void thread_keeps(void)
{
	for (int i = 0; i < CHILDREN; i++)
		block = malloc(200);
}

NOINLINE static void newborn_keeps(void)
{
	block = malloc(20);
}

static void *work(void *number)
{
	pid_t made[CHILDREN];
	int status;

	pthread_barrier_wait(&barrier);
	thread_keeps();
	for (int i = 0; i < CHILDREN; i++) {
		made[i] = fork();
		if (made[i] == 0) {
			newborn_keeps();
			say("{\"pid\": %d, \"parent\": %d, \"function\": \"newborn_keeps\", \"bytes\": 20, \"count\": 1, "
			    "\"exit_code\": %d}\n", getpid(), getppid(), i);
			_exit(i);
		}
	}
	for (int i = 0; i < CHILDREN; i++)
		require(waitpid(made[i], &status, 0) == made[i] && status == i << 8, "a child ends as it should");
	pthread_barrier_wait(&barrier);
	while ((intptr_t)number != 2) {
		void *volatile one = malloc(40);

		free(one);
	}
	if (!program)
		_exit(6);
	execl(program, program, "leaf", "12", NULL);
	_exit(99);
}

int main(int argc, char **argv)
{
	pthread_t thread;
	int status;
	pid_t child;

	program = argc > 1 ? argv[1] : NULL;
	child = fork();
	if (child == 0) {
		pthread_barrier_init(&barrier, NULL, THREADS);
		if (!program)
			say("{\"pid\": %d, \"parent\": %d, \"function\": \"thread_keeps\", \"bytes\": 4000, \"count\": 20, "
			    "\"exit_code\": 6}\n", getpid(), getppid());
		for (intptr_t i = 1; i < THREADS; i++)
			require(!pthread_create(&thread, NULL, work, (void *)i), "a thread begins");
		work(0);
	}
	require(waitpid(child, &status, 0) == child && WIFEXITED(status), "the child ends");
	return WEXITSTATUS(status);
}
