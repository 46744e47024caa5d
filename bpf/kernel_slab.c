/* Slab objects: kmalloc, kmem_cache_alloc, their frees, and those that many at a time or RCU free. */

/* An argument that this kernel does not give has no number. */
#define GIVEN(ctx, number) ((number) < 12 ? (ctx)->at[(number) < 12 ? (number) : 0] : 0)

static __always_inline void slab_allocated(void *ctx, u32 point, u64 key, u64 object, u64 requested, u64 size, u64 cache,
					   u64 gfp, s32 node)
{
	struct kernel_site about = {.source = SOURCE_SLAB, .point = point, .gfp = gfp, .cache = cache, .node = node};
	u32 bytes;

	/* 16 stands for nothing of size 0 (ZERO_SIZE_PTR). */
	if (object <= 16)
		return;
#ifdef CACHE_SIZE
	if (!size && cache) {
		bpf_probe_read_kernel(&bytes, sizeof(bytes), (void *)(cache + CACHE_SIZE));
		size = bytes;
		bpf_probe_read_kernel(&bytes, sizeof(bytes), (void *)(cache + CACHE_OBJECT_SIZE));
		requested = bytes;
	}
#endif
	/* Without a cache of its own, it is the size that tells sites apart. */
	about.order = cache ? 0 : size;
	allocated(ctx, key, size, size > requested ? size - requested : 0, &about);
}

#define SLAB_PROGRAMS(name, point, NAME)                                                                             \
	PROGRAMS(name, point, SLAB_KEY(ctx->at[1]),                                                                  \
		 slab_allocated(ctx, point, key, ctx->at[1], GIVEN(ctx, NAME##_REQUESTED), GIVEN(ctx, NAME##_SIZE),  \
				GIVEN(ctx, NAME##_CACHE), GIVEN(ctx, NAME##_GFP),                                    \
				NAME##_NODE < 12 ? (s32)GIVEN(ctx, NAME##_NODE) : ANY_NODE))

#ifdef KMALLOC_GFP
SLAB_PROGRAMS(kmalloc, POINT_KMALLOC, KMALLOC)
#endif
#ifdef KMALLOC_NODE_GFP
SLAB_PROGRAMS(kmalloc_node, POINT_KMALLOC_NODE, KMALLOC_NODE)
#endif
#ifdef KMEM_CACHE_ALLOC_GFP
SLAB_PROGRAMS(kmem_cache_alloc, POINT_CACHE_ALLOC, KMEM_CACHE_ALLOC)
#endif
#ifdef KMEM_CACHE_ALLOC_NODE_GFP
SLAB_PROGRAMS(kmem_cache_alloc_node, POINT_CACHE_ALLOC_NODE, KMEM_CACHE_ALLOC_NODE)
#endif
PROGRAMS(kfree, POINT_KFREE, SLAB_KEY(ctx->at[1]), freed(key))
PROGRAMS(kmem_cache_free, POINT_CACHE_FREE, SLAB_KEY(ctx->at[1]), freed(key))

/* Objects that are freed many at a time pass no tracepoint. The network gives back 32 at most. */
#define BULK 64
static __always_inline void bulk_freed(u64 cache, u64 count, u64 objects)
{
	u32 i;

#pragma nounroll
	for (i = 0; i < BULK; i++) {
		u64 object = 0;

		if (i >= count || bpf_probe_read_kernel(&object, sizeof(object), (void *)(objects + i * 8)))
			return;
		freed(SLAB_KEY(object));
	}
	/* Those without a cache were given to kvfree_call_rcu() before. */
	if (cache)
		lose(LOSS_BULK, 0);
}
#ifdef FUNCTIONS
/* kmem_cache_free_bulk(cache, count, objects) */
#define BULK_ARGUMENT(ctx, number) ENTRY_ARGUMENT(CACHE_FREE_BULK_BY_KPROBE, ctx, number)
PROGRAMS(cache_free_bulk, POINT_CACHE_FREE_BULK, BULK_ARGUMENT(ctx, 2),
	 bulk_freed(BULK_ARGUMENT(ctx, 0), BULK_ARGUMENT(ctx, 1), key))

/* kvfree_call_rcu(): the object is freed when nobody can read it any more. */
static __always_inline u64 object_for_rcu(void *ctx)
{
	u64 head = ENTRY_ARGUMENT(KFREE_RCU_BY_KPROBE, ctx, 0), object = ENTRY_ARGUMENT(KFREE_RCU_BY_KPROBE, ctx, 1);

#ifdef RCU_OFFSET
	/* Before 6.4 it is given how far into the object the head lies, and the object only where there is no head. */
	if (head)
		return head - object;
#endif
	return object;
}
PROGRAMS(kvfree_call_rcu, POINT_KFREE_RCU, SLAB_KEY(object_for_rcu(ctx)), freed(key))
#endif
