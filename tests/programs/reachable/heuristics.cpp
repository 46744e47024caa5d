/*
 * Interior pointers that valgrind knows the reason of (old std::string, new[] with its count, a second base class,
 * length before data), so that their blocks are reachable; and their like, which are not quite it.
 * Truth: possibly 486 bytes in 5 blocks, reachable 613 bytes in 5 blocks.
 */
#include "held.h"

struct First {
	long one = 1;
	virtual ~First() {}
};

struct Second {
	long two = 2;
	virtual ~Second() {}
};

struct Both : First, Second {
	char text[68];
};

struct Counted {
	char text[24];
	~Counted() { use(this); }
};

/* As std::string's text before C++11: length, capacity, references, then the characters and a zero. */
NOINLINE static char *old_string(size_t size, size_t length, size_t capacity)
{
	size_t *block = static_cast<size_t *>(calloc(1, size));

	block[0] = length;
	block[1] = capacity;
	return reinterpret_cast<char *>(block + 3);
}

/* As sqlite and others do: how many bytes follow, and these. */
NOINLINE static char *with_length(size_t size, uint64_t length)
{
	uint64_t *block = static_cast<uint64_t *>(calloc(1, size));

	block[0] = length;
	return reinterpret_cast<char *>(block + 1);
}

char *strings[2], *lengths[2];
Counted *counted, *counted_inside;
Second *second;
void *no_table;
void *last;
void *kept;

NOINLINE static void make()
{
	strings[0] = old_string(8 * 3 + 40 + 1, 12, 40);
	strings[1] = old_string(8 * 3 + 40 + 1, 12, 50);
	lengths[0] = with_length(120, 112);
	lengths[1] = with_length(113, 100);
	counted = new Counted[10];
	counted_inside = new Counted[5] + 1;
	second = new Both;
	no_table = static_cast<char *>(calloc(1, 100)) + 16;
	last = with_length(80, 72) + 8;
	kept = malloc(76);
}

int main()
{
	make();
	end();
}
