/* Memory per processor, areas of virtual memory, and what is one of these or of the slab by its size. */
#include <linux/percpu.h>
#include <linux/vmalloc.h>
#include "leaky.h"

static OWN_FRAME void *leaky_percpu(size_t size)
{
	return (void __force *)__alloc_percpu(size, 8);
}

static OWN_FRAME void *leaky_vmalloc(size_t size)
{
	return vmalloc(size);
}

static OWN_FRAME void *leaky_vzalloc(size_t size)
{
	return vzalloc(size);
}

static OWN_FRAME void *leaky_kvmalloc(size_t size)
{
	return kvmalloc(size, GFP_KERNEL);
}

static OWN_FRAME void leaky_free_percpu(void *at, size_t size)
{
	free_percpu((void __percpu __force *)at);
}

static OWN_FRAME void leaky_vfree(void *at, size_t size)
{
	vfree(at);
}

static OWN_FRAME void leaky_kvfree(void *at, size_t size)
{
	kvfree(at);
}

static size_t percpu_bytes(void *at, size_t size)
{
	return size * num_possible_cpus();
}

/* Large areas may be made of huge pages, the last one whole: so it is the mapped pages that are counted. */
static size_t area_taken(void *at, size_t size)
{
	size_t taken = 0;

	if (!is_vmalloc_addr(at))
		return ksize(at);
	while (vmalloc_to_page(at + taken))
		taken += PAGE_SIZE;
	return taken;
}

struct leaky_kind leaky_area_kinds[] = {
	{ .name = "percpu", .make = leaky_percpu, .release = leaky_free_percpu, .taken = percpu_bytes,
	  .requested = percpu_bytes, .interrupts = true },
	{ .name = "vmalloc", .make = leaky_vmalloc, .release = leaky_vfree, .taken = area_taken },
	{ .name = "vzalloc", .make = leaky_vzalloc, .release = leaky_vfree, .taken = area_taken },
	{ .name = "kvmalloc", .make = leaky_kvmalloc, .release = leaky_kvfree, .taken = area_taken },
	{}
};
