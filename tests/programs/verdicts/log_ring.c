/*
 * Truth: no leak: the log keeps the last 500 lines, and each new one replaces the oldest.
 */
#include "traffic.h"

#define LINES 500

static char *lines[LINES];

NOINLINE static char *copy_line(long step, unsigned part)
{
	char line[160];

	snprintf(line, sizeof(line), "step %ld, part %u, %*s", step, part, 20 + (int)chance(100), "done");
	return strdup(line);
}

static void work(long step)
{
	static int oldest;

	for (unsigned part = 0; part < 2; part++) {
		free(lines[oldest]);
		lines[oldest] = copy_line(step, part);
		oldest = (oldest + 1) % LINES;
	}
}

int main(int count, char **words)
{
	return run(count, words, work);
}
