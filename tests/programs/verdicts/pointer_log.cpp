/*
 * Truth: leaks at log_event(): every event's record is kept in a vector of pointers that nobody reads or empties.
 */
#include <vector>

#include "traffic.h"

struct Event {
	long step;
	char text[88];
};

static std::vector<Event *> events;

NOINLINE static void log_event(long step)
{
	Event *event = new Event;

	event->step = step;
	events.push_back(event);
}

static void work(long step)
{
	if (step % 6 == 0)
		log_event(step);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
