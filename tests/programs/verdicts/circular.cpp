/*
 * Truth: leaks at make_window(): window and document hold each other by shared_ptr, five pairs a second.
 */
#include <memory>

#include "traffic.h"

struct Document;

struct Window {
	std::shared_ptr<Document> document;
	char title[100];
};

struct Document {
	std::shared_ptr<Window> window;
	char text[300];
};

NOINLINE static std::shared_ptr<Window> make_window()
{
	auto window = std::make_shared<Window>();

	window->document = std::make_shared<Document>();
	window->document->window = window;
	return window;
}

static void work(long step)
{
	if (step % 20 == 0)
		make_window();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
