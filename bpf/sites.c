/* What traces of programs and of the kernel share: losses, rules by return address, free sites, who it is. */

/* Spreads the bits of an address over all 64 (2^64 / golden ratio, Knuth, TAOCP 6.4). */
#define SPREAD 0x9E3779B97F4A7C15ULL

/*
 * New sites come one by one from the cursor on, until it meets some that live long; then from anywhere, and on from
 * there. More tries than this would find the table full, or nearly.
 */
#define CLAIM_TRIES 16

static __always_inline void lose(u32 kind, u64 bytes)
{
	struct loss_count *loss = losses.lookup(&kind);

	if (loss) {
		__sync_fetch_and_add(&loss->count, 1);
		/* The compiler makes an atomic OR of an addition of 0, which kernels before 5.12 do not have. */
		if (bytes)
			__sync_fetch_and_add(&loss->bytes, bytes);
	}
}

static __always_inline u64 rule_in(struct rule_bucket *bucket, u64 key)
{
	return (bucket->rules[0] & mask_of_zero(bucket->keys[0] ^ key)) |
	       (bucket->rules[1] & mask_of_zero(bucket->keys[1] ^ key)) |
	       (bucket->rules[2] & mask_of_zero(bucket->keys[2] ^ key)) |
	       (bucket->rules[3] & mask_of_zero(bucket->keys[3] ^ key));
}

static __always_inline u64 rule_of(u64 key)
{
	u32 index = (key * SPREAD) >> (64 - RULE_BUCKET_BITS);
	struct rule_bucket *bucket = rules.lookup(&index);
	u64 rule;

	if (!bucket)
		return 0;
	rule = rule_in(bucket, key);
	if (rule)
		return rule;
	/* Python puts what does not fit into the neighbour. */
	index ^= 1;
	bucket = rules.lookup(&index);
	return bucket ? rule_in(bucket, key) : 0;
}

static __always_inline u32 claim_site(void)
{
	u32 zero = 0, one = 1;
	u64 *next = cursor.lookup(&zero);
	u32 i;

	if (!next)
		return 0;
#pragma nounroll
	for (i = 0; i < 2 * CLAIM_TRIES; i++) {
		u64 at = i < CLAIM_TRIES ? *next + i : bpf_get_prandom_u32();
		/* Site 0 is where blocks go that have no site of their own. */
		u32 index = 1 + at % (MAX_SITES - 1);

		if (!claimed.insert(&index, &one)) {
			*next = index;
			return index;
		}
	}
	*next += CLAIM_TRIES;
	return 0;
}

/*
 * A new site is the one of its stack from now on. Returns the other one that a faster processor made, and gives this one
 * back; where the table is busy for too long, this one stays alone, and the next of that stack tries again.
 */
static __always_inline u32 share_site(u64 id, u32 index)
{
	u32 *known;

	if (!site_of_stack.insert(&id, &index))
		return index;
	known = site_of_stack.lookup(&id);
	if (!known)
		return index;
	claimed.delete(&index);
	return *known;
}

/* The current process by its id as leaktrace itself sees it; 0 if that is not known. */
static __always_inline u32 current_process(void)
{
#ifdef PID_NAMESPACE_INODE
	/* leaktrace is in a container, and so far the kernel tells of processes of that very namespace only. */
	struct bpf_pidns_info task = {};

	if (bpf_get_ns_current_pid_tgid(PID_NAMESPACE_DEVICE, PID_NAMESPACE_INODE, &task, sizeof(task)))
		return 0;
	return task.tgid;
#else
	return bpf_get_current_pid_tgid() >> 32;
#endif
}
