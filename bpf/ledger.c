/* birth() and death() of anything that can leak. Every source calls these two. */

/* Beyond this a single record would overflow the sum; its estimate is useless anyway. */
#define VARIANCE_LIMIT (1ULL << 52)

/* The variance that one record brings into an estimate: it stands for weight blocks, itself surely, the rest by chance. */
static __always_inline u64 variance_of(u64 size, u64 weight)
{
	u64 variance = (weight - 1) * weight;

	if (size >> 26 || variance >> 52)
		return VARIANCE_LIMIT;
	variance *= size;
	if (variance >> 52)
		return VARIANCE_LIMIT;
	variance *= size;
	return variance > VARIANCE_LIMIT ? VARIANCE_LIMIT : variance;
}

/* The power of two of an age, from LIFETIME_SHIFT on. */
static __always_inline u32 lifetime_bucket(u64 ns)
{
	u32 bucket = 0;

	ns >>= LIFETIME_SHIFT;
	if (ns >> 32)
		return LIFETIME_BUCKETS - 1;
	if (ns >> 16) {
		bucket = 16;
		ns >>= 16;
	}
	if (ns >> 8) {
		bucket += 8;
		ns >>= 8;
	}
	if (ns >> 4) {
		bucket += 4;
		ns >>= 4;
	}
	if (ns >> 2) {
		bucket += 2;
		ns >>= 2;
	}
	return bucket + (ns >> 1);
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
	u64 weight = record->weight;
	struct site *site = sites.lookup(&index);
	u32 bucket = lifetime_bucket(bpf_ktime_get_ns() - record->born_ns);

	if (!site)
		return;
	__sync_fetch_and_add(&site->freed_bytes, record->size * weight);
	__sync_fetch_and_add(&site->freed_count, weight);
	__sync_fetch_and_add(&site->lifetimes[bucket & (LIFETIME_BUCKETS - 1)], weight);
#ifdef SAMPLING
	__sync_fetch_and_add(&site->sampled_deaths, 1);
	__sync_fetch_and_add(&site->variance, -variance_of(record->size, weight));
#endif
}

static __always_inline void birth(u64 key, struct outstanding *record)
{
	u32 index = record->site;
	u64 weight = record->weight, bytes = record->size * weight;
	struct site *site = sites.lookup(&index);
	struct record_place place = {};
	struct outstanding *old;

	if (!site)
		return;
	old = record_find(key, &place);
	if (old) {
		/* The allocator gave an address out that is still on record: its free went unseen. */
		lose(LOSS_MISSED_FREE, old->size);
		death(old);
		*old = *record;
	} else if (record_add(key, record, &place)) {
		lose(LOSS_OUTSTANDING_FULL, bytes);
		return;
	}
	__sync_fetch_and_add(&site->allocated_bytes, bytes);
	__sync_fetch_and_add(&site->allocated_count, weight);
#ifdef SAMPLING
	__sync_fetch_and_add(&site->sampled_births, 1);
	__sync_fetch_and_add(&site->variance, variance_of(record->size, weight));
#endif
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
	weight = record->weight;
	site = sites.lookup(&index);
	if (site) {
		__sync_fetch_and_add(&site->allocated_bytes, -(record->size * weight));
		__sync_fetch_and_add(&site->allocated_count, -weight);
#ifdef SAMPLING
		__sync_fetch_and_add(&site->sampled_births, -1);
		__sync_fetch_and_add(&site->variance, -variance_of(record->size, weight));
#endif
	}
	record_remove(key, &place);
}

/* Puts the record of a block back that had been taken out: it lives on. */
static __always_inline void restore(u64 key, struct outstanding *record)
{
	struct record_place place = {};

	if (record_find(key, &place))
		return;
	if (record_add(key, record, &place)) {
		lose(LOSS_OUTSTANDING_FULL, record->size * record->weight);
		death(record);
	}
}
