/*
 * frees_wrong [KIND]: frees that are wrong, each pair of functions a number of times of its own. Answer: for each pair
 * what allocated where, what freed where, how often. Without KIND all that a C library lets pass; "double" frees twice
 * in give_back_first() and give_back_again(), "far" frees what nobody gave in free_far(): glibc ends it then.
 */
#include "talk.c"
#include <cstdint>
#include <cstring>
#include <new>

/* What is freed is seen by nobody: the compiler would warn, or leave both out. */
static void *hidden(void *pointer)
{
	asm volatile("" : "+r"(pointer) : : "memory");
	return pointer;
}

NOINLINE static void *from_malloc() { return hidden(malloc(24)); }
NOINLINE static void *from_new() { return hidden(operator new(24)); }
NOINLINE static void *from_array() { return hidden(operator new[](24)); }
NOINLINE static void *from_quiet_array() { return hidden(operator new[](24, std::nothrow)); }

NOINLINE static void by_free(void *block)
{
	free(hidden(block));
	asm volatile("");
}
NOINLINE static void by_delete(void *block)
{
	operator delete(hidden(block));
	asm volatile("");
}
NOINLINE static void by_sized_delete(void *block)
{
	operator delete(hidden(block), size_t{24});
	asm volatile("");
}
NOINLINE static void by_array_delete(void *block)
{
	operator delete[](hidden(block));
	asm volatile("");
}
NOINLINE static void by_realloc(void *block)
{
	void *larger = realloc(hidden(block), 5000);

	free(hidden(larger));
	asm volatile("");
}

NOINLINE static void give_back_first(void *block)
{
	free(hidden(block));
	asm volatile("");
}
NOINLINE static void give_back_again(void *block)
{
	free(hidden(block));
	asm volatile("");
}
NOINLINE static void free_far()
{
	static char nobodys[64] __attribute__((aligned(64)));

	free(hidden(nobodys + 16));
	asm volatile("");
}

#define WRONG(times, give, given, take, taken)                                                                     \
	do {                                                                                                       \
		for (int i = 0; i < (times); i++)                                                                  \
			take(give());                                                                              \
		say("{\"kind\": \"mismatched\", \"count\": %d, \"allocated_by\": \"%s\", \"allocated\": \"%s\", "     \
		    "\"freed_by\": \"%s\", \"freed\": \"%s\"}\n", times, given, #give, taken, #take);                 \
	} while (0)

int main(int argc, char **argv)
{
	void *early = from_malloc(), *early_array = from_array();

	say("ready\n");
	wait_line();
	/* Nothing is wrong with these, also where the trace began in between. */
	by_free(early);
	by_array_delete(early_array);
	if (argc > 1 && !strcmp(argv[1], "double")) {
		void *block = from_malloc();

		give_back_first(block);
		give_back_again(block);
	} else if (argc > 1) {
		free_far();
	}
	WRONG(3, from_malloc, "malloc", by_delete, "delete");
	WRONG(4, from_malloc, "malloc", by_array_delete, "delete[]");
	WRONG(5, from_new, "new", by_array_delete, "delete[]");
	WRONG(6, from_array, "new[]", by_delete, "delete");
	WRONG(7, from_new, "new", by_free, "free");
	WRONG(8, from_array, "new[]", by_sized_delete, "delete");
	WRONG(9, from_quiet_array, "new[]", by_free, "free");
	WRONG(1, from_new, "new", by_realloc, "realloc");
	say("end\n");
	wait_line();
	return 0;
}
