/* The library of `unloaded`. */
#include "block.h"

void plugin_work(void)
{
	for (int i = 0; i < 7; i++)
		use(malloc(50));
}
