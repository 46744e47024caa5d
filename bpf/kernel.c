/*
 * Programs at the kernel's own tracepoints of memory, and at functions of it where the kernel can trace those.
 *
 * While a program runs, an interrupt may come to the same point: the kernel (6.1 and newer) then skips the program. So
 * each point has two. The first notes the event that it sees; the second, which comes right behind it, acts where the
 * first one did not. Interrupts nest like brackets, so each finds its own note.
 */

/* What a program is given: a tracepoint's or a function's arguments. Which is which, Python finds out (ARGUMENT_...). */
struct arguments {
	u64 at[12];
};

static __always_inline struct kernel_cpu *this_cpu(void)
{
	u32 zero = 0;

	return kernel_cpus.lookup(&zero);
}

static __always_inline struct kernel_config *configured(void)
{
	u32 zero = 0;

	return kernel_config.lookup(&zero);
}

static __always_inline void note(struct kernel_cpu *cpu, u32 point, u64 key)
{
	u32 i;

#pragma unroll
	for (i = 0; i < NESTING - 1; i++) {
		if (!cpu->seen[point][i]) {
			cpu->seen[point][i] = key;
			return;
		}
	}
	/* Notes that were never taken, since a second program can be skipped too, give way. */
	cpu->seen[point][key >> 6 & (NESTING - 1)] = key;
}

/* Whether the first program of a point saw this event; its note is taken. */
static __always_inline int was_seen(struct kernel_cpu *cpu, u32 point, u64 key)
{
	u32 i;

#pragma unroll
	for (i = 0; i < NESTING; i++) {
		if (cpu->seen[point][i] == key) {
			cpu->seen[point][i] = 0;
			return 1;
		}
	}
	return 0;
}

/* Of what is no memory, such as kfree(NULL): no key, but no empty note either. */
#define NO_KEY 1

/*
 * The two programs of a point: action is what they do with what key names. The macro's own arguments are ctx, the
 * program's, and key.
 */
#define PROGRAMS(name, point, expression, action)                    \
	int name(struct arguments *ctx)                              \
	{                                                            \
		u64 key = (expression) ?: NO_KEY;                    \
		struct kernel_cpu *cpu = this_cpu();                 \
		if (!cpu)                                            \
			return 0;                                    \
		note(cpu, point, key);                               \
		action;                                              \
		return 0;                                            \
	}                                                            \
	int name##_again(struct arguments *ctx)                      \
	{                                                            \
		u64 key = (expression) ?: NO_KEY;                    \
		struct kernel_cpu *cpu = this_cpu();                 \
		if (cpu && !was_seen(cpu, point, key)) {             \
			__sync_fetch_and_add(&cpu->again, 1);        \
			action;                                      \
		}                                                    \
		return 0;                                            \
	}

static __always_inline int is_wanted(struct kernel_config *config)
{
#if defined(WANTED_PROCESSES) || defined(PID_NAMESPACE_INODE)
	u32 process = current_process();
#else
	u32 process = bpf_get_current_pid_tgid() >> 32;
#endif
	if (process == config->own)
		return 0;
#ifdef WANTED_PROCESSES
	if (!wanted_processes.lookup(&process))
		return 0;
#endif
#ifdef WANTED_GROUPS
	{
		struct wanted_group *group;
		u32 i;

#pragma nounroll
		for (i = 0; i < WANTED_GROUPS; i++) {
			/* A copy: the verifier does not count what lies in memory. */
			u32 index = i;

			group = wanted_groups.lookup(&index);
			if (group && group->used && bpf_get_current_ancestor_cgroup_id(group->level) == group->id)
				return 1;
		}
		return 0;
	}
#endif
	return 1;
}

static __always_inline struct kernel_scratch *take_scratch(u64 bytes)
{
	u32 i;

#pragma nounroll
	for (i = 0; i < NESTING; i++) {
		u32 index = i;
		struct kernel_scratch *scratch = kernel_scratch.lookup(&index);

		if (!scratch || scratch->busy)
			continue;
#ifdef ATOMICS
		if (__sync_val_compare_and_swap(&scratch->busy, 0, 1))
			continue;
#else
		scratch->busy = 1;
#endif
		return scratch;
	}
	lose(LOSS_NESTED, bytes);
	return NULL;
}

/* Of NUMA, in 16 bits (NUMA_NO_NODE). */
#define ANY_NODE 0xffff

/* Returns whether it was recorded. */
static __always_inline int allocated(void *ctx, u64 key, u64 size, u64 extra, struct kernel_site *about)
{
	struct kernel_config *config = configured();
	struct kernel_scratch *scratch;
	struct outstanding record = {};

	if (!config || !is_wanted(config))
		return 0;
#ifdef MIN_SIZE
	if (size < MIN_SIZE)
		return 0;
#endif
#ifdef MAX_SIZE
	if (size > MAX_SIZE)
		return 0;
#endif
	scratch = take_scratch(size);
	if (!scratch)
		return 0;
	if (about->node == ANY_NODE)
		about->node = bpf_get_numa_node_id();
	record.site = kernel_site_of(ctx, scratch, config, about, size);
	scratch->busy = 0;
	record.born_ns = bpf_ktime_get_ns();
	record.size = size;
	record.extra = extra;
	record.process = bpf_get_current_pid_tgid() >> 32;
	birth(key, &record);
	return 1;
}

