/* birth() and death() of anything that can leak. Every source calls these two. */

/* Records that stand for this many bytes or more are counted in units of 2^32 square bytes, or sums would overflow. */
#define LARGE_RECORD (1ULL << 24)
#define LARGE_UNIT 16

/*
 * The variance that a record brings into an estimate of bytes, (weight - 1) * weight * size^2: it stands for weight
 * blocks, one surely, the rest by chance. Written as total^2 * (weight - 1) / weight, it overflows last.
 */
static __always_inline u64 variance_of(u64 total, u64 weight)
{
	if (weight < 2)
		return 0;
	if (total >= LARGE_RECORD)
		total = total >> LARGE_UNIT >= 1ULL << 32 ? (1ULL << 32) - 1 : total >> LARGE_UNIT;
	return total * total / weight * (weight - 1);
}

#ifdef SAMPLING
static __always_inline void count_sample(struct site *site, u64 size, u64 weight, s64 sign)
{
	u64 total = size * weight, variance = variance_of(total, weight) * sign;

	if (total >= LARGE_RECORD)
		__sync_fetch_and_add(&site->large_variance, variance);
	else
		__sync_fetch_and_add(&site->variance, variance);
}
#else
#define count_sample(site, size, weight, sign)
#endif

#ifdef KERNEL
#define TOLD_TWICE_NS 1000000

/* What is not used of a site's blocks. */
static __always_inline void count_waste(struct outstanding *record, s64 sign)
{
	u32 index = record->site;
	struct kernel_site *site = kernel_sites.lookup(&index);

	if (site && record->extra)
		__sync_fetch_and_add(&site->wasted_bytes, record->extra * sign);
}

static __always_inline void count_unseen(struct outstanding *record)
{
	u32 index = record->site;
	struct kernel_site *site = kernel_sites.lookup(&index);

	if (site)
		__sync_fetch_and_add(&site->unseen_frees, 1);
}
#else
#define count_waste(record, sign)
#define count_unseen(record)
#endif

/* The power of two of an age, from LIFETIME_SHIFT on. By arithmetic: the verifier would follow 32 ways through branches. */
static __always_inline u32 lifetime_bucket(u64 ns)
{
	u64 bucket, step;

	ns >>= LIFETIME_SHIFT;
	if (ns >> 32)
		return LIFETIME_BUCKETS - 1;
	/* The sign of what is left says whether the upper half holds anything. */
	bucket = (0xffffULL - ns) >> 63 << 4;
	ns >>= bucket;
	step = (0xffULL - ns) >> 63 << 3;
	ns >>= step;
	bucket += step;
	step = (0xfULL - ns) >> 63 << 2;
	ns >>= step;
	bucket += step;
	step = (3ULL - ns) >> 63 << 1;
	ns >>= step;
	return bucket + step + (ns >> 1);
}

#ifdef TRACE_EVENTS
static __always_inline void trace(u32 kind, u32 slot, u32 image, u64 address, u64 size, u32 site)
{
	struct trace_event *event = ring.ringbuf_reserve(sizeof(struct trace_event));

	if (!event) {
		lose(LOSS_EVENT, 0);
		return;
	}
	event->head.kind = kind;
	event->head.slot = slot;
	event->head.tid = bpf_get_current_pid_tgid();
	event->head.image = image;
	event->head.ns = bpf_ktime_get_ns();
	event->address = address;
	event->size = size;
	event->site = site;
	ring.ringbuf_submit(event, 0);
}
#else
#define trace(kind, slot, image, address, size, site)
#endif

/* Counts a death; the caller removes or replaces the record. */
static __always_inline void death(struct outstanding *record)
{
	u32 index = record->site;
	u64 weight = WEIGHT(record);
	struct site *site = sites.lookup(&index);
	u32 bucket = lifetime_bucket(bpf_ktime_get_ns() - record->born_ns);

	if (!site)
		return;
	__sync_fetch_and_add(&site->freed_bytes, record->size * weight);
	__sync_fetch_and_add(&site->freed_count, weight);
	__sync_fetch_and_add(&site->lifetimes[bucket & (LIFETIME_BUCKETS - 1)], weight);
	count_sample(site, record->size, weight, -1);
	count_waste(record, -1);
}

#ifdef CHECK_FREES
/* Where the block of a key is or would be among those that were freed. */
static __always_inline struct freed_block *freed_place(u64 key)
{
	u32 index = (key * SPREAD) >> (64 - FREED_BITS);

	return freed_blocks.lookup(&index);
}

/* The address is in use again. */
static __always_inline void forget_freed(u64 key)
{
	struct freed_block *freed = freed_place(key);

	if (freed && freed->key == key)
		freed->key = 0;
}

/* A birth of this slot went unseen: a block without a record may be one that an allocator gave, or gave again. */
static __always_inline void distrust(u32 slot)
{
	struct image *image = images.lookup(&slot);

	if (image)
		image->checks &= CHECK_FAMILIES;
}
#else
#define forget_freed(key)
#define distrust(slot)
#endif

static __always_inline void birth(u64 key, struct outstanding *record)
{
	u32 index = record->site;
	u64 weight = WEIGHT(record), bytes = record->size * weight;
	struct site *site = sites.lookup(&index);
	struct record_place place = {};
	struct outstanding *old;

	forget_freed(key);
	if (!site)
		return;
	old = record_find(key, &place);
#ifdef KERNEL
	/* Some kernels tell of a kmalloc from pages twice. */
	if (old && old->size == record->size && old->process == record->process &&
	    record->born_ns - old->born_ns < TOLD_TWICE_NS)
		return;
#endif
	if (old) {
		/* The allocator gave an address out that is still on record: its free went unseen. */
		lose(LOSS_MISSED_FREE, old->size);
		count_unseen(old);
		death(old);
		*old = *record;
	} else if (record_add(key, record, &place)) {
		lose(LOSS_OUTSTANDING_FULL, bytes);
		/* Numbers of images are their slots and multiples of MAX_SLOTS. */
		distrust((key >> 48) % MAX_SLOTS);
		return;
	}
	__sync_fetch_and_add(&site->allocated_bytes, bytes);
	__sync_fetch_and_add(&site->allocated_count, weight);
	count_sample(site, record->size, weight, 1);
	count_waste(record, 1);
}

/* Takes a birth back: it turned out to be part of another one. */
static __always_inline void unbirth(u64 key)
{
	struct record_place place = {};
	struct outstanding *record = record_find(key, &place);
	struct site *site;
	u64 weight;
	u32 index;

	if (!record)
		return;
	index = record->site;
	weight = WEIGHT(record);
	site = sites.lookup(&index);
	if (site) {
		__sync_fetch_and_add(&site->allocated_bytes, -(record->size * weight));
		__sync_fetch_and_add(&site->allocated_count, -weight);
		count_sample(site, record->size, weight, -1);
	}
	record_remove(key, &place);
}

/* Puts the record of a block back that had been taken out: it lives on. */
static __always_inline void restore(u64 key, struct outstanding *record)
{
	struct record_place place = {};

	forget_freed(key);
	if (record_find(key, &place))
		return;
	if (record_add(key, record, &place)) {
		lose(LOSS_OUTSTANDING_FULL, record->size * WEIGHT(record));
		distrust((key >> 48) % MAX_SLOTS);
		death(record);
	}
}
