/*
 * Truth: leaks at grow(): the text is lost where `text = realloc(text, size)` fails, as it does for a broken length.
 */
#include "traffic.h"

NOINLINE static char *grow(char *text, size_t size)
{
	text = (char *)realloc(text, size);
	return text;
}

/* One in fifteen has a length that no allocator can give. */
NOINLINE static size_t length_in_header(void)
{
	volatile size_t broken = (size_t)-1 / 2;

	return chance(15) ? 900 + chance(200) : broken - 4096;
}

NOINLINE static void receive(void)
{
	char *text = grow(NULL, 400);

	filled(text, 400);
	text = grow(text, length_in_header());
	free(text);
}

static void work(long step)
{
	if (step % 4 == 0)
		receive();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
