/*
 * symbols_loads: loads the library that its first argument names before it is ready. Answer: 3002 bytes from the
 * library's function put_away(), called by ask().
 */
#include "talk.c"

#include <dlfcn.h>

NOINLINE static void ask(void (*put_away)(size_t))
{
	put_away(3002);
	say("{\"bytes\": 3002}\n");
}

int main(int argc, char **argv)
{
	void *library = argc > 1 ? dlopen(argv[1], RTLD_NOW) : NULL;
	void (*put_away)(size_t) = NULL;

	require(library != NULL, "the library can be loaded");
	*(void **)&put_away = dlsym(library, "put_away");
	require(put_away != NULL, "the library has put_away");
	say("ready\n");
	wait_line();
	ask(put_away);
	say("end\n");
	wait_line();
	return 0;
}
