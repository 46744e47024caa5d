/*
 * loads PLUGIN: loads the library of plugin.c in its first step, and allocates with it in its second. Answer: what each
 * by_...() function got from it and what of it was freed.
 */
#include "talk.c"
#include <dlfcn.h>
#include <stdint.h>

enum { ROUNDS = 100 };

struct tally {
	const char *name;
	uint64_t bytes, count, allocated_bytes, allocated_count, freed_count;
};

static struct tally malloc_tally = { "by_my_malloc", 0, 0, 0, 0, 0 };
static struct tally calloc_tally = { "by_my_calloc", 0, 0, 0, 0, 0 };
static struct tally realloc_tally = { "by_my_realloc", 0, 0, 0, 0, 0 };
static struct tally region_tally = { "by_region_get", 0, 0, 0, 0, 0 };

static void *(*my_malloc)(size_t);
static void *(*my_calloc)(size_t, size_t);
static void *(*my_realloc)(void *, size_t);
static void (*my_free)(void *);
static int (*region_get)(size_t, void **);
static void (*region_put)(int, void *);

static void born(struct tally *tally, size_t size)
{
	tally->bytes += size;
	tally->count++;
	tally->allocated_bytes += size;
	tally->allocated_count++;
}

static void died(struct tally *tally, size_t size)
{
	tally->bytes -= size;
	tally->count--;
	tally->freed_count++;
}

NOINLINE static void *by_my_malloc(size_t size)
{
	void *block = my_malloc(size);

	born(&malloc_tally, size);
	return block;
}

NOINLINE static void by_my_calloc(size_t size)
{
	require(my_calloc(2, size) != NULL, "my_calloc gives memory");
	born(&calloc_tally, 2 * size);
}

NOINLINE static void by_my_realloc(void *block, size_t old, size_t size)
{
	require(my_realloc(block, size) != NULL, "my_realloc gives memory");
	died(&malloc_tally, old);
	born(&realloc_tally, size);
}

NOINLINE static void *by_region_get(size_t size)
{
	void *block = NULL;

	require(region_get(size, &block) == 0, "region_get gives memory");
	born(&region_tally, size);
	return block;
}

static void *find(void *library, const char *name)
{
	void *function = dlsym(library, name);

	require(function != NULL, name);
	return function;
}

static void load(const char *path)
{
	void *library = dlopen(path, RTLD_NOW);

	require(library != NULL, "the plugin loads");
	my_malloc = find(library, "my_malloc");
	my_calloc = find(library, "my_calloc");
	my_realloc = find(library, "my_realloc");
	my_free = find(library, "my_free");
	region_get = find(library, "region_get");
	region_put = find(library, "region_put");
}

static void tell(const struct tally *tally)
{
	say("{\"function\": \"%s\", \"bytes\": %lu, \"count\": %lu, \"allocated_bytes\": %lu, \"allocated_count\": %lu, "
	    "\"freed_count\": %lu}\n",
	    tally->name, tally->bytes, tally->count, tally->allocated_bytes, tally->allocated_count, tally->freed_count);
}

int main(int argc, char **argv)
{
	require(argc == 2, "loads PLUGIN");
	say("ready\n");
	wait_line();
	load(argv[1]);
	say("end\n");
	wait_line();
	for (int round = 0; round < ROUNDS; round++) {
		size_t size = 100 + round;
		void *block = by_my_malloc(size), *region = by_region_get(2 * size);

		by_my_calloc(size);
		if (round % 4 == 0) {
			my_free(block);
			died(&malloc_tally, size);
			region_put(round, region);
			died(&region_tally, 2 * size);
		} else if (round % 4 == 1) {
			by_my_realloc(block, size, 3 * size);
		}
	}
	require(region_get((size_t)1 << 40, (void **)&my_malloc) != 0, "region_get fails");
	tell(&malloc_tally);
	tell(&calloc_tally);
	tell(&realloc_tally);
	tell(&region_tally);
	say("end\n");
	wait_line();
	return 0;
}
