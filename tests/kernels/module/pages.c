/* Whole pages: blocks of an order freed whole or, once split, page by page; and pages given many at a time. */
#include "leaky.h"

#define BULK 64

static OWN_FRAME void *leaky_pages(size_t order)
{
	return alloc_pages(GFP_KERNEL, order);
}

static OWN_FRAME void *leaky_get_free_pages(size_t order)
{
	return (void *)__get_free_pages(GFP_KERNEL, order);
}

static OWN_FRAME void *leaky_split_pages(size_t order)
{
	struct page *pages = alloc_pages(GFP_KERNEL, order);

	if (pages)
		split_page(pages, order);
	return pages;
}

static OWN_FRAME void leaky_free_pages(void *at, size_t order)
{
	__free_pages(at, order);
}

static OWN_FRAME void leaky_free_by_address(void *at, size_t order)
{
	free_pages((unsigned long)at, order);
}

static OWN_FRAME void leaky_free_singly(void *at, size_t pages)
{
	struct page *page = at;

	while (pages--)
		__free_page(page++);
}

static size_t order_bytes(void *at, size_t order)
{
	return PAGE_SIZE << order;
}

static size_t pages_bytes(void *at, size_t pages)
{
	return pages * PAGE_SIZE;
}

enum { SPLIT = 2, BULK_PAGES };
struct leaky_kind leaky_page_kinds[] = {
	{ .name = "pages", .make = leaky_pages, .release = leaky_free_pages, .taken = order_bytes,
	  .requested = order_bytes, .interrupts = true },
	{ .name = "get_free_pages", .make = leaky_get_free_pages, .release = leaky_free_by_address,
	  .taken = order_bytes, .requested = order_bytes, .interrupts = true },
	[SPLIT] = { .name = "split", .release = leaky_free_singly, .taken = pages_bytes, .requested = pages_bytes,
		    .interrupts = true },
	[BULK_PAGES] = { .name = "pages_bulk", .release = leaky_free_singly, .taken = pages_bytes,
			 .requested = pages_bytes, .interrupts = true },
	{}
};

/* split COUNT ORDER KEEP: of each block the last KEEP pages stay. */
static int obey_split(unsigned long count, unsigned long order, unsigned long keep)
{
	if (order > 9 || keep > 1UL << order || keep == 0)
		return -EINVAL;
	for (; count; count--) {
		struct page *pages = leaky_split_pages(order);
		size_t rest = (1UL << order) - keep;
		int error;

		if (!pages)
			return -ENOMEM;
		leaky_free_singly(pages, rest);
		error = leaky_hold(&leaky_page_kinds[SPLIT], pages + rest, keep);
		if (error)
			return error;
	}
	return 0;
}

#ifdef LEAKY_PAGES_BULK
static OWN_FRAME unsigned long leaky_pages_bulk(unsigned long count, struct page **pages)
{
	return LEAKY_PAGES_BULK(count, pages);
}

/* pages_bulk COUNT: so many pages, several at a time, to be freed one by one. */
static int obey_pages_bulk(unsigned long count, unsigned long first, unsigned long second)
{
	while (count) {
		struct page *pages[BULK] = {};
		unsigned long given = leaky_pages_bulk(min_t(unsigned long, count, BULK), pages), at;
		int error = 0;

		if (!given)
			return -ENOMEM;
		for (at = 0; at < given; at++)
			error = leaky_hold(&leaky_page_kinds[BULK_PAGES], pages[at], 1) ?: error;
		if (error)
			return error;
		count -= given;
	}
	return 0;
}
#endif

const struct leaky_command leaky_page_commands[] = {
	{ "split", obey_split },
#ifdef LEAKY_PAGES_BULK
	{ "pages_bulk", obey_pages_bulk },
#endif
	{}
};
