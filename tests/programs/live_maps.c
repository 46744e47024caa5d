/*
 * live_maps FILE...: maps files as if they held code (PROT_EXEC), whatever is in them; then, at each step, keeps two
 * blocks of 4321 bytes. Answer: what keeps() has kept in that step.
 */
#include "talk.c"
#include <fcntl.h>
#include <sys/mman.h>

static void *volatile block;

NOINLINE static void keeps(void)
{
	block = malloc(4321);
	block = malloc(4321);
}

int main(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		int fd = open(argv[i], O_RDONLY);

		require(fd >= 0, "the file can be opened");
		require(mmap(NULL, 1 << 16, PROT_READ | PROT_EXEC, MAP_PRIVATE, fd, 0) != MAP_FAILED, "it can be mapped");
	}
	say("ready\n");
	for (;;) {
		wait_line();
		keeps();
		say("{\"function\": \"keeps\", \"bytes\": 8642, \"count\": 2}\nend\n");
	}
}
