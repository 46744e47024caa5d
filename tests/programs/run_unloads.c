/*
 * run_unloads LIBRARY: loads the library of run_unloads_library.c, has it lose 3 blocks of 50 bytes, and unloads it at
 * once; four times. Answer: 600 bytes in 12 blocks at lose_from_library.
 */
#include <dlfcn.h>
#include <stdlib.h>

int main(int argc, char **argv)
{
	for (int i = 0; i < 4; i++) {
		void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
		void (*lose)(void) = library ? (void (*)(void))dlsym(library, "lose_from_library") : NULL;

		if (!lose)
			return 99;
		lose();
		dlclose(library);
	}
	return 0;
}
