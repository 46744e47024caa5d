/*
 * Truth: leaks at remember_request(): a map from request number to its state, from which nothing is ever erased.
 */
#include <map>
#include <string>

#include "traffic.h"

static std::map<long, std::string> states;

NOINLINE static void remember_request(long number)
{
	states[number] = "accepted, and read by nobody from now on";
}

static void work(long step)
{
	if (step % 5 == 0)
		remember_request(step);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
