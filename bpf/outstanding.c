/*
 * The table of live blocks. A kernel hash map costs a lock and an allocation per block; most blocks are instead in an
 * array of buckets that Python reads as memory, claimed with compare-and-swap. A full bucket's blocks go to the hash map.
 */

/* Where a record was found, to remove it. */
struct record_place {
	struct block_bucket *bucket;
	u64 *key; /* NULL: in the overflow map */
};

static __always_inline struct block_bucket *bucket_of(u64 key)
{
#ifdef ATOMICS
	u64 spread = key * SPREAD >> 32;
	u32 index = spread * BLOCK_BUCKETS >> 32;

	return blocks.lookup(&index);
#else
	return NULL;
#endif
}

static __always_inline struct outstanding *record_find(u64 key, struct record_place *place)
{
#ifdef ATOMICS
	struct block_bucket *bucket = bucket_of(key);
	u32 i;

	if (!bucket)
		return NULL;
	place->bucket = bucket;
#ifdef KERNEL
	/* Without branches: where many are looked for in a loop, the verifier would follow each way through it. */
	u64 found = 0;

#pragma unroll
	for (i = 0; i < BLOCKS_PER_BUCKET; i++) {
		u64 other = bucket->keys[i] ^ key, same = ~(other | -other) >> 63;

		/* 1 or 0; the compiler shall not make a mask of it: newer verifiers follow both values of a mask. */
		asm volatile("" : "+r"(same));
		found += same * (i + 1);
	}
	i = found - 1;
	if (found && i < BLOCKS_PER_BUCKET) {
		place->key = &bucket->keys[i];
		return &bucket->records[i];
	}
#else
#pragma nounroll
	for (i = 0; i < BLOCKS_PER_BUCKET; i++) {
		if (bucket->keys[i] == key) {
			place->key = &bucket->keys[i];
			return &bucket->records[i];
		}
	}
#endif
	if (!bucket->overflowed)
		return NULL;
#endif
	place->key = NULL;
	return overflow.lookup(&key);
}

static __always_inline void record_remove(u64 key, struct record_place *place)
{
	if (place->key) {
		/* Whatever was read of the record, was read before: the place may be another one's from here on. */
		asm volatile("" ::: "memory");
		*place->key = 0;
		return;
	}
	/* Not counted down where another processor was faster. */
	if (!overflow.delete(&key) && place->bucket)
		__sync_fetch_and_add(&place->bucket->overflowed, -1);
}

/* Adds a record whose key is not in the table; returns 0, or not if there is no room. */
static __always_inline int record_add(u64 key, struct outstanding *record, struct record_place *place)
{
#ifdef ATOMICS
	struct block_bucket *bucket = place->bucket;
	u32 i;

	if (!bucket)
		return 1;
	/* The key last: whoever finds it finds the whole record (x86-64 keeps stores in order, the barrier the compiler). */
#pragma nounroll
	for (i = 0; i < BLOCKS_PER_BUCKET; i++) {
		if (bucket->keys[i] || __sync_val_compare_and_swap(&bucket->keys[i], 0, 1))
			continue;
		bucket->records[i] = *record;
		asm volatile("" ::: "memory");
		bucket->keys[i] = key;
		return 0;
	}
	if (overflow.insert(&key, record))
		return 1;
	__sync_fetch_and_add(&bucket->overflowed, 1);
	return 0;
#else
	return overflow.insert(&key, record);
#endif
}
