/*
 * jumps: an allocator of its own, pool_alloc() and pool_free(), that is left by longjmp, or by siglongjmp from a signal
 * handler, before it returns. Answer: what each function got from pool_alloc() calls that did return; none of them may
 * be lost because of a call that did not. Two steps: a jump by the very first call that is traced, and all the others.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>

enum { ROUNDS = 50, UNTOUCHED = 8192 };
/* Sizes for which pool_alloc() does not return. */
enum { JUMPS = 1000001, RAISES = 1000002 };

static char pool[1 << 24] __attribute__((aligned(64)));
static size_t pool_used;
static sigjmp_buf back;
static void (*on_signal)(void);
static volatile int always = 1;

NOINLINE void *pool_alloc(size_t size)
{
	char *block = pool + pool_used;

	if (size == JUMPS)
		siglongjmp(back, 1);
	if (size == RAISES)
		raise(SIGUSR1);
	pool_used += (size + 63) & ~63ul;
	require(pool_used < sizeof(pool), "the pool is large enough");
	return block;
}

NOINLINE void pool_free(void *block)
{
	*(volatile char *)block = 0;
}

struct tally {
	const char *name;
	uint64_t bytes, count, allocated_bytes, allocated_count, freed_count;
};

/* Takes two blocks with one call, gives the second back. */
static inline __attribute__((always_inline)) void take(struct tally *tally, size_t size)
{
	for (int i = 0; i <= always; i++) {
		void *block = pool_alloc(size + i);

		tally->allocated_bytes += size + i;
		tally->allocated_count++;
		if (i)
			pool_free(block);
	}
	tally->bytes += size;
	tally->count++;
	tally->freed_count++;
}

#define TAKER(name)                                                                                                    \
	static struct tally name##_tally = { #name, 0, 0, 0, 0, 0 };                                                   \
	NOINLINE static void name(size_t size)                                                                         \
	{                                                                                                              \
		take(&name##_tally, size);                                                                             \
	}

TAKER(at_once_deeper)
TAKER(deeper)
TAKER(same_depth)
TAKER(shallower)
TAKER(over_untouched_stack)
TAKER(on_another_stack)
TAKER(in_handler)

NOINLINE static void descend(int levels, void (*then)(size_t), size_t size)
{
	volatile char frame[8];

	frame[0] = levels;
	if (levels)
		descend(levels - 1, then, size);
	else
		then(size);
	frame[1] = frame[0];
}

NOINLINE static void leave(size_t size)
{
	require(pool_alloc(size) == NULL, "this call does not return");
}

/* The array covers what the stack held, and leaves it as it was. */
NOINLINE static void uncover(size_t size)
{
	volatile char untouched[UNTOUCHED];

	untouched[0] = 0;
	over_untouched_stack(size);
	untouched[1] = untouched[0];
}

/* Leaves nothing of what calls that are over had on the stack. */
NOINLINE static void overwrite(void)
{
	volatile char written[UNTOUCHED];

	for (size_t i = 0; i < sizeof(written); i++)
		written[i] = 0;
}

static void jump_away(void)
{
	siglongjmp(back, 1);
}

static void allocate(void)
{
	in_handler(24);
}

static void allocate_elsewhere(void)
{
	on_another_stack(48);
}

static void handler(int number)
{
	(void)number;
	on_signal();
}

NOINLINE static void interrupted(void (*then)(void))
{
	on_signal = then;
	raise(SIGUSR1);
	/* Not a tail call: this function is to be seen below the signal. */
	always = 1;
}

/* Leaves pool_alloc() from levels below, by a jump or from a signal handler. */
NOINLINE static void escape(int levels, size_t how)
{
	on_signal = jump_away;
	if (!sigsetjmp(back, 1))
		descend(levels, leave, how);
}

static void choose_stack(int flags)
{
	static char other[65536] __attribute__((aligned(64)));
	stack_t stack = { .ss_sp = other, .ss_size = sizeof(other) };
	struct sigaction action = { .sa_handler = handler, .sa_flags = flags };

	require(sigaltstack(&stack, NULL) == 0, "another stack is possible");
	sigaction(SIGUSR1, &action, NULL);
}

static void tell(const struct tally *tally)
{
	say("{\"function\": \"%s\", \"bytes\": %lu, \"count\": %lu, \"allocated_bytes\": %lu, \"allocated_count\": %lu, "
	    "\"freed_count\": %lu}\n",
	    tally->name, tally->bytes, tally->count, tally->allocated_bytes, tally->allocated_count, tally->freed_count);
}

int main(void)
{
	say("ready\n");
	wait_line();
	choose_stack(0);
	/* The very first traced call is one that does not return. */
	escape(20, JUMPS);
	overwrite();
	descend(40, at_once_deeper, 16);
	tell(&at_once_deeper_tally);
	say("end\n");
	wait_line();
	for (int round = 0; round < ROUNDS; round++) {
		size_t how = round % 2 ? RAISES : JUMPS;

		choose_stack(0);
		escape(20, how);
		overwrite();
		descend(40, deeper, 32 + round);
		escape(20, how);
		descend(20, same_depth, 100 + round);
		escape(20, how);
		shallower(200 + round);
		escape(20, how);
		uncover(300 + round);
		escape(20, how);
		interrupted(allocate);
		escape(20, how);
		choose_stack(SA_ONSTACK);
		interrupted(allocate_elsewhere);
	}
	tell(&deeper_tally);
	tell(&same_depth_tally);
	tell(&shallower_tally);
	tell(&over_untouched_stack_tally);
	tell(&on_another_stack_tally);
	tell(&in_handler_tally);
	say("end\n");
	wait_line();
	return 0;
}
