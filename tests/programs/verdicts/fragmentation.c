/*
 * Truth: no leak: of each wave of 3,000 blocks one in twenty stays until the next wave; the allocator keeps the rest.
 */
#include "traffic.h"

#define WAVE 3000

static void *wave[WAVE];

NOINLINE static void *take_block(void)
{
	size_t size = 300 + chance(900);

	return filled(malloc(size), size);
}

NOINLINE static void begin_wave(void)
{
	for (int number = 0; number < WAVE; number++) {
		free(wave[number]);
		wave[number] = NULL;
	}
}

NOINLINE static void leave_holes(void)
{
	for (int number = 0; number < WAVE; number++)
		if (number % 20) {
			free(wave[number]);
			wave[number] = NULL;
		}
}

static void work(long step)
{
	/* 300 steps a wave: it comes in over one second, is worked on, and goes but for a few. */
	long phase = step % 300;

	if (phase == 0)
		begin_wave();
	for (int number = 0; phase < 100 && number < WAVE / 100; number++)
		wave[phase * (WAVE / 100) + number] = take_block();
	if (phase == 200)
		leave_holes();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
