/*
 * points_names: pointers in variables whose names the linker mangles. Answer: the name in each line, as in the source.
 */
#include "talk.c"

static void place(const char *what, void *volatile *where)
{
	*where = malloc(64);
	say("{\"what\": \"%s\", \"address\": %lu}\n", what, (unsigned long)where);
}

namespace store {
static void *volatile cache[4];
thread_local void *volatile transaction;

struct Session {
	static void *volatile latest;
};
void *volatile Session::latest;

NOINLINE void serve(int count)
{
	static void *volatile last;
	void *volatile local[2];

	place("store::serve(int)::last", &last);
	place("stack store::serve(int)", &local[1]);
	local[0] = local[1];
	say("end\n");
	wait_line();
	say("%d %p\n", count, local[0]);
}
} /* namespace store */

namespace {
void *volatile hidden;
}

int main()
{
	say("ready\n");
	wait_line();
	place("store::cache+0x8", &store::cache[1]);
	place("store::transaction", &store::transaction);
	place("store::Session::latest", &store::Session::latest);
	place("(anonymous namespace)::hidden", &hidden);
	store::serve(2);
	return 0;
}
