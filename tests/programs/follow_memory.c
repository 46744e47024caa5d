/*
 * follow_memory WHAT: what a process has from its parent, and what becomes of it. It holds 3 blocks of 1000 bytes, in
 * parent_keeps(), when it makes a child, and what happens then is, by WHAT:
 *   inherit   a child by fork holds 2 blocks of 77 of its own, and makes one that holds 1 of 33; only then, each frees
 *             one block of each of those it has from those above it. The first holds 4 blocks of 1000 more at last.
 *   exec      a child by fork holds 2 blocks of 77, frees one of its parent's, and becomes "again", which holds 2 of 11.
 *   vfork     a child by vfork allocates 3 blocks of 500 in between_keeps(), frees one of these and one of its parent's,
 *             and becomes "again": so the parent holds 2 of 1000 and 2 of 500.
 *   vfork_exit  the same, and the child ends instead.
 *   share     the same by clone() with CLONE_VM, while its parent waits for its end.
 * Answer: each process prints what it holds by function, and what it inherited and an exec did away with.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <sched.h>
#include <string.h>
#include <sys/wait.h>

#define STACK 65536

static void *volatile parents[3], *volatile childs[2], *volatile block;
static int betweens;

NOINLINE static void parent_keeps(void)
{
	for (int i = 0; i < 3; i++)
		parents[i] = malloc(1000);
}

NOINLINE static void child_keeps(void)
{
	for (int i = 0; i < 2; i++)
		childs[i] = malloc(77);
}

NOINLINE static void grandchild_keeps(void)
{
	block = malloc(33);
}

NOINLINE static void between_keeps(void)
{
	for (int i = 0; i < 3; i++)
		block = malloc(500);
	free(block);
	free(parents[0]);
	betweens++;
}

NOINLINE static void again_keeps(void)
{
	for (int i = 0; i < 2; i++)
		block = malloc(11);
}

NOINLINE static void later_keeps(void)
{
	for (int i = 0; i < 4; i++)
		block = malloc(1000);
}

static void tell(const char *held, const char *inherited, const char *dropped)
{
	say("{\"pid\": %d, \"held\": %s, \"inherited\": %s, \"dropped\": %s}\n", getpid(), held, inherited, dropped);
}

static void wait_for(pid_t pid)
{
	int status;

	require(waitpid(pid, &status, __WALL) == pid && status == 0, "a child ends well");
}

static void inherit(void)
{
	pid_t pid = fork();

	if (pid == 0) {
		child_keeps();
		pid = fork();
		if (pid == 0) {
			grandchild_keeps();
			free(parents[1]);
			free(childs[1]);
			tell("{\"grandchild_keeps\": [33, 1]}", "[3154, 5]", "[0, 0]");
			_exit(0);
		}
		wait_for(pid);
		free(parents[1]);
		tell("{\"child_keeps\": [154, 2]}", "[3000, 3]", "[0, 0]");
		_exit(0);
	}
	wait_for(pid);
	later_keeps();
	tell("{\"parent_keeps\": [3000, 3], \"later_keeps\": [4000, 4]}", "null", "[0, 0]");
}

static void exec_again(const char *program)
{
	execl(program, program, "again", NULL);
	_exit(99);
}

static int work_between(void *program)
{
	between_keeps();
	if (program)
		exec_again(program);
	_exit(0);
}

int main(int argc, char **argv)
{
	static char stack[STACK] __attribute__((aligned(16)));
	const char *what = argc > 1 ? argv[1] : "";
	pid_t pid;

	if (!strcmp(what, "again")) {
		again_keeps();
		say("{\"pid\": %d, \"held\": {\"again_keeps\": [22, 2]}}\n", getpid());
		return 0;
	}
	parent_keeps();
	if (!strcmp(what, "inherit")) {
		inherit();
		return 0;
	}
	if (!strcmp(what, "exec")) {
		pid = fork();
		if (pid == 0) {
			child_keeps();
			free(parents[1]);
			exec_again(argv[0]);
		}
		wait_for(pid);
		tell("{\"parent_keeps\": [3000, 3]}", "null", "[0, 0]");
		return 0;
	}
	if (!strcmp(what, "share")) {
		pid = clone(work_between, stack + STACK, CLONE_VM | SIGCHLD, NULL);
	} else {
		pid = vfork();
		if (pid == 0)
			work_between(strcmp(what, "vfork") ? NULL : argv[0]);
	}
	wait_for(pid);
	require(betweens == 1, "the memory was shared");
	tell("{\"parent_keeps\": [2000, 2], \"between_keeps\": [1000, 2]}", "null", "[0, 0]");
	return 0;
}
