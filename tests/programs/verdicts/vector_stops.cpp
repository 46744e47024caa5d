/*
 * Truth: no leak: a vector doubles as it is filled, and has all its elements after 8 s.
 */
#include <vector>

#include "traffic.h"

static std::vector<long> samples;

NOINLINE static void add_sample(long value)
{
	samples.push_back(value);
}

static void work(long step)
{
	for (int number = 0; step < 800 && number < 50; number++)
		add_sample(step);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
