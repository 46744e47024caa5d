/*
 * Truth: no leak: 15 users a second log in and each stays 10 s, so that about 150 are there.
 */
#include "traffic.h"

#define USERS 400

static struct { void *state; long leaves; } users[USERS];

NOINLINE static void *log_in(void)
{
	return filled(malloc(3000), 3000);
}

static void work(long step)
{
	for (int slot = 0; slot < USERS; slot++)
		if (users[slot].state && users[slot].leaves <= step) {
			free(users[slot].state);
			users[slot].state = NULL;
		}
	if (chance(100) >= 15)
		return;
	for (int slot = 0; slot < USERS; slot++)
		if (!users[slot].state) {
			users[slot].state = log_in();
			users[slot].leaves = step + 900 + chance(200);
			return;
		}
}

int main(int count, char **words)
{
	return run(count, words, work);
}
