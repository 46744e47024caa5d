/*
 * Truth: no leak: jobs wait in a queue that grows and shrinks with a load whose peaks come every 8 s.
 */
#include <deque>
#include <memory>
#include <string>

#include "traffic.h"

static std::deque<std::unique_ptr<std::string>> jobs;

NOINLINE static void add_job()
{
	jobs.push_back(std::make_unique<std::string>(400, 'j'));
}

static void work(long step)
{
	/* Busy for 3 s of every 8: four jobs come a step, and never more than two are done. */
	unsigned coming = step % 800 < 300 ? 4 : chance(2);

	for (unsigned number = 0; number < coming; number++)
		add_job();
	for (int number = 0; number < 2 && !jobs.empty(); number++)
		jobs.pop_front();
}

int main(int count, char **words)
{
	return run(count, words, work);
}
