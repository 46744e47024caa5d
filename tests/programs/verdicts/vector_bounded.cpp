/*
 * Truth: no leak: a history doubles its one block now and then, until it has its 2,500 elements after 25 s.
 */
#include <vector>

#include "traffic.h"

struct Sample {
	long step;
	double values[7];
};

static std::vector<Sample> history;

NOINLINE static void add_sample(long step)
{
	if (history.size() < 2500)
		history.push_back({step, {}});
	else
		history[static_cast<size_t>(step) % 2500].step = step;
}

int main(int count, char **words)
{
	return run(count, words, add_sample);
}
