/*
 * follow_forks WORKERS: as many processes make children without end, by fork, by vfork and exec, and in threads; each
 * child allocates, and ends with an exit code that its maker knows. Says "ready" when all have begun; at a line, they
 * stop and tell how many children they had and how many of these did not end as they should.
 * Answer: "wrong" is 0, whatever watches or ceases to watch; exit code 7.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>

static void *volatile block;
static volatile struct {
	int stop, children, wrong, ready;
} *shared;
static const char *program;

static void allocate(int number)
{
	for (int i = 0; i < 20; i++) {
		block = malloc(number + i);
		if (i % 2)
			free(block);
	}
}

static void *fork_in_thread(void *number)
{
	pid_t pid = fork();

	if (pid == 0) {
		allocate(*(int *)number);
		_exit(*(int *)number);
	}
	*(int *)number = pid;
	return NULL;
}

static void child(int number)
{
	pthread_t thread;
	char digits[16];
	int status = -1, made = number;
	pid_t pid;

	snprintf(digits, sizeof(digits), "%d", number);
	if (number % 3 == 0) {
		pid = vfork();
		if (pid == 0) {
			execl(program, program, "leaf", digits, NULL);
			_exit(99);
		}
	} else if (number % 3 == 1) {
		pid = fork();
		if (pid == 0) {
			allocate(number);
			exit(number);
		}
	} else {
		require(!pthread_create(&thread, NULL, fork_in_thread, &made), "a thread begins");
		require(!pthread_join(thread, NULL), "a thread ends");
		pid = made;
	}
	__sync_fetch_and_add(&shared->children, 1);
	if (pid <= 0 || waitpid(pid, &status, 0) != pid || !WIFEXITED(status) || WEXITSTATUS(status) != number)
		__sync_fetch_and_add(&shared->wrong, 1);
}

int main(int argc, char **argv)
{
	int workers = argc > 1 ? atoi(argv[1]) : 1, status;

	program = argv[0];
	if (argc > 2) {
		allocate(atoi(argv[2]));
		return atoi(argv[2]);
	}
	shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (int i = 0; i < workers; i++)
		if (fork() == 0) {
			__sync_fetch_and_add(&shared->ready, 1);
			for (int number = 0; !shared->stop && getppid() != 1; number = (number + 1) % 100)
				child(number);
			_exit(5);
		}
	while (shared->ready < workers)
		usleep(100);
	say("ready\n");
	wait_line();
	shared->stop = 1;
	for (int i = 0; i < workers; i++)
		if (wait(&status) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 5)
			__sync_fetch_and_add(&shared->wrong, 1);
	say("{\"children\": %d, \"wrong\": %d}\nend\n", shared->children, shared->wrong);
	return 7;
}
