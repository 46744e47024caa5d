/*
 * symbols_debug: one block through inlined calls. Answer: 3001 bytes from shelve(), in which store() and in that stack()
 * are inlined, called by main_step(), that by main(); each with the line that is marked here.
 * -DOTHER makes the same code under other names: whoever reads it by mistake shows names that begin with other_.
 */
#include "talk.c"

#ifdef OTHER
#define shelve other_shelve
#define store other_store
#define stack other_stack
#define main_step other_main_step
#endif

static void *volatile block;

__attribute__((always_inline)) static inline void stack(size_t size)
{
	block = malloc(size); /* line: stack */
}

__attribute__((always_inline)) static inline void store(size_t size)
{
	stack(size); /* line: store */
}

NOINLINE static void shelve(size_t size)
{
	store(size); /* line: shelve */
	say("{\"bytes\": %zu}\n", size);
}

NOINLINE static void main_step(size_t size)
{
	shelve(size); /* line: main_step */
	say("end\n");
}

int main()
{
	say("ready\n");
	wait_line();
	main_step(3001); /* line: main */
	wait_line();
	return 0;
}
