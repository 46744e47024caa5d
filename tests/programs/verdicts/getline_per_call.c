/*
 * Truth: leaks at read_line(): each call starts getline() with no buffer, so that each gets one, and nobody frees it.
 */
#include "traffic.h"

static char script[] = "a line of some length\nanother one\n";
static FILE *input;

NOINLINE static int read_line(void)
{
	char *line = NULL;
	size_t room = 0;

	if (getline(&line, &room, input) < 0) {
		rewind(input);
		return 0;
	}
	return line[0] == 'a';
}

static void work(long step)
{
	if (step % 10 == 0)
		read_line();
}

int main(int count, char **words)
{
	input = fmemopen(script, sizeof(script) - 1, "r");
	return run(count, words, work);
}
