/*
 * plugin.so: an allocator that a program loads while it runs. The same functions under two kinds of names: those of
 * malloc with a prefix (my_malloc, my_calloc, my_realloc, my_free), and names of nobody else (region_get, region_put).
 * The memory is its own; nothing of it is used twice.
 */
#include <stddef.h>
#include <string.h>

static char memory[1 << 22] __attribute__((aligned(64)));
static size_t used;

/* In front of each block is its size. */
static void *get(size_t size)
{
	char *block = memory + used + 16;

	if (size > sizeof(memory) - used - 32)
		return NULL;
	*(size_t *)(block - 16) = size;
	used += (size + 31) & ~15ul;
	return block;
}

void *my_malloc(size_t size)
{
	return get(size);
}

void my_free(void *block)
{
	if (block)
		*(char *)block = 0;
}

void *my_calloc(size_t count, size_t size)
{
	void *block = my_malloc(count * size);

	return block ? memset(block, 0, count * size) : NULL;
}

void *my_realloc(void *old, size_t size)
{
	void *block = my_malloc(size);
	size_t had = old ? *(size_t *)((char *)old - 16) : 0;

	if (!block)
		return NULL;
	memcpy(block, old, had < size ? had : size);
	my_free(old);
	return block;
}

/* The result goes where the second argument says, as posix_memalign() does it. */
int region_get(size_t size, void **result)
{
	void *block = get(size);

	if (!block)
		return -1;
	*result = block;
	return 0;
}

void region_put(int reason, void *block)
{
	*(char *)block = (char)reason;
}
