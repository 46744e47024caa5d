/*
 * Linked to run_signals as a library: sends the process that started the program a SIGUSR1 before the program's entry point.
 * Answer: if that process passes signals on, the program says "signal 10".
 */
#include "talk.c"
#include <signal.h>

__attribute__((constructor)) static void speaks_early(void)
{
	sigset_t all;

	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	kill(getppid(), SIGUSR1);
}
