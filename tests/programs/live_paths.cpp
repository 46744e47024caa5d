/*
 * live_paths: one block for each way to be called, from a function of its own name: recursion, a sort's comparison, a
 * std::function, a virtual call, a frame with realigned stack pointer (DRAP), an array of variable length, a library
 * in between, and a thread. Answer: the name of each way and the size of its block, which no other allocation has.
 */
#include "talk.c"
#include <algorithm>
#include <alloca.h>
#include <functional>
#include <pthread.h>

extern "C" int call_between(int (*then)(int), int place);

/* Sizes from here on are the program's own. */
static constexpr size_t FIRST_SIZE = 50000;
static void *volatile blocks[16];

NOINLINE static int hold(int place)
{
	blocks[place] = malloc(FIRST_SIZE + place);
	require(blocks[place] != nullptr, "malloc gives memory");
	return place;
}

NOINLINE static int by_recursion(int levels)
{
	volatile int answer = levels ? by_recursion(levels - 1) : hold(0);

	return answer + 1;
}

static int compared;

NOINLINE static bool by_comparison(const int &left, const int &right)
{
	if (++compared == 40)
		compared += hold(1);
	return left < right;
}

NOINLINE static void by_sort()
{
	int numbers[100];

	for (int i = 0; i < 100; i++)
		numbers[i] = i * 37 % 100;
	std::sort(numbers, numbers + 100, by_comparison);
	compared += numbers[3];
}

NOINLINE static int call(const std::function<int(int)> &function)
{
	volatile int answer = function(2);

	return answer + 1;
}

NOINLINE static int by_function()
{
	volatile int more = 1;

	return call([&more](int place) { return hold(place) + more; }) + more;
}

struct Shape {
	virtual int area() = 0;
	virtual ~Shape() = default;
};
struct Square : Shape {
	int side = 3;
	NOINLINE int area() override { return hold(side) * side; }
};

NOINLINE static int by_virtual_call(Shape *shape)
{
	return shape->area() + 1;
}

/* The array's place depends on how the stack lies, and alloca() keeps rsp from saying where the frame is. */
NOINLINE static int by_realigned_frame(size_t room)
{
	alignas(64) volatile char line[64];
	volatile char *more = static_cast<volatile char *>(alloca(room));

	more[0] = line[0] = 1;
	return hold(4) + more[0] + line[0];
}

NOINLINE static int by_variable_array(size_t room)
{
	volatile char array[room];

	array[0] = 1;
	return hold(5) + array[0];
}

NOINLINE static int called_back(int place)
{
	return hold(place) + 1;
}

NOINLINE static int by_library()
{
	return call_between(called_back, 6) + 1;
}

NOINLINE static void *by_thread(void *room)
{
	*static_cast<int *>(room) = hold(7);
	return room;
}

NOINLINE static void work(size_t room)
{
	Square square;
	pthread_t thread;
	int place;

	by_recursion(12);
	by_sort();
	by_function();
	by_virtual_call(&square);
	by_realigned_frame(room);
	by_variable_array(room);
	by_library();
	require(pthread_create(&thread, nullptr, by_thread, &place) == 0, "a thread starts");
	pthread_join(thread, nullptr);
}

int main()
{
	static const char *const names[] = { "by_recursion", "by_comparison", "by_function", "by_virtual_call",
		"by_realigned_frame", "by_variable_array", "by_library", "by_thread" };
	volatile size_t room = 777;

	say("ready\n");
	wait_line();
	work(room);
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
		say("{\"function\": \"%s\", \"bytes\": %zu}\n", names[i], FIRST_SIZE + i);
	say("end\n");
	wait_line();
	return 0;
}
