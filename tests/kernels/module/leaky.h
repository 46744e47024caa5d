/* What the parts of the module share: a kind of memory is a row, and every block of it that is held is known. */
#ifndef LEAKY_H
#define LEAKY_H

#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/slab.h>
#include <linux/types.h>
#include <linux/version.h>

/* A function of its own in every stack: neither inlined, nor cloned, nor merged with one that looks the same. */
#define OWN_FRAME noinline __attribute__((noclone, no_icf))

/* Blocks of one kind that can be held at a time. */
#define LEAKY_MOST 16384

#ifndef in_hardirq
#define in_hardirq in_irq
#endif

/* Where the kernel has one name for it or another, it is asked for the newer one. */
#ifdef alloc_pages_bulk
#define LEAKY_PAGES_BULK(count, pages) alloc_pages_bulk(GFP_KERNEL, count, pages)
#elif LINUX_VERSION_CODE >= KERNEL_VERSION(5, 13, 0)
#define LEAKY_PAGES_BULK(count, pages) alloc_pages_bulk_array(GFP_KERNEL, count, pages)
#endif

struct leaky_block {
	void *at;
	size_t size;	  /* as the function that makes it was told: bytes, or an order of pages */
	size_t requested; /* bytes */
	size_t taken;	  /* bytes: the memory that is really gone */
};

struct leaky_kind {
	const char *name;
	void *(*make)(size_t size);		   /* NULL where a command of its own makes them */
	void (*release)(void *at, size_t size);
	size_t (*taken)(void *at, size_t size);	   /* bytes that one takes */
	size_t (*requested)(void *at, size_t size); /* bytes that were asked for; NULL: the size */
	void (*release_many)(size_t count, void **at); /* NULL where such memory is given back one by one only */
	bool rcu;				   /* kfree_rcu() may free it */
	bool interrupts;			   /* interrupts may free it */
	unsigned long count, allocated;
	struct leaky_block *blocks;
};

/* Remember one more; an error if there is no room, and then it is freed at once. */
int leaky_hold(struct leaky_kind *kind, void *at, size_t size);

/* Forget the newest block of a kind and return it. */
struct leaky_block leaky_take(struct leaky_kind *kind);

/* Commands that are more than "make COUNT of them": arguments are numbers, at most three. */
struct leaky_command {
	const char *name;
	int (*obey)(unsigned long count, unsigned long first, unsigned long second);
};

extern struct leaky_kind leaky_slab_kinds[], leaky_page_kinds[], leaky_area_kinds[];
extern const struct leaky_command leaky_slab_commands[], leaky_page_commands[];

int leaky_slab_begin(void);
void leaky_slab_end(void);

/* Free the newest blocks of a kind in another context. */
int leaky_free(struct leaky_kind *kind, unsigned long count, const char *context);
/* How many blocks were freed in a soft, in a hard interrupt: said by the kernel while it was done. */
extern unsigned long leaky_freed_softirq, leaky_freed_hardirq;

#endif
