/*
 * execs PROGRAM: loses nothing itself, runs `leaks` as a child by fork and exec, and passes on its exit code.
 * Answer: 120 bytes in 3 blocks at make_ring.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "block.h"

int main(int argc, char **argv)
{
	void *before = use(malloc(1000));
	int status = 0;
	pid_t child;

	if (argc != 2)
		return 98;
	child = fork();
	if (child == 0) {
		execl(argv[1], argv[1], (char *)NULL);
		_exit(97);
	}
	free(before);
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 99;
	return WEXITSTATUS(status);
}
