/*
 * follow_tree WAY COUNT TOGETHER [LEAF]: makes COUNT children by WAY, all at the same time if TOGETHER is 1, else one
 * after the other, and waits for each. WAY is fork, clone (without CLONE_VM), silent (the same, without a signal at its
 * end), thread (a thread forks), fork_exec, vfork_exec, spawn (posix_spawn), system, or deep: a child by fork makes one
 * by fork and exec, which makes one by spawn. LEAF is the program for those that exec, this one if there is none.
 * Answer: every process prints what it holds, and at which function: number N holds N % 5 + 1 blocks of 100 + N bytes,
 * allocated in its very first instructions, and exits with N % 100. The root holds 2 blocks of 5000 bytes; "wrong" is
 * how many of its children did not end as they should.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

#define MOST 2000
#define STACK 65536

extern char **environ;
static void *volatile block;
static char *leaf;

#define KEEP(number)                                                                                                   \
	do {                                                                                                           \
		for (int i = 0; i < (number) % 5 + 1; i++)                                                             \
			block = malloc(100 + (number));                                                                \
		block = malloc(1000);                                                                                  \
		free(block);                                                                                           \
	} while (0)

NOINLINE static void root_keeps(void)
{
	for (int i = 0; i < 2; i++)
		block = malloc(5000);
}

NOINLINE static void child_keeps(int number)
{
	KEEP(number);
}

NOINLINE static void middle_keeps(int number)
{
	KEEP(number);
}

NOINLINE static void leaf_keeps(int number)
{
	KEEP(number);
}

static void tell(const char *function, int number)
{
	say("{\"pid\": %d, \"parent\": %d, \"function\": \"%s\", \"bytes\": %d, \"count\": %d, \"exit_code\": %d}\n",
	    getpid(), getppid(), function, (number % 5 + 1) * (100 + number), number % 5 + 1, number % 100);
}

static pid_t spawn(const char *word, int number)
{
	char digits[16];
	char *words[] = {leaf, (char *)word, digits, NULL};
	pid_t pid = -1;

	snprintf(digits, sizeof(digits), "%d", number);
	require(posix_spawn(&pid, leaf, NULL, NULL, words, environ) == 0, "a leaf is spawned");
	return pid;
}

static void execute(const char *word, int number)
{
	char digits[16];

	snprintf(digits, sizeof(digits), "%d", number);
	execl(leaf, leaf, word, digits, NULL);
	_exit(99);
}

static int wait_for(pid_t pid, int number)
{
	int status;

	return waitpid(pid, &status, __WALL) == pid && WIFEXITED(status) && WEXITSTATUS(status) == number % 100;
}

static int cloned(void *number)
{
	child_keeps((intptr_t)number);
	tell("child_keeps", (intptr_t)number);
	_exit((intptr_t)number % 100);
}

static pid_t fork_one(int number)
{
	pid_t pid = fork();

	if (pid == 0)
		cloned((void *)(intptr_t)number);
	return pid;
}

static void *fork_in_thread(void *number)
{
	return (void *)(intptr_t)fork_one((intptr_t)number);
}

static pid_t make(const char *way, int number)
{
	static char stack[STACK] __attribute__((aligned(16)));
	char command[600];
	pthread_t thread;
	void *made;
	pid_t pid;

	if (!strcmp(way, "fork"))
		return fork_one(number);
	if (!strcmp(way, "clone"))
		return clone(cloned, stack + STACK, SIGCHLD, (void *)(intptr_t)number);
	if (!strcmp(way, "silent"))
		return clone(cloned, stack + STACK, 0, (void *)(intptr_t)number);
	if (!strcmp(way, "thread")) {
		require(!pthread_create(&thread, NULL, fork_in_thread, (void *)(intptr_t)number), "a thread begins");
		require(!pthread_join(thread, &made), "a thread ends");
		return (intptr_t)made;
	}
	if (!strcmp(way, "spawn"))
		return spawn("leaf", number);
	if (!strcmp(way, "vfork_exec")) {
		pid = vfork();
		if (pid == 0)
			execute("leaf", number);
		return pid;
	}
	if (!strcmp(way, "system")) {
		snprintf(command, sizeof(command), "'%s' leaf %d; exit $?", leaf, number);
		require(system(command) == number % 100 << 8, "system() gives the exit code");
		return 0;
	}
	pid = fork();
	if (pid == 0 && !strcmp(way, "fork_exec"))
		execute("leaf", number);
	if (pid == 0 && !strcmp(way, "deep")) {
		child_keeps(number);
		tell("child_keeps", number);
		pid = fork();
		if (pid == 0)
			execute("middle", number + 1);
		_exit(wait_for(pid, number + 1) ? number % 100 : 98);
	}
	require(pid > 0, "a child is made in a known way");
	return pid;
}

int main(int argc, char **argv)
{
	static pid_t made[MOST];
	int wrong = 0, count, together;

	leaf = argv[0];
	if (argc == 3 && !strcmp(argv[1], "leaf")) {
		leaf_keeps(atoi(argv[2]));
		tell("leaf_keeps", atoi(argv[2]));
		return atoi(argv[2]) % 100;
	}
	if (argc == 3 && !strcmp(argv[1], "middle")) {
		middle_keeps(atoi(argv[2]));
		tell("middle_keeps", atoi(argv[2]));
		return wait_for(spawn("leaf", atoi(argv[2]) + 1), atoi(argv[2]) + 1) ? atoi(argv[2]) % 100 : 98;
	}
	require(argc > 3 && atoi(argv[2]) <= MOST, "what to do is said");
	count = atoi(argv[2]);
	together = atoi(argv[3]);
	leaf = argc > 4 ? argv[4] : argv[0];
	root_keeps();
	for (int number = 0; number < count; number++) {
		made[number] = make(argv[1], number);
		if (!together && made[number])
			wrong += !wait_for(made[number], number);
	}
	for (int number = 0; together && number < count; number++)
		if (made[number])
			wrong += !wait_for(made[number], number);
	say("{\"pid\": %d, \"parent\": %d, \"function\": \"root_keeps\", \"bytes\": 10000, \"count\": 2, \"exit_code\": 7, "
	    "\"wrong\": %d}\n", getpid(), getppid(), wrong);
	return 7;
}
