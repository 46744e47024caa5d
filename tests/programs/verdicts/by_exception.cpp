/*
 * Truth: leaks at read_document(): its buffer is deleted by hand, which an exception from check(), one in ten, skips.
 */
#include <stdexcept>

#include "traffic.h"

NOINLINE static char *read_document()
{
	char *document = new char[700];

	filled(document, 700);
	return document;
}

NOINLINE static void check(const char *document)
{
	if (document[0] == 'x' && chance(10) == 0)
		throw std::runtime_error("not a document");
}

NOINLINE static void handle()
{
	char *document = read_document();

	check(document);
	delete[] document;
}

static void work(long step)
{
	if (step % 4)
		return;
	try {
		handle();
	} catch (const std::exception &) {
	}
}

int main(int count, char **words)
{
	return run(count, words, work);
}
