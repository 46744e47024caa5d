/*
 * Truth: leaks at read_record(): a record that is malformed, as one in twenty is, is left where the parser gives up.
 */
#include "traffic.h"

NOINLINE static char *read_record(void)
{
	char *record = (char *)filled(malloc(150), 150);

	record[0] = chance(20) ? 'R' : '?';
	return record;
}

NOINLINE static int parse(void)
{
	char *record = read_record();

	if (record[0] != 'R')
		return -1;
	use(record);
	free(record);
	return 0;
}

static void work(long step)
{
	(void)step;
	parse();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
