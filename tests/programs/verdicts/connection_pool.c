/*
 * Truth: no leak: connections are added while the load grows, for 6 s, and then the 60 that there are suffice.
 */
#include "traffic.h"

#define MOST 60

static struct { void *buffer; long busy_until; } connections[MOST];

NOINLINE static void *connect_one(void)
{
	return filled(malloc(16000), 16000);
}

NOINLINE static void ask(long step)
{
	for (int number = 0; number < MOST; number++) {
		if (connections[number].busy_until > step)
			continue;
		if (!connections[number].buffer)
			connections[number].buffer = connect_one();
		connections[number].busy_until = step + 60;
		return;
	}
}

static void work(long step)
{
	/* Each question takes 0.6 s; up to one a step comes, so up to 60 are under way. */
	if (chance(600) < (step < 600 ? (unsigned)step : 600))
		ask(step);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
