/*
 * live_loader FIRST SECOND [at_once]: loads the library FIRST, calls its function first_keeps(), and unloads it; then the
 * same with SECOND and second_keeps(). In steps of their own, or with "at_once" in one. Answer: what each kept, and where
 * the functions lay.
 */
#include "talk.c"
#include <dlfcn.h>
#include <string.h>

static void *place;

NOINLINE static void use(const char *path, const char *name, int size)
{
	void *library = dlopen(path, RTLD_NOW);
	void (*keeps)(int);

	require(library != NULL, "the library is loaded");
	place = dlsym(library, name);
	require(place != NULL, "the library has its function");
	memcpy(&keeps, &place, sizeof(place));
	keeps(size);
	require(dlclose(library) == 0, "the library is unloaded");
	require(dlopen(path, RTLD_NOW | RTLD_NOLOAD) == NULL, "the library is gone");
}

static void answer(const char *name, int bytes)
{
	say("{\"function\": \"%s\", \"bytes\": %d, \"count\": 10, \"place\": \"%p\"}\n", name, bytes, place);
}

int main(int argc, char **argv)
{
	require(argc > 2, "two libraries are given");
	say("ready\n");
	wait_line();
	use(argv[1], "first_keeps", 111);
	answer("first_keeps", 1110);
	if (argc == 3) {
		say("end\n");
		wait_line();
	}
	use(argv[2], "second_keeps", 222);
	answer("second_keeps", 2220);
	say("end\n");
	wait_line();
	return 0;
}
