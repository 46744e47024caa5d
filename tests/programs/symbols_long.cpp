/*
 * symbols_long: a block from a function with a long name. Answer: 3004 bytes from
 * warehouse::Catalogue<std::map<std::string, std::vector<int>>>::insert_item(the map const&, unsigned long).
 */
#include "talk.c"

#include <map>
#include <string>
#include <vector>

static void *volatile block;

namespace warehouse {
template <typename T> struct Catalogue {
	NOINLINE static void insert_item(const T &, size_t size)
	{
		block = malloc(size);
		say("{\"bytes\": %zu}\n", size);
	}
};
}

int main()
{
	say("ready\n");
	wait_line();
	warehouse::Catalogue<std::map<std::string, std::vector<int>>>::insert_item({}, 3004);
	say("end\n");
	wait_line();
	return 0;
}
