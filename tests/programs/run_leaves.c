/*
 * run_leaves: keeps a block of 100 bytes, and leaves a process behind as a daemon does: says "left PID", and ends. The
 * one that is left ends with its input.
 * Answer: keeps_before_leaving() holds 100 bytes in 1 block, in the process that was started.
 */
#include "talk.c"

static void *volatile block;

NOINLINE static void keeps_before_leaving(void)
{
	block = malloc(100);
}

int main(void)
{
	keeps_before_leaving();
	pid_t child = fork();
	require(child >= 0, "a process can be made");
	if (child == 0) {
		setsid();
		close(1);
		close(2);
		wait_line();
		_exit(0);
	}
	say("left %d\n", child);
	return 0;
}
