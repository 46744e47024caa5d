/*
 * symbols_vdso: a block from a handler that interrupted the kernel's own code in the process. Answer: 3003 bytes from
 * on_fault(), under which time() of the vdso was writing to an address that is not mapped, called by read_time().
 */
#include "talk.c"

#include <setjmp.h>
#include <signal.h>
#include <time.h>

static void *volatile block;
static sigjmp_buf back;
static volatile int faulted;

NOINLINE static void on_fault(int number)
{
	(void)number;
	block = malloc(3003);
	faulted = 1;
	siglongjmp(back, 1);
}

NOINLINE static time_t read_time(time_t *where)
{
	time_t now = time(where);

	return now + 1;
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_fault};

	require(sigaction(SIGSEGV, &action, NULL) == 0, "a handler can be set");
	say("ready\n");
	wait_line();
	if (!sigsetjmp(back, 1))
		read_time((time_t *)8);
	require(faulted, "time() is the vdso's");
	say("{\"bytes\": 3003}\nend\n");
	wait_line();
	return 0;
}
