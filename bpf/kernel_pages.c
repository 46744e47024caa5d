/* Pages, also those that are given in bulk and freed in parts. */

#ifdef PAGE_STRUCT
#define MAX_ORDER 11
/* Number of a page, counted from one that is aligned to the largest blocks (vmemmap begins so). */
#define PAGE_NUMBER(page) ((page) / PAGE_STRUCT)
#define PAGE_BYTES 4096ULL
/* Of one first page and order there is one block at a time; of one first page there may be several, where parts are free. */
#define PAGES_KEY(number, order) \
	KERNEL_KEY(SOURCE_PAGES, (u64)(order) << 48 | (((number) >> (order) << (order)) & ((1ULL << 48) - 1)))

static __always_inline void count_order(u32 order, s64 more)
{
	u64 *count = orders.lookup(&order);

	if (count)
		__sync_fetch_and_add(count, more);
}

static __always_inline void pages_allocated(void *ctx, u64 key, u64 page, u32 order, u64 gfp)
{
	struct kernel_site about = {.source = SOURCE_PAGES, .point = POINT_PAGE_ALLOC, .gfp = gfp, .order = order, .node = ANY_NODE};

	if (page && allocated(ctx, key, PAGE_BYTES << (order & 31), 0, &about) && order)
		count_order(order, 1);
}

/* A block is freed as it was given, or, where it was given in bulk, in parts: then its size is what is left. */
static __always_inline void pages_freed(u64 number, u32 order)
{
	u64 bytes = PAGE_BYTES << (order & 31), key;
	u32 i, index, found = MAX_ORDER;
	struct outstanding *record;
	struct record_place place = {};
	struct site *site;

#pragma nounroll
	for (i = 0; i < MAX_ORDER; i++) {
		struct record_place nowhere = {};
		u32 power = i;
		u64 *count = orders.lookup(&power);

		/* Of single pages there are always some. */
		if (i < order || !count || (i && !*count))
			continue;
		if (record_find(PAGES_KEY(number, power), &nowhere)) {
			found = power;
			break;
		}
	}
	/* Looked for again: what a loop finds, the verifier would follow through all its rounds. */
	key = PAGES_KEY(number, found & 31);
	record = found < MAX_ORDER ? record_find(key, &place) : NULL;
	if (!record)
		return;
	if (record->size > bytes) {
		index = record->site;
		site = sites.lookup(&index);
		if (site)
			__sync_fetch_and_add(&site->freed_bytes, bytes);
		/* Its size is the lower bits of the second word. */
		__sync_fetch_and_add((u64 *)record + 1, -bytes);
		return;
	}
	if (key << 4 >> 52)
		count_order(key << 4 >> 52, -1);
	death(record);
	record_remove(key, &place);
}

PROGRAMS(mm_page_alloc, POINT_PAGE_ALLOC, PAGES_KEY(PAGE_NUMBER(ctx->at[0]), (u32)ctx->at[1]),
	 pages_allocated(ctx, key, ctx->at[0], ctx->at[1], ctx->at[2]))
PROGRAMS(mm_page_free, POINT_PAGE_FREE, PAGE_NUMBER(ctx->at[0]), pages_freed(key, ctx->at[1]))
#endif