static __always_inline void freed(u64 key)
{
	struct record_place place = {};
	struct outstanding *record = record_find(key, &place);

	if (!record)
		return;
	death(record);
	record_remove(key, &place);
}

/* ---- functions ---- */

#if defined(FUNCTIONS) || defined(VMALLOC_RETURN)
/* bpf_get_func_arg(): also of arguments that programs may not read themselves, pointers to pointers and to functions. */
static long (*argument_of)(void *ctx, u32 number, u64 *value) = (void *)183;

static __always_inline u64 function_argument(void *ctx, u32 number)
{
	u64 value = 0;

	argument_of(ctx, number, &value);
	return value;
}
#endif

/* ---- slab ---- */

/* An argument that this kernel does not give has no number. */
#define GIVEN(ctx, number) ((number) < 12 ? (ctx)->at[(number) < 12 ? (number) : 0] : 0)

static __always_inline void slab_allocated(void *ctx, u32 point, u64 object, u64 requested, u64 size, u64 cache, u64 gfp,
					   s32 node)
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
	allocated(ctx, object, size, size > requested ? size - requested : 0, &about);
}

#define SLAB_PROGRAMS(name, point, NAME)                                                                             \
	PROGRAMS(name, point, ctx->at[1],                                                                            \
		 slab_allocated(ctx, point, key, GIVEN(ctx, NAME##_REQUESTED), GIVEN(ctx, NAME##_SIZE),              \
				GIVEN(ctx, NAME##_CACHE), GIVEN(ctx, NAME##_GFP),                    \
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
PROGRAMS(kfree, POINT_KFREE, ctx->at[1], freed(key))
PROGRAMS(kmem_cache_free, POINT_CACHE_FREE, ctx->at[1], freed(key))

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
		freed(object);
	}
	/* Those without a cache were given to kvfree_call_rcu() before. */
	if (cache)
		lose(LOSS_BULK, 0);
}
#ifdef FUNCTIONS
/* kmem_cache_free_bulk(cache, count, objects) */
PROGRAMS(cache_free_bulk, POINT_CACHE_FREE_BULK, function_argument(ctx, 2),
	 bulk_freed(function_argument(ctx, 0), function_argument(ctx, 1), key))

/* kvfree_call_rcu(): the object is freed when nobody can read it any more. */
static __always_inline u64 object_for_rcu(void *ctx)
{
	u64 head = function_argument(ctx, 0), object = function_argument(ctx, 1);

#ifdef RCU_OFFSET
	/* Before 6.4 it is given how far into the object the head lies, and the object only where there is no head. */
	if (head)
		return head - object;
#endif
	return object;
}
PROGRAMS(kvfree_call_rcu, POINT_KFREE_RCU, object_for_rcu(ctx), freed(key))
#endif

/* ---- pages ---- */

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
	u64 bytes = PAGE_BYTES << (order & 31), key = 0;
	struct outstanding *record = NULL;
	struct record_place place = {};
	struct site *site;
	u32 i, index;

#pragma nounroll
	for (i = 0; i < MAX_ORDER; i++) {
		u32 power = i;
		u64 *count = orders.lookup(&power);

		/* Of single pages there are always some. */
		if (i < order || !count || (i && !*count))
			continue;
		key = PAGES_KEY(number, power);
		record = record_find(key, &place);
		if (record)
			break;
	}
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

/* ---- memory per processor ---- */

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

/* ---- vmalloc ---- */

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

/* void *__vmalloc_node_range(size, ...) or __vmalloc_node(size, ...), at its return; vfree(address) */
PROGRAMS(vmalloc_return, POINT_VMALLOC, KERNEL_KEY(SOURCE_VMALLOC, ctx->at[VMALLOC_RETURN]),
	 vmalloc_returned(ctx, key, ctx->at[VMALLOC_RETURN], ctx->at[0], ctx->at[VMALLOC_GFP]))
PROGRAMS(vfree_enter, POINT_VFREE, KERNEL_KEY(SOURCE_VMALLOC, function_argument(ctx, 0)), freed(key))
#endif

/* ---- processes ---- */

/* Who has allocated is said by name when it may be long gone. */
int process_exit(struct arguments *ctx)
{
	u64 task = bpf_get_current_pid_tgid();
	u32 process = task >> 32;
	struct process_name name = {};

	if (process != (u32)task)
		return 0;
	bpf_get_current_comm(&name, sizeof(name));
	process_names.update(&process, &name);
	return 0;
}

/* Run once, by leaktrace itself: who it is to the kernel. */
int know_yourself(struct arguments *ctx)
{
	struct kernel_config *config = configured();

	if (config)
		config->own = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
