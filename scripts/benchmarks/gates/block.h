/* What the programs share: functions that keep a frame of their own, and blocks that no compiler leaves out. */
#include <stdlib.h>

#define NOINLINE __attribute__((noinline, noclone))

static inline void *use(void *block)
{
	__asm__ volatile("" : "+r"(block) : : "memory");
	return block;
}

/*
 * Overwrites the dead part of the stack and the registers that a call may change, as any other work would: what looks for
 * pointers there would take an old one for a block that is still in use.
 */
NOINLINE __attribute__((unused)) static void other_work(void)
{
	volatile char dead[4096];

	for (size_t i = 0; i < sizeof(dead); i++)
		dead[i] = 0;
}
