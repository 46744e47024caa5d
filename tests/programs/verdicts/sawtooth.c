/*
 * Truth: no leak: records are collected for 4 s and then written and freed together.
 */
#include "traffic.h"

#define BATCH 800

static void *batch[BATCH];
static int collected;

NOINLINE static void *make_record(void)
{
	return filled(malloc(600), 600);
}

NOINLINE static void flush(void)
{
	while (collected)
		free(batch[--collected]);
}

static void work(long step)
{
	(void)step;
	batch[collected++] = make_record();
	batch[collected++] = make_record();
	if (collected == BATCH)
		flush();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
