/*
 * pointed_forks COUNT: makes COUNT children by fork, one after the other; then one more whose second thread holds a
 * block of 500 bytes (thread_holds()) in its frame only and waits, while the first one ends the process.
 * Answer: the parent holds 1 block of 1000 bytes (parent_keeps()). Each of COUNT children loses a list of 3 blocks of
 * 30 (child_loses()), so that one is definitely and two are indirectly lost, and holds one of 70 (child_keeps()).
 */
#include "talk.c"
#include <pthread.h>
#include <semaphore.h>
#include <sys/wait.h>

void *parents, *childs;
static sem_t waits;

NOINLINE static void parent_keeps(void)
{
	parents = calloc(1, 1000);
}

NOINLINE static void child_keeps(void)
{
	childs = calloc(1, 70);
}

NOINLINE static void child_loses(void)
{
	void **next = NULL;

	/* With room behind it, so that the allocator's own pointer to what follows does not lead into the block. */
	for (int number = 0; number < 3; number++) {
		void **block = calloc(1, 30);

		*block = next;
		next = block;
		/* Somebody might read it. */
		__asm__ volatile("" : : "r"(block) : "memory");
	}
}

/* As in pointed.c. */
NOINLINE static void far_below(void (*work)(void))
{
	volatile char room[65536];

	room[0] = 0;
	work();
	room[1] = room[0];
}

NOINLINE static void *thread_holds(void *nothing)
{
	void *volatile local = calloc(1, 500);

	sem_post(&waits);
	for (;;)
		pause();
	return local ? nothing : NULL;
}

static void wait_for(pid_t pid)
{
	int status;

	require(waitpid(pid, &status, 0) == pid && status == 0, "a child ends well");
}

int main(int argc, char **argv)
{
	int count = argc > 1 ? atoi(argv[1]) : 1;
	pthread_t thread;
	pid_t pid;

	parent_keeps();
	for (int number = 0; number < count; number++) {
		pid = fork();
		if (pid == 0) {
			far_below(child_loses);
			child_keeps();
			_exit(0);
		}
		wait_for(pid);
	}
	pid = fork();
	if (pid == 0) {
		sem_init(&waits, 0, 0);
		require(!pthread_create(&thread, NULL, thread_holds, NULL), "a thread begins");
		while (sem_wait(&waits))
			;
		usleep(20000);
		_exit(0);
	}
	wait_for(pid);
	return 0;
}
