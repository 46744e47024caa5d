/*
 * Truth: no leak: each frame has a new buffer of its own size, and the one that was shown before is freed.
 */
#include "traffic.h"

static void *shown;
static void *drawn;

NOINLINE static void *new_frame(void)
{
	size_t size = 40000 + chance(20000);

	return filled(malloc(size), size);
}

static void work(long step)
{
	if (step % 3)
		return;
	free(shown);
	shown = drawn;
	drawn = new_frame();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
