/*
 * points_library: a library for points_variables, with a global, a static and a thread-local variable of its own.
 * Answer: library_table, and static_shelf+0x10, in the library's memory; library_session in each thread's.
 */
#include <stddef.h>

void *library_table[4] = {&library_table};
static void *static_shelf[8];
static __thread void *library_session[2];
__thread void *exported_session;

void **library_slot(int which)
{
	switch (which) {
	case 0:
		return &library_table[0];
	case 1:
		return &static_shelf[2];
	case 2:
		return &library_session[1];
	default:
		return &exported_session;
	}
}
