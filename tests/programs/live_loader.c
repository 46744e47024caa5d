/*
 * live_loader FIRST SECOND [at_once]: loads the library FIRST and calls its function first_keeps(); unloads it; the same
 * with SECOND and second_keeps(). That is four steps, or with "at_once" one. Answer: what each kept.
 */
#include "talk.c"
#include <dlfcn.h>
#include <string.h>

static void *library;
static int at_once;

NOINLINE static void use(const char *path, const char *name, int size)
{
	void (*keeps)(int);
	void *place;

	library = dlopen(path, RTLD_NOW);
	require(library != NULL, "the library is loaded");
	place = dlsym(library, name);
	require(place != NULL, "the library has its function");
	memcpy(&keeps, &place, sizeof(place));
	keeps(size);
	say("{\"function\": \"%s\", \"bytes\": %d, \"count\": 10}\n", name, 10 * size);
}

static void next_step(void)
{
	if (!at_once) {
		say("end\n");
		wait_line();
	}
}

static void unload(const char *path)
{
	require(dlclose(library) == 0, "the library is unloaded");
	require(dlopen(path, RTLD_NOW | RTLD_NOLOAD) == NULL, "the library is gone");
}

int main(int argc, char **argv)
{
	require(argc > 2, "two libraries are given");
	at_once = argc > 3;
	say("ready\n");
	wait_line();
	use(argv[1], "first_keeps", 111);
	next_step();
	unload(argv[1]);
	next_step();
	use(argv[2], "second_keeps", 222);
	next_step();
	unload(argv[2]);
	say("end\n");
	wait_line();
	return 0;
}
