/*
 * run_steps STEPS: at each line of its input keeps one block of 1000 bytes; ends with the last step, or its input.
 * Answer: keeps_one() holds 1000 * STEPS bytes.
 */
#include "talk.c"

static void *volatile block;

NOINLINE static void keeps_one(void)
{
	block = malloc(1000);
}

int main(int argc, char **argv)
{
	int steps = argc > 1 ? atoi(argv[1]) : 1;

	keeps_one();
	say("ready\n");
	for (int step = 1; step < steps; step++) {
		wait_line();
		keeps_one();
	}
	return 0;
}
