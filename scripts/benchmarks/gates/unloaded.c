/*
 * unloaded LIBRARY: loads a library, lets it lose 7 blocks, and unloads it, so that its code is gone at the end.
 * Answer: 350 bytes in 7 blocks at plugin_work.
 */
#include <dlfcn.h>

#include "block.h"

int main(int argc, char **argv)
{
	void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	void (*work)(void) = library ? (void (*)(void))dlsym(library, "plugin_work") : NULL;

	if (!work)
		return 99;
	work();
	return dlclose(library);
}
