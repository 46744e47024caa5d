/*
 * live_signals: a handler allocates while a function is interrupted: in a loop by a timer, and by an instruction that
 * faults as the very first one of its function; on the thread's own stack and on another one (sigaltstack). Answer: the
 * interrupted function and the bytes of the one block that was allocated meanwhile.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <signal.h>
#include <stdint.h>
#include <sys/time.h>
#include <ucontext.h>

static void *volatile blocks[8];
static volatile size_t wanted;
static volatile int done;
static char other_stack[1 << 16] __attribute__((aligned(16)));

/* Instructions of two bytes that no processor has. The one before belongs to no call of anybody. */
void before_fault(void);
void faults_at_once(void);
__asm__(".text\n"
	".type before_fault, @function\n"
	"before_fault:\n"
	".cfi_startproc\n"
	"ud2\n"
	".cfi_endproc\n"
	".size before_fault, .-before_fault\n"
	".type faults_at_once, @function\n"
	"faults_at_once:\n"
	".cfi_startproc\n"
	"ud2\n"
	"ret\n"
	".cfi_endproc\n"
	".size faults_at_once, .-faults_at_once\n");

NOINLINE static void in_handler(void)
{
	blocks[done] = malloc(wanted);
	require(blocks[done] != NULL, "malloc gives memory");
	done++;
}

static void handle(int number, siginfo_t *info, void *context)
{
	ucontext_t *interrupted = context;

	(void)info;
	in_handler();
	if (number == SIGILL)
		interrupted->uc_mcontext.gregs[REG_RIP] += 2;
}

NOINLINE static void spins(void)
{
	const struct itimerval soon = { { 0, 0 }, { 0, 1000 } };
	int before = done;

	setitimer(ITIMER_REAL, &soon, NULL);
	while (done == before)
		;
}

NOINLINE static void faults(void)
{
	faults_at_once();
	__asm__ volatile("");
}

NOINLINE static void on_own_stack(void (*interrupted)(void))
{
	interrupted();
	__asm__ volatile("");
}

NOINLINE static void on_other_stack(void (*interrupted)(void))
{
	interrupted();
	__asm__ volatile("");
}

static void choose_stack(int flags)
{
	struct sigaction action = { .sa_sigaction = handle, .sa_flags = SA_SIGINFO | flags };

	require(!sigaction(SIGALRM, &action, NULL) && !sigaction(SIGILL, &action, NULL), "sigaction works");
}

int main(void)
{
	const stack_t other = { .ss_sp = other_stack, .ss_size = sizeof(other_stack) };

	require(sigaltstack(&other, NULL) == 0, "sigaltstack works");
	say("ready\n");
	for (;;) {
		wait_line();
		done = 0;
		choose_stack(0);
		wanted = 1001;
		on_own_stack(spins);
		wanted = 1002;
		on_own_stack(faults);
		choose_stack(SA_ONSTACK);
		wanted = 1003;
		on_other_stack(spins);
		wanted = 1004;
		on_other_stack(faults);
		say("{\"frames\": [\"spins\", \"on_own_stack\"], \"bytes\": 1001}\n");
		say("{\"frames\": [\"faults_at_once\", \"faults\", \"on_own_stack\"], \"bytes\": 1002}\n");
		say("{\"frames\": [\"spins\", \"on_other_stack\"], \"bytes\": 1003}\n");
		say("{\"frames\": [\"faults_at_once\", \"faults\", \"on_other_stack\"], \"bytes\": 1004}\n");
		say("end\n");
	}
}
