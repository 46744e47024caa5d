/*
 * follow_crowd COUNT: makes COUNT children, all of which live until all have been made; each keeps 1 block of 100
 * + its number bytes in crowd_keeps(), and exits with its number % 100. The parent keeps 1 of 5000 in parent_keeps().
 * Answer: each process prints what it holds; the parent how many did not end as they should.
 */
#include "talk.c"
#include <sys/wait.h>

#define MOST 2000

static void *volatile block;

NOINLINE static void parent_keeps(void)
{
	block = malloc(5000);
}

NOINLINE static void crowd_keeps(int number)
{
	block = malloc(100 + number);
}

int main(int argc, char **argv)
{
	static pid_t made[MOST];
	int count = argc > 1 ? atoi(argv[1]) : 0, wrong = 0, gate[2], status;
	char byte;

	require(count <= MOST && !pipe(gate), "there is room");
	parent_keeps();
	for (int number = 0; number < count; number++) {
		made[number] = fork();
		if (made[number] == 0) {
			close(gate[1]);
			crowd_keeps(number);
			say("{\"pid\": %d, \"bytes\": %d, \"exit_code\": %d}\n", getpid(), 100 + number, number % 100);
			require(read(gate[0], &byte, 1) == 0, "the gate opens");
			_exit(number % 100);
		}
		require(made[number] > 0, "a child is made");
	}
	close(gate[1]);
	for (int number = 0; number < count; number++)
		wrong += waitpid(made[number], &status, 0) != made[number] || !WIFEXITED(status) || WEXITSTATUS(status) != number % 100;
	say("{\"pid\": %d, \"bytes\": 5000, \"exit_code\": 0, \"wrong\": %d}\n", getpid(), wrong);
	return 0;
}
