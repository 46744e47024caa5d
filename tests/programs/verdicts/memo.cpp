/*
 * Truth: no leak: results are remembered for each of 250 arguments, all of which have been asked for after some 12 s.
 */
#include <string>
#include <unordered_map>

#include "traffic.h"

static std::unordered_map<unsigned, std::string> results;

NOINLINE static const std::string &result_for(unsigned argument)
{
	std::string &result = results[argument];

	if (result.empty())
		result = std::string(900, 'r');
	return result;
}

static void work(long)
{
	result_for(chance(250));
}

int main(int count, char **words)
{
	return run(count, words, work);
}
