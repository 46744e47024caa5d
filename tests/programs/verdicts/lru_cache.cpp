/*
 * Truth: no leak: a cache of 400 answers throws away the one that was used longest ago.
 */
#include <list>
#include <string>
#include <unordered_map>
#include <utility>

#include "traffic.h"

using Entry = std::pair<unsigned, std::string>;

static std::list<Entry> order;
static std::unordered_map<unsigned, std::list<Entry>::iterator> index_of;

NOINLINE static void remember(unsigned key)
{
	order.emplace_front(key, std::string(500, 'a'));
	index_of[key] = order.begin();
	if (order.size() > 400) {
		index_of.erase(order.back().first);
		order.pop_back();
	}
}

NOINLINE static void look_up(unsigned key)
{
	auto found = index_of.find(key);

	if (found == index_of.end())
		remember(key);
	else
		order.splice(order.begin(), order, found->second);
}

static void work(long)
{
	look_up(chance(600));
	look_up(chance(2000));
}

int main(int count, char **words)
{
	return run(count, words, work);
}
