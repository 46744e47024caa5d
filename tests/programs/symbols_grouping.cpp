/*
 * symbols_grouping: blocks that are one site or several, as one looks at them. Answer: three_calls() makes 3 blocks of
 * 100 bytes: 3 calls, in 2 lines, in 1 function. deep() makes 1 block of 200 bytes under each of 2, 3, 5 and 9 turns of
 * itself. by_new() makes 1 of 300 bytes with operator new, by_vector() 1 of 400 in a std::vector<int>.
 */
#include "talk.c"

#include <new>
#include <vector>

static void *volatile blocks[16];
static volatile int dead;

NOINLINE static void three_calls()
{
	blocks[0] = malloc(100), blocks[1] = malloc(100);
	blocks[2] = malloc(100);
}

NOINLINE static void deep(int turns, int number)
{
	if (turns > 1)
		deep(turns - 1, number);
	else
		blocks[number] = malloc(200);
	/* The call above is none that the compiler may turn into a jump. */
	dead = turns;
}

NOINLINE static void by_new()
{
	blocks[7] = operator new(300);
}

NOINLINE static void by_vector()
{
	/* Never destroyed, as a static variable would be at the end. */
	alignas(std::vector<int>) static char room[sizeof(std::vector<int>)];
	std::vector<int> *numbers = new (room) std::vector<int>;

	numbers->reserve(100);
	blocks[8] = numbers->data();
}

int main()
{
	static const int turns[] = {2, 3, 5, 9};

	say("ready\n");
	wait_line();
	three_calls();
	for (int number = 0; number < 4; number++)
		deep(turns[number], 3 + number);
	by_new();
	by_vector();
	say("end\n");
	wait_line();
	return 0;
}
