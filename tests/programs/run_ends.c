/*
 * run_ends WAY: keeps three blocks of 100 bytes, then ends by: return, exit, _exit, exit_group, segv, kill, abort.
 * Answer: keeps_three() holds 300 bytes in 3 blocks, however it ends; `return` gives 0, the other exits 5.
 */
#include "talk.c"
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>

static void *volatile block;
static int *volatile nowhere;

NOINLINE static void keeps_three(void)
{
	for (int i = 0; i < 3; i++)
		block = malloc(100);
}

int main(int argc, char **argv)
{
	const char *way = argc > 1 ? argv[1] : "return";

	keeps_three();
	if (!strcmp(way, "exit"))
		exit(5);
	if (!strcmp(way, "_exit"))
		_exit(5);
	if (!strcmp(way, "exit_group"))
		syscall(SYS_exit_group, 5);
	if (!strcmp(way, "segv"))
		*nowhere = 1;
	if (!strcmp(way, "kill"))
		kill(getpid(), SIGKILL);
	if (!strcmp(way, "abort"))
		abort();
	require(!strcmp(way, "return"), "the way to end is known");
	return 0;
}
