/*
 * live_first: allocates as early as a program can, and ends. Answer: one block each of 2222 bytes by the constructor of
 * a global object (in Early), of 3333 in the first line of main, and of 1111 by the library it is linked with, if any.
 */
#include <cstdlib>

struct Early {
	void *volatile block;
	__attribute__((noinline, noclone)) Early() { block = malloc(2222); }
};
static Early early;
static void *volatile block;

int main()
{
	block = malloc(3333);
	return early.block && block ? 0 : 1;
}
