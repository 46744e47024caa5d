/* Memory per processor, and areas of addresses: vmalloc, vmap. */

#ifdef PERCPU_POINTER
static __always_inline void percpu_allocated(void *ctx, u64 key, u64 pointer, u64 requested, u64 taken, u64 gfp)
{
	struct kernel_site about = {.source = SOURCE_PERCPU, .point = POINT_PERCPU_ALLOC, .gfp = gfp, .node = ANY_NODE};

	requested *= PROCESSORS;
	if (taken < requested)
		taken = requested;
	if (pointer)
		allocated(ctx, key, taken, taken - requested, &about);
}

PROGRAMS(percpu_alloc_percpu, POINT_PERCPU_ALLOC, KERNEL_KEY(SOURCE_PERCPU, ctx->at[PERCPU_POINTER]),
	 percpu_allocated(ctx, key, ctx->at[PERCPU_POINTER], GIVEN(ctx, PERCPU_REQUESTED), GIVEN(ctx, PERCPU_SIZE),
			  GIVEN(ctx, PERCPU_GFP)))
PROGRAMS(percpu_free_percpu, POINT_PERCPU_FREE, KERNEL_KEY(SOURCE_PERCPU, ctx->at[2]), freed(key))
#endif

static __always_inline void area_allocated(void *ctx, u64 key, u64 requested, u64 taken, u64 gfp)
{
	struct kernel_site about = {.source = SOURCE_VMALLOC, .point = POINT_VMALLOC, .gfp = gfp, .node = ANY_NODE};

	allocated(ctx, key, taken, taken - requested, &about);
}

/* Areas end with a page that nothing is mapped to. */
#define GUARD 4096
#define WHOLE_PAGES(size) (((size) + 4095) & ~4095ULL)
#ifdef VMAP_TRACEPOINTS
PROGRAMS(alloc_vmap_area, POINT_VMALLOC, KERNEL_KEY(SOURCE_VMALLOC, ctx->at[0]),
	 if (!ctx->at[5] && ctx->at[1] > GUARD) area_allocated(ctx, key, ctx->at[1] - GUARD, ctx->at[1] - GUARD, 0))
PROGRAMS(free_vmap_area_noflush, POINT_VFREE, KERNEL_KEY(SOURCE_VMALLOC, ctx->at[0]), freed(key))
#endif
#ifdef AREA_RETURN
/* Where the area of a struct vmap_area begins; 0 of an error in its place. */
static __always_inline u64 area_start(u64 area)
{
	u64 start = 0;

	bpf_probe_read_kernel(&start, sizeof(start), (void *)(area + AREA_START));
	return start;
}

static __always_inline void area_made(void *ctx, u64 key, u64 area, u64 size, u64 gfp)
{
	if (area_start(area) && size > GUARD)
		area_allocated(ctx, key, size - GUARD, size - GUARD, gfp);
}

/* struct vmap_area *alloc_vmap_area(size, ...), at its return; free_vmap_area_noflush(area) */
PROGRAMS(area_returned, POINT_VMALLOC, KERNEL_KEY(SOURCE_VMALLOC, area_start(ctx->at[AREA_RETURN])),
	 area_made(ctx, key, ctx->at[AREA_RETURN], ctx->at[0], ctx->at[AREA_GFP]))
PROGRAMS(area_freed, POINT_VFREE, KERNEL_KEY(SOURCE_VMALLOC, area_start(ctx->at[0])), freed(key))
#endif
#ifdef VMALLOC_RETURN
#ifdef AREA_SIZES
/* How much an area really takes: where it is made of large pages, more than whole pages of what was asked for. */
int area_size(struct arguments *ctx)
{
	u64 start = ctx->at[0], size = ctx->at[1] - GUARD;

	if (!ctx->at[5] && ctx->at[1] > GUARD)
		area_sizes.update(&start, &size);
	return 0;
}
#endif

static __always_inline void vmalloc_returned(void *ctx, u64 key, u64 start, u64 requested, u64 gfp)
{
	u64 taken = WHOLE_PAGES(requested);

	if (!start)
		return;
#ifdef AREA_SIZES
	u64 *known = area_sizes.lookup(&start);

	if (known && *known > taken)
		taken = *known;
#endif
	area_allocated(ctx, key, requested, taken, gfp);
}

/* void *__vmalloc_node_range(size, ...), at its return; vfree(address) */
PROGRAMS(vmalloc_return, POINT_VMALLOC, KERNEL_KEY(SOURCE_VMALLOC, ctx->at[VMALLOC_RETURN]),
	 vmalloc_returned(ctx, key, ctx->at[VMALLOC_RETURN], ctx->at[0], ctx->at[VMALLOC_GFP]))
PROGRAMS(vfree_enter, POINT_VFREE, KERNEL_KEY(SOURCE_VMALLOC, ENTRY_ARGUMENT(VFREE_BY_KPROBE, ctx, 0)),
	 freed(key))
#endif
