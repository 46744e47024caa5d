/*
 * follow_family: a process with two threads; a child of it, with one thread; and a child of that. All wait. At each line,
 * every one of these threads (six with the main ones) keeps a block in member_keeps(), and makes a child by fork, which
 * keeps one in newborn_keeps() and ends. The processes tell what they hold, those that end what they held.
 * Answer: per step, each thread keeps 1 block of 300 bytes and each newborn one of 30. "old" processes were there
 * before "ready". At the end of its input, it ends, with exit code 7.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/wait.h>

#define MEMBERS 6

static void *volatile block;
static int commands[MEMBERS][2], answers[2];

NOINLINE static void member_keeps(void)
{
	block = malloc(300);
}

NOINLINE static void newborn_keeps(void)
{
	block = malloc(30);
}

static int grow(void)
{
	int status;
	pid_t pid;

	member_keeps();
	pid = fork();
	if (pid == 0) {
		newborn_keeps();
		say("{\"pid\": %d, \"parent\": %d, \"old\": 0}\n", getpid(), getppid());
		_exit(4);
	}
	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == 4;
}

static void *live(void *number)
{
	char byte;

	while (read(commands[(intptr_t)number][0], &byte, 1) == 1) {
		byte = grow();
		if (write(answers[1], &byte, 1) != 1)
			break;
	}
	return NULL;
}

static void begin_thread(int number)
{
	pthread_t thread;

	require(!pthread_create(&thread, NULL, live, (void *)(intptr_t)number), "a thread begins");
}

static void tell(int threads)
{
	char byte = 1;

	say("{\"pid\": %d, \"parent\": %d, \"old\": 1, \"threads\": %d}\n", getpid(), getppid(), threads);
	require(write(answers[1], &byte, 1) == 1, "it is there");
}

static void gather(int count)
{
	char byte;

	for (int i = 0; i < count; i++)
		require(read(answers[0], &byte, 1) == 1 && byte == 1, "all goes well");
}

int main(void)
{
	pid_t child;
	int status;
	char line;

	require(!pipe(answers), "a pipe is made");
	for (int i = 0; i < MEMBERS; i++)
		require(!pipe(commands[i]), "pipes are made");
	child = fork();
	if (child == 0) {
		for (int i = 0; i < MEMBERS; i++)
			close(commands[i][1]);
		if (fork() == 0) {
			tell(1);
			live((void *)5);
			_exit(5);
		}
		begin_thread(3);
		tell(2);
		live((void *)4);
		wait(&status);
		_exit(WIFEXITED(status) ? WEXITSTATUS(status) + 1 : 99);
	}
	begin_thread(0);
	begin_thread(1);
	tell(3);
	gather(3);
	say("ready\n");
	while (read(0, &line, 1) == 1) {
		for (int i = 0; i < MEMBERS; i++)
			require(i == 2 || write(commands[i][1], "x", 1) == 1, "all are told");
		gather(MEMBERS - 1);
		/* The main thread is a member too. */
		require(grow() == 1, "its child ends well");
		say("end\n");
	}
	for (int i = 0; i < MEMBERS; i++)
		close(commands[i][1]);
	require(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 6, "the child ends well");
	return 7;
}
