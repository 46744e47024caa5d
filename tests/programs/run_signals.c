/*
 * run_signals LAST: says which of its streams are terminals, then the number of each signal that it gets; the signal LAST
 * is what ends it, with exit code 9; so does the end of the process that started it, without one.
 * Answer: waits_for_signals() holds 100 bytes in 1 block.
 */
#include "talk.c"
#include <signal.h>
#include <sys/prctl.h>

static void *volatile block;

NOINLINE static void waits_for_signals(int last)
{
	sigset_t all;
	int number = 0;

	/* It blocks all that would end it: a test that fails must not leave it behind. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	block = malloc(100);
	say("terminals %d%d%d\nready\n", isatty(0), isatty(1), isatty(2));
	while (number != last) {
		if (sigwait(&all, &number) == 0)
			say("signal %d\n", number);
	}
}

int main(int argc, char **argv)
{
	waits_for_signals(argc > 1 ? atoi(argv[1]) : SIGTERM);
	return 9;
}
