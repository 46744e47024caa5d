/*
 * Containers of the standard library: held, lost as a whole, and a circle of shared_ptr.
 * Truth: definitely 88 bytes in 2 blocks, indirectly 475 bytes in 15 blocks,
 * reachable 1,778 bytes in 21 blocks.
 */
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "held.h"

struct Person {
	std::shared_ptr<Person> friend_of;
	std::string name;
	explicit Person(const char *called) : name(called) {}
};

static std::map<int, std::string> *held;

NOINLINE static void make_held()
{
	held = new std::map<int, std::string>;
	for (int number = 0; number < 10; number++)
		(*held)[number] = std::string(100, 'h');
}

NOINLINE static void lose_vector()
{
	auto *lost = new std::vector<std::list<int>>(3);

	for (auto &list : *lost)
		list.assign(4, 7);
	use(lost);
}

NOINLINE static void lose_circle()
{
	auto one = std::make_shared<Person>("whose name is too long to lie inside of the string");
	auto other = std::make_shared<Person>("short");

	one->friend_of = other;
	other->friend_of = one;
}

int main()
{
	make_held();
	lose_vector();
	lose_circle();
	end();
}
