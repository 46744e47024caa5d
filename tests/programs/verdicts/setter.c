/*
 * Truth: leaks at set_title(): the new title's copy replaces the old one, which is not freed, four times a second.
 */
#include "traffic.h"

static struct { char *title; } window;

NOINLINE static void set_title(const char *title)
{
	window.title = strdup(title);
}

static void work(long step)
{
	char title[80];

	if (step % 25)
		return;
	snprintf(title, sizeof(title), "Letters and figures, page %ld of the whole thing", step);
	set_title(title);
	use(window.title);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
