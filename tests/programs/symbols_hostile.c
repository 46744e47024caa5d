/*
 * symbols_hostile: a function whose name the test overwrites in the file, in the symbol table and the DWARF.
 * Answer: 3005 bytes from hostile_XXXX_name(), called by main().
 */
#include "talk.c"

static void *volatile block;

NOINLINE void hostile_XXXX_name(void)
{
	block = malloc(3005);
	say("{\"bytes\": 3005}\n");
}

int main(void)
{
	say("ready\n");
	wait_line();
	hostile_XXXX_name();
	say("end\n");
	wait_line();
	return 0;
}
