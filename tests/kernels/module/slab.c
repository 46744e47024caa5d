/* Memory from the slab allocator. Each way to allocate is a function of its own, so that stacks name it. */
#include "leaky.h"

static struct kmem_cache *cache;

/* So that the cache is not merged with others of its size: a flag where there is one, a constructor before. */
#define CACHE_NAME "leaky_cache"
#define CACHE_OBJECT 328
#define BULK 32

static OWN_FRAME void *leaky_kmalloc(size_t size)
{
	return kmalloc(size, GFP_KERNEL);
}

static OWN_FRAME void *leaky_kmalloc_atomic(size_t size)
{
	return kmalloc(size, GFP_ATOMIC);
}

static OWN_FRAME void *leaky_kzalloc_node(size_t size)
{
	return kzalloc_node(size, GFP_KERNEL, numa_node_id());
}

static OWN_FRAME void *leaky_cache_alloc(size_t size)
{
	return kmem_cache_alloc(cache, GFP_KERNEL);
}

static OWN_FRAME bool leaky_cache_bulk(size_t count, void **objects)
{
	return kmem_cache_alloc_bulk(cache, GFP_KERNEL, count, objects);
}

static OWN_FRAME void *leaky_before_krealloc(size_t size)
{
	return kmalloc(size, GFP_KERNEL);
}

static OWN_FRAME void *leaky_krealloc(void *block, size_t size)
{
	return krealloc(block, size, GFP_KERNEL);
}

static OWN_FRAME void leaky_kfree(void *at, size_t size)
{
	kfree(at);
}

static OWN_FRAME void leaky_cache_free(void *at, size_t size)
{
	kmem_cache_free(cache, at);
}

static OWN_FRAME void leaky_kfree_bulk(size_t count, void **at)
{
	kfree_bulk(count, at);
}

static OWN_FRAME void leaky_cache_free_bulk(size_t count, void **at)
{
	kmem_cache_free_bulk(cache, count, at);
}

static size_t slab_taken(void *at, size_t size)
{
	return ksize(at);
}

static size_t cache_requested(void *at, size_t size)
{
	return CACHE_OBJECT;
}

#define KMALLOCED                                                                                       \
	.release = leaky_kfree, .taken = slab_taken, .release_many = leaky_kfree_bulk, .rcu = true,     \
	.interrupts = true
#define CACHED                                                                                          \
	.release = leaky_cache_free, .taken = slab_taken, .requested = cache_requested,                 \
	.release_many = leaky_cache_free_bulk, .interrupts = true

enum { MOVED = 3, STAYED, CACHE_BULK = 6 };
struct leaky_kind leaky_slab_kinds[] = {
	{ .name = "kmalloc", .make = leaky_kmalloc, KMALLOCED },
	{ .name = "kmalloc_atomic", .make = leaky_kmalloc_atomic, KMALLOCED },
	{ .name = "kzalloc_node", .make = leaky_kzalloc_node, KMALLOCED },
	[MOVED] = { .name = "krealloc_moved", KMALLOCED },
	[STAYED] = { .name = "krealloc_stayed", KMALLOCED },
	{ .name = "cache", .make = leaky_cache_alloc, CACHED },
	[CACHE_BULK] = { .name = "cache_bulk", CACHED },
	{}
};

/* krealloc COUNT BEFORE AFTER: a block that moved is leaky_krealloc's, one that stayed leaky_before_krealloc's. */
static int obey_krealloc(unsigned long count, unsigned long before, unsigned long after)
{
	for (; count; count--) {
		void *old = leaky_before_krealloc(before), *new;
		int error;

		if (!old)
			return -ENOMEM;
		new = leaky_krealloc(old, after);
		if (!new) {
			kfree(old);
			return -ENOMEM;
		}
		error = leaky_hold(&leaky_slab_kinds[new == old ? STAYED : MOVED], new, after);
		if (error)
			return error;
	}
	return 0;
}

/* cache_bulk COUNT: so many objects, several at a time. */
static int obey_cache_bulk(unsigned long count, unsigned long first, unsigned long second)
{
	void *objects[BULK];

	while (count) {
		size_t part = min_t(unsigned long, count, BULK), at;
		int error = 0;

		if (!leaky_cache_bulk(part, objects))
			return -ENOMEM;
		for (at = 0; at < part; at++)
			error = leaky_hold(&leaky_slab_kinds[CACHE_BULK], objects[at], CACHE_OBJECT) ?: error;
		if (error)
			return error;
		count -= part;
	}
	return 0;
}

const struct leaky_command leaky_slab_commands[] = {
	{ "krealloc", obey_krealloc },
	{ "cache_bulk", obey_cache_bulk },
	{}
};

#ifdef SLAB_NO_MERGE
#define CACHE_FLAGS SLAB_NO_MERGE
#define construct NULL
#else
#define CACHE_FLAGS 0
static void construct(void *object)
{
}
#endif

int leaky_slab_begin(void)
{
	cache = kmem_cache_create(CACHE_NAME, CACHE_OBJECT, 0, CACHE_FLAGS, construct);
	return cache ? 0 : -ENOMEM;
}

void leaky_slab_end(void)
{
	kmem_cache_destroy(cache);
}
