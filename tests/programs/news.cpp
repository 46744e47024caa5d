/*
 * news [nothrow]: every form of operator new, also those that throw: of the program, of the library, and from a new
 * handler. Answer: what each by_...() function got and what of it was deleted; "exceptions" is how many were thrown at
 * most, for which the runtime allocates and frees more. With "nothrow" nothing asks for too much memory, for allocators that
 * end the program then.
 */
#include "talk.c"
#include <cstddef>
#include <cstdint>
#include <new>

static constexpr int ROUNDS = 40;
/* What no allocator gives; volatile, or the compiler refuses. */
static volatile size_t huge = PTRDIFF_MAX - 4096;
static int exceptions;

struct Tally {
	const char *name;
	uint64_t bytes, count, allocated_bytes, allocated_count, freed_count;
	Tally *next;
};
static Tally *tallies;

struct Counted {
	Tally tally;
	explicit Counted(const char *name) : tally{name, 0, 0, 0, 0, 0, tallies} { tallies = &tally; }
	void born(size_t size)
	{
		tally.bytes += size;
		tally.count++;
		tally.allocated_bytes += size;
		tally.allocated_count++;
	}
	void died(size_t size)
	{
		tally.bytes -= size;
		tally.count--;
		tally.freed_count++;
	}
};

/* Lets no compiler leave a new and its delete out ([expr.new]/10). */
static void escape(void *pointer)
{
	asm volatile("" : : "r"(pointer) : "memory");
}

struct Node {
	char data[72];
	~Node() { escape(this); }
};
struct Refused {};
struct Fails {
	char data[88];
	explicit Fails(int round)
	{
		escape(this);
		if (round >= 0)
			throw Refused();
	}
};
struct alignas(256) Wide {
	char data[512];
};
/* An array of these keeps their number in front of them. */
static constexpr size_t COOKIE = sizeof(size_t);

static Counted new_object("by_new"), new_deeper("by_new_deeper"), new_untouched("by_new_over_untouched_stack"),
	new_array("by_new_array"), new_nothrow("by_nothrow"),
	new_aligned("by_aligned"), constructor("by_failing_constructor");

NOINLINE static void by_new(bool keep)
{
	Node *node = new Node;
	escape(node);
	new_object.born(sizeof(Node));
	if (!keep) {
		new_object.died(sizeof(Node));
		delete node;
	}
}

/* Its stack covers where a call that threw had its own. */
NOINLINE static void by_new_deeper(bool keep, int levels)
{
	volatile char frame[8];

	frame[0] = levels;
	if (levels) {
		by_new_deeper(keep, levels - 1);
		frame[1] = frame[0];
		return;
	}
	Node *node = new Node;
	escape(node);
	new_deeper.born(sizeof(Node));
	if (!keep) {
		new_deeper.died(sizeof(Node));
		delete node;
	}
}

/* The array covers where a call that threw had its stack, and leaves it as it was. */
NOINLINE static void by_new_over_untouched_stack(bool keep)
{
	volatile char untouched[8192];

	untouched[0] = 0;
	Node *node = new Node;
	escape(node);
	new_untouched.born(sizeof(Node));
	if (!keep) {
		new_untouched.died(sizeof(Node));
		delete node;
	}
	untouched[1] = untouched[0];
}

NOINLINE static void by_new_array(bool keep, size_t length)
{
	Node *nodes = new Node[length];
	escape(nodes);
	new_array.born(COOKIE + length * sizeof(Node));
	if (!keep) {
		new_array.died(COOKIE + length * sizeof(Node));
		delete[] nodes;
	}
}

NOINLINE static void by_nothrow(bool keep)
{
	Node *node = new (std::nothrow) Node;
	require(node != nullptr, "nothrow new gives memory");
	escape(node);
	new_nothrow.born(sizeof(Node));
	if (!keep) {
		new_nothrow.died(sizeof(Node));
		delete node;
	}
}

NOINLINE static void by_aligned(bool keep)
{
	Wide *wide = new Wide;
	escape(wide);
	new_aligned.born(sizeof(Wide));
	if (!keep) {
		new_aligned.died(sizeof(Wide));
		delete wide;
	}
}

/* The runtime gives the memory back, as nobody else could. The one that is kept does not throw. */
NOINLINE static void by_failing_constructor(int round)
{
	try {
		constructor.born(sizeof(Fails));
		escape(new Fails(round));
	} catch (const Refused &) {
		constructor.died(sizeof(Fails));
		exceptions++;
	}
}

template <class Function> NOINLINE static void require_bad_alloc(Function function)
{
	try {
		function();
	} catch (const std::bad_alloc &) {
		exceptions++;
		return;
	}
	require(0, "too much memory is refused");
}

static int handled;

NOINLINE static void throwing_handler()
{
	handled++;
	throw Refused();
}

/* The handler gives up on the second call: then operator new throws by itself. */
NOINLINE static void yielding_handler()
{
	if (handled++ % 2)
		std::set_new_handler(nullptr);
}

NOINLINE static void ask_too_much()
{
	require_bad_alloc([] { escape(operator new(huge)); });
	require_bad_alloc([] { escape(new char[huge]); });
	require_bad_alloc([] { escape(operator new(huge, std::align_val_t(64))); });
	std::set_new_handler(throwing_handler);
	try {
		escape(operator new(huge));
		require(0, "the handler throws");
	} catch (const Refused &) {
		exceptions++;
	}
	handled = 0;
	std::set_new_handler(yielding_handler);
	require_bad_alloc([] { escape(operator new[](huge)); });
	require(handled == 2, "the handler was called until it gave up");
	std::set_new_handler(nullptr);
}

NOINLINE static void ask_too_much_without_exceptions()
{
	/* Inside, it throws all the same (libstdc++: new_opnt.cc). */
	exceptions += 2;
	require(operator new(huge, std::nothrow) == nullptr, "nothrow new refuses");
	require(operator new[](huge, std::nothrow) == nullptr, "nothrow new[] refuses");
}

int main(int argc, char **)
{
	say("ready\n");
	wait_line();
	for (int round = 0; round < ROUNDS; round++) {
		bool keep = round % 4 == 0;

		by_new(keep);
		if (argc < 2) {
			ask_too_much_without_exceptions();
			ask_too_much();
		}
		if (round % 2)
			by_new_deeper(keep || round % 8 == 1, 40);
		else
			by_new_over_untouched_stack(keep);
		by_new_array(keep, 2 + round);
		by_failing_constructor(round == 7 ? -1 : round);
		by_nothrow(keep);
		by_aligned(keep);
	}
	for (const Tally *tally = tallies; tally; tally = tally->next)
		say("{\"function\": \"%s\", \"bytes\": %lu, \"count\": %lu, \"allocated_bytes\": %lu, "
		    "\"allocated_count\": %lu, \"freed_count\": %lu}\n",
		    tally->name, tally->bytes, tally->count, tally->allocated_bytes, tally->allocated_count,
		    tally->freed_count);
	say("{\"exceptions\": %d}\nend\n", exceptions);
	wait_line();
	return 0;
}
