/*
 * follow_loads FIRST SECOND WHEN: two children of one process, both without exec, so that all lies at the same addresses
 * in both. One loads the library FIRST and calls its first_keeps(), the other SECOND and second_keeps(). WHEN is "in_turn",
 * when the second child is made after the first one's end, or "at_once": both are there, each calls its library when
 * both have loaded theirs. With "later" behind, the parent then loads SECOND, and holds 10 blocks of 333 bytes.
 * Answer: what each kept, and where in memory its function was: at the same address.
 */
#include "talk.c"
#include <dlfcn.h>
#include <stdint.h>
#include <string.h>
#include <sys/wait.h>

static int loaded[2], go[2];

NOINLINE static void use(const char *path, const char *name, int size, int together)
{
	void *library = dlopen(path, RTLD_NOW), *place;
	void (*keeps)(int);
	char byte = 1;

	require(library != NULL, "the library is loaded");
	place = dlsym(library, name);
	require(place != NULL, "the library has its function");
	memcpy(&keeps, &place, sizeof(place));
	if (together)
		require(write(loaded[1], &byte, 1) == 1 && read(go[0], &byte, 1) == 1, "it may go on");
	keeps(size);
	say("{\"pid\": %d, \"function\": \"%s\", \"bytes\": %d, \"count\": 10, \"address\": %lu}\n", getpid(), name, 10 * size,
	    (unsigned long)(uintptr_t)place);
}

int main(int argc, char **argv)
{
	const char *names[] = {"first_keeps", "second_keeps"};
	int together = argc > 3 && !strcmp(argv[3], "at_once"), status;
	pid_t made[2];
	char byte;

	require(argc > 3 && !pipe(loaded) && !pipe(go), "two libraries are given");
	for (int i = 0; i < 2; i++) {
		made[i] = fork();
		if (made[i] == 0) {
			use(argv[1 + i], names[i], 111 * (i + 1), together);
			_exit(0);
		}
		if (!together)
			require(waitpid(made[i], &status, 0) == made[i] && status == 0, "a child ends well");
	}
	if (together) {
		for (int i = 0; i < 2; i++)
			require(read(loaded[0], &byte, 1) == 1, "a child is ready");
		require(write(go[1], "go", 2) == 2, "both may go on");
		for (int i = 0; i < 2; i++)
			require(waitpid(made[i], &status, 0) == made[i] && status == 0, "a child ends well");
	}
	if (argc > 4)
		use(argv[2], names[1], 333, 0);
	return 0;
}
