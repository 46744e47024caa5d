/*
 * Truth: leaks at make_message(): 300 messages a second are made and freed at once, but one in a hundred is not.
 */
#include "traffic.h"

NOINLINE static char *make_message(void)
{
	return (char *)filled(malloc(256), 256);
}

NOINLINE static void deliver(char *message)
{
	use(message);
	if (chance(100))
		free(message);
}

static void work(long step)
{
	(void)step;
	for (int number = 0; number < 3; number++)
		deliver(make_message());
}

int main(int count, char **words)
{
	return run(count, words, work);
}
