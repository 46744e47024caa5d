/*
 * Truth: leaks at take_frame(): a frame that equals the last one, as one in eight does, is skipped without a free.
 */
#include "traffic.h"

static int last;

NOINLINE static int *take_frame(void)
{
	int *frame = (int *)filled(malloc(512), 512);

	frame[0] = chance(8) ? last + 1 : last;
	return frame;
}

NOINLINE static void show_frame(void)
{
	int *frame = take_frame();
	void *scaled;

	if (frame[0] == last)
		return;
	last = frame[0];
	scaled = use(malloc(2048));
	free(scaled);
	free(frame);
}

static void work(long step)
{
	if (step % 2)
		show_frame();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
