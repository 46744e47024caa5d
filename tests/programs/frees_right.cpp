/*
 * frees_right: frees that are all right, in every form there is. Answer: not one of them is called wrong.
 */
#include "talk.c"
#include <cstdint>
#include <cstring>
#include <fstream>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <new>
#include <pthread.h>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

static constexpr int ROUNDS = 200;

static void *hidden(void *pointer)
{
	asm volatile("" : "+r"(pointer) : : "memory");
	return pointer;
}

struct alignas(128) Wide {
	char data[256];
};
struct Shape {
	virtual ~Shape() { hidden(this); }
	char data[40];
};
struct Round : Shape {
	std::string name = "a name that is longer than what a string holds in itself";
};
struct Fails {
	char data[96];
	Fails() { throw 1; }
};

NOINLINE static void operators()
{
	operator delete(hidden(operator new(40)));
	operator delete(hidden(operator new(40)), size_t{40});
	operator delete(hidden(operator new(40, std::nothrow)), std::nothrow);
	operator delete(hidden(operator new(256, std::align_val_t(64))), std::align_val_t(64));
	operator delete(hidden(operator new(256, std::align_val_t(64))), size_t{256}, std::align_val_t(64));
	operator delete(hidden(operator new(256, std::align_val_t(64), std::nothrow)), std::align_val_t(64), std::nothrow);
	operator delete[](hidden(operator new[](40)));
	operator delete[](hidden(operator new[](40)), size_t{40});
	operator delete[](hidden(operator new[](40, std::nothrow)), std::nothrow);
	operator delete[](hidden(operator new[](256, std::align_val_t(64))), std::align_val_t(64));
	operator delete[](hidden(operator new[](256, std::align_val_t(64))), size_t{256}, std::align_val_t(64));
	operator delete[](hidden(operator new[](256, std::align_val_t(64), std::nothrow)), std::align_val_t(64),
			  std::nothrow);
	delete (Wide *)hidden(new Wide);
	delete[] (Wide *)hidden(new Wide[3]);
	delete (Shape *)hidden(new Round);
	delete[] (Round *)hidden(new Round[3]);
	operator delete(nullptr);
	free(nullptr);
}

NOINLINE static void exceptions()
{
	try {
		hidden(new Fails);
	} catch (int) {
	}
	try {
		hidden(new Fails[4]);
	} catch (int) {
	}
	try {
		hidden(operator new[](PTRDIFF_MAX - 4096));
	} catch (const std::bad_alloc &) {
	}
	hidden(operator new[](PTRDIFF_MAX - 4096, std::nothrow));
	/* From where an operator that threw was called, or deeper. */
	free(hidden(malloc(50)));
	delete[] (char *)hidden(new char[50]);
	delete (int *)hidden(new int);
}

NOINLINE static void functions_of_c()
{
	void *block = nullptr;
	char *line = nullptr;
	size_t size = 0;
	FILE *file = fopen("/proc/self/status", "r");

	require(!posix_memalign(&block, 64, 100), "posix_memalign");
	free(hidden(block));
	free(hidden(aligned_alloc(64, 128)));
	free(hidden(strdup("some text")));
	free(hidden(calloc(3, 30)));
	block = hidden(malloc(10));
	/* In place, moved, smaller; and once in vain. */
	for (size_t wanted : {12, 5000, 100, 200000, 40})
		block = hidden(realloc(block, wanted));
	require(!realloc(block, (size_t)hidden((void *)(PTRDIFF_MAX - 1))), "realloc fails");
	block = hidden(reallocarray(block, 30, 40));
	free(block);
	free(hidden(realloc(nullptr, 30)));
	/* Frees it (glibc). */
	block = hidden(realloc(hidden(malloc(30)), (size_t)hidden(nullptr)));
	free(block);
	while (getline(&line, &size, file) > 0)
		continue;
	fclose(file);
	free(line);
}

NOINLINE static void same_address()
{
	/* The same block from hand to hand, each time of another kind. */
	for (int i = 0; i < 20; i++) {
		free(hidden(malloc(40)));
		delete (Shape *)hidden(new Shape);
		delete[] (char *)hidden(new char[40]);
	}
}

/* One place that frees by what it is told. */
NOINLINE static void deleters()
{
	std::vector<std::pair<std::function<void(void *)>, void *>> all;

	for (int i = 0; i < 10; i++) {
		all.emplace_back([](void *block) { operator delete(block); }, hidden(operator new(40)));
		all.emplace_back(free, hidden(malloc(40)));
		all.emplace_back([](void *block) { operator delete[](block); }, hidden(operator new[](40)));
	}
	for (auto &[deleter, block] : all)
		deleter(block);
	void (*const takes[])(void *) = {free, operator delete, operator delete[]};
	void *const blocks[] = {hidden(malloc(40)), hidden(operator new(40)), hidden(operator new[](40))};
	for (int i = 0; i < 3; i++)
		takes[i](blocks[i]);
}

NOINLINE static void library()
{
	std::map<std::string, std::vector<int>> map;
	std::ostringstream out;
	std::ofstream file("/dev/null");
	std::shared_ptr<Round> shared = std::make_shared<Round>();
	std::unique_ptr<int[]> array(new int[40]);

	for (int i = 0; i < 30; i++) {
		map["key number " + std::to_string(i) + " which is a long one"].resize(i);
		out << i << " " << map.size() << std::endl;
		file << out.str() << std::endl;
	}
	std::cout.flush();
	shared.reset();
}

/* Blocks of one thread are freed by the next. */
static void *blocks_of_all[4][50];

NOINLINE static void *fill_row(void *row)
{
	for (void *&block : blocks_of_all[(uintptr_t)row])
		block = (uintptr_t)row % 2 ? hidden(malloc(40)) : hidden(operator new(40));
	return nullptr;
}

NOINLINE static void *free_row(void *row)
{
	for (void *block : blocks_of_all[(uintptr_t)row])
		if ((uintptr_t)row % 2)
			free(block);
		else
			operator delete(block);
	return nullptr;
}

NOINLINE static void threads()
{
	for (auto work : {fill_row, free_row}) {
		pthread_t running[4];

		for (uintptr_t row = 0; row < 4; row++)
			pthread_create(&running[row], nullptr, work, (void *)row);
		for (pthread_t thread : running)
			pthread_join(thread, nullptr);
	}
	std::thread([] { library(); }).join();
}

int main(void)
{
	say("ready\n");
	wait_line();
	for (int round = 0; round < ROUNDS; round++) {
		operators();
		exceptions();
		functions_of_c();
		same_address();
		deleters();
		if (round % 20 == 0) {
			library();
			threads();
		}
	}
	say("end\n");
	wait_line();
	return 0;
}
