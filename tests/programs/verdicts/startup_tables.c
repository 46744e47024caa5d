/*
 * Truth: no leak: 3,000 rows are loaded during the first 3 s and stay for the program's life.
 */
#include "traffic.h"

#define ROWS 3000

static void *rows[ROWS];

NOINLINE static void *load_row(void)
{
	return filled(malloc(700), 700);
}

static void work(long step)
{
	if (step >= 300)
		return;
	for (int number = 0; number < ROWS / 300; number++)
		rows[step * (ROWS / 300) + number] = load_row();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
