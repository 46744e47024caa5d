/*
 * Truth: leaks at note_visit(): one block of 200 bytes a second is made, used and forgotten.
 */
#include "traffic.h"

NOINLINE static void note_visit(void)
{
	use(filled(malloc(200), 200));
}

static void work(long step)
{
	if (step % 100 == 50)
		note_visit();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
