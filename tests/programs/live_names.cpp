/*
 * live_names: blocks from functions with mangled names, C++ and both of Rust's, and through inlined calls. Answer: the
 * name that a reader should see, and the bytes of the one block.
 */
#include "talk.c"

static void *volatile blocks[8];

namespace shop {
template <typename T> struct Basket {
	NOINLINE static void add(const T &, size_t size) { blocks[0] = malloc(size); /* line: template */ }
};
}

/* Names as rustc makes them (legacy and v0 mangling): only the names matter here. */
void rust_legacy(size_t size) __asm__("_ZN5store5cache5Cache3put17h0123456789abcdefE");
void rust_v0(size_t size) __asm__("_RNvMNtCs1234_5store5queueNtB2_5Queue4push");

NOINLINE void rust_legacy(size_t size)
{
	blocks[1] = malloc(size);
}

NOINLINE void rust_v0(size_t size)
{
	blocks[2] = malloc(size);
}

__attribute__((always_inline)) static inline void innermost(size_t size)
{
	blocks[3] = malloc(size); /* line: innermost */
}

__attribute__((always_inline)) static inline void between(size_t size)
{
	innermost(size); /* line: between */
}

NOINLINE static void outermost(size_t size)
{
	between(size); /* line: outermost */
}

int main()
{
	say("ready\n");
	wait_line();
	shop::Basket<int>::add(1, 2001);
	rust_legacy(2002);
	rust_v0(2003);
	outermost(2004);
	say("{\"name\": \"shop::Basket<int>::add(int const&, unsigned long)\", \"bytes\": 2001}\n");
	say("{\"name\": \"store::cache::Cache::put\", \"bytes\": 2002}\n");
	say("{\"name\": \"<store::queue::Queue>::push\", \"bytes\": 2003}\n");
	say("end\n");
	wait_line();
	return 0;
}
