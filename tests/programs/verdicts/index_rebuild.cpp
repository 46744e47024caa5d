/*
 * Truth: no leak: every 3 s an index is built anew, and when it is whole it replaces the old one, which is freed.
 */
#include <map>
#include <memory>
#include <string>

#include "traffic.h"

using Index = std::map<long, std::string>;

static std::unique_ptr<Index> current;
static std::unique_ptr<Index> next_one;

NOINLINE static void add_word(long number)
{
	(*next_one)[number] = std::string(250, 'w');
}

static void work(long step)
{
	/* 150 of 300 steps build, five words each. */
	long phase = step % 300;

	if (phase == 0)
		next_one = std::make_unique<Index>();
	for (long number = 0; phase < 150 && number < 5; number++)
		add_word(phase * 5 + number);
	if (phase == 150)
		current = std::move(next_one);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
