/*
 * forks: a child that never calls exec loses 4 blocks; its parent loses none, and passes on the child's exit code.
 * Answer: 100 bytes in 4 blocks at child_work.
 */
#include <sys/wait.h>
#include <unistd.h>

#include "block.h"

NOINLINE static void child_work(void)
{
	for (int i = 0; i < 4; i++)
		use(malloc(25));
}

int main(void)
{
	void *before = use(malloc(1000));
	int status = 0;
	pid_t child = fork();

	free(before);
	if (child == 0) {
		child_work();
		other_work();
		return 0;
	}
	if (child < 0 || waitpid(child, &status, 0) != child)
		return 99;
	return WEXITSTATUS(status);
}
