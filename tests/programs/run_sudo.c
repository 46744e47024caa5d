/*
 * sudo UID GID NAME PROGRAM [ARGUMENT ...]: what sudo(8) is to the program that it runs: its parent, named sudo, with the
 * environment of the user who called it; the program has an environment of its own, with SUDO_UID and so on.
 * Answer: the program's exit code.
 */
#include "talk.c"
#include <string.h>
#include <sys/wait.h>

int main(int argc, char **argv)
{
	static const char *const kept[] = {"PATH", "PYTHONPATH"};
	const char *values[2];
	int status = 0;

	require(argc > 4, "a user and a program are given");
	pid_t child = fork();
	require(child >= 0, "a process can be made");
	if (child == 0) {
		for (int i = 0; i < 2; i++)
			values[i] = getenv(kept[i]) ? strdup(getenv(kept[i])) : NULL;
		clearenv();
		for (int i = 0; i < 2; i++)
			if (values[i])
				setenv(kept[i], values[i], 1);
		setenv("HOME", "/root", 1);
		setenv("SUDO_UID", argv[1], 1);
		setenv("SUDO_GID", argv[2], 1);
		setenv("SUDO_USER", argv[3], 1);
		execvp(argv[4], argv + 4);
		_exit(127);
	}
	waitpid(child, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
