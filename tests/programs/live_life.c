/*
 * live_life STEPS [PROGRAM ...]: at each step, keeps three blocks of 1000 bytes and frees one of 500; after the last one,
 * becomes PROGRAM (exec) if there is one, else ends. As PROGRAM, "again STEPS" is this program with blocks of 77 bytes.
 * Answer: what the step kept, by function.
 */
#include "talk.c"
#include <string.h>

static void *volatile block;

NOINLINE static void old_keeps(void)
{
	for (int i = 0; i < 3; i++)
		block = malloc(1000);
}

NOINLINE static void new_keeps(void)
{
	for (int i = 0; i < 3; i++)
		block = malloc(77);
}

NOINLINE static void frees(void)
{
	block = malloc(500);
	free(block);
}

int main(int argc, char **argv)
{
	int again = argc > 1 && !strcmp(argv[1], "again");
	int steps = argc > 1 + again ? atoi(argv[1 + again]) : 1;

	say("ready\n");
	for (int step = 0; step < steps; step++) {
		wait_line();
		if (again)
			new_keeps();
		else
			old_keeps();
		frees();
		say("{\"function\": \"%s\", \"bytes\": %d, \"count\": 3, \"allocated_bytes\": %d, \"allocated_count\": 3, "
		    "\"freed_count\": 0}\nend\n", again ? "new_keeps" : "old_keeps", again ? 231 : 3000,
		    again ? 231 : 3000);
	}
	wait_line();
	if (!again && argc > 2) {
		execv(argv[2], argv + 2);
		require(0, "the other program is executed");
	}
	return 0;
}
