/*
 * Truth: leaks at subscribe(): every view adds a listener when it opens, and none takes it away when it closes.
 */
#include <functional>
#include <list>
#include <string>

#include "traffic.h"

static std::list<std::function<int()>> listeners;

NOINLINE static void subscribe(const std::string &name)
{
	listeners.push_back([name] { return static_cast<int>(name.size()); });
}

NOINLINE static void show_view(long number)
{
	std::string name = "a view that is open for a moment, number " + std::to_string(number);

	subscribe(name);
}

static void work(long step)
{
	if (step % 10 == 0)
		show_view(step);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
