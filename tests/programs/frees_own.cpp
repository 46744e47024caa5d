/*
 * frees_own: a program whose operators new and delete are its own: with a header before each block, freed blocks kept
 * for the next, and small enough to be inlined where they are used. Answer: no free is wrong.
 */
#include "talk.c"
#include <cstdint>
#include <new>
#include <string>

static constexpr size_t HEADER = 16, KEPT = 64;
static void *kept[KEPT];
static size_t count;

static void *hidden(void *pointer)
{
	asm volatile("" : "+r"(pointer) : : "memory");
	return pointer;
}

void *operator new(size_t size)
{
	if (size <= KEPT && count)
		return kept[--count];
	return (char *)malloc((size < KEPT ? KEPT : size) + HEADER) + HEADER;
}
void *operator new[](size_t size) { return malloc(size); }
void operator delete(void *block) noexcept
{
	if (!block)
		return;
	if (count < KEPT)
		kept[count++] = block;
	else
		free((char *)block - HEADER);
}
void operator delete(void *block, size_t) noexcept { operator delete(block); }
void operator delete[](void *block) noexcept { free(block); }
void operator delete[](void *block, size_t) noexcept { free(block); }

int main(void)
{
	say("ready\n");
	wait_line();
	for (int round = 0; round < 100; round++) {
		void *blocks[2 * KEPT];

		for (void *&block : blocks)
			block = hidden(new char);
		for (void *block : blocks)
			delete (char *)block;
		delete[] (char *)hidden(new char[40]);
		hidden((void *)std::string(round, 'x').c_str());
		free(hidden(malloc(60)));
		while (count)
			free((char *)kept[--count] - HEADER);
	}
	say("end\n");
	wait_line();
	return 0;
}
