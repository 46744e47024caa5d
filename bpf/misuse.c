/*
 * --check-frees: blocks that are freed by the wrong function, twice, or that no allocator gave.
 *
 * No block may be accused wrongly. So one free counts of those that call one another (operator delete[] jumps to
 * operator delete, which jumps to free), and none that an allocator makes for its own work.
 */

#ifdef CHECK_FREES

/* As in tracer/attach/allocators.py. */
enum family {
	FAMILY_MALLOC = 1,
	FAMILY_NEW,
	FAMILY_NEW_ARRAY,
	FAMILY_JEMALLOC_X, /* its blocks and malloc's are the same to either (jemalloc(3)) */
	FAMILY_REALLOC = 7,
};

/* A free works no further down the stack than this. */
#define FREE_REACH 4096

/* Is the function whose entry found this stack pointer and this return address still at work? */
static __always_inline int is_at_work(struct image *image, u64 sp, u64 returns_to)
{
	u64 there = 0;

	READ_USER(&there, sizeof(there), sp);
	return there == returns_to || is_trampoline(image, there);
}

static __always_inline void forget_freeing(struct in_flight *flight)
{
	flight->freeing.sp = 0;
}

static __always_inline void note_return_address(struct call *call, u64 ip)
{
	call->ip = ip;
	call->returns_to = 0;
	if (PROBE_FLAGS(call->probe) & PROBE_THROWS)
		READ_USER(&call->returns_to, sizeof(call->returns_to), call->sp);
}

/*
 * operator new[] jumps to operator new: then it is the older one that allocates, though no trampoline shows it. The same
 * function once more, at the same place of the stack, is a loop that came by again after an exception.
 */
static __always_inline int is_tail_of_thrower(struct in_flight *flight, u64 probe, u64 ip, u64 sp)
{
	u64 returns_to = 0;
	u32 i, found = 0;

	if (!(PROBE_FLAGS(probe) & PROBE_THROWS))
		return 0;
	READ_USER(&returns_to, sizeof(returns_to), sp);
#pragma nounroll
	for (i = 0; i < MAX_NESTING; i++)
		if (i < flight->level && flight->calls[i].sp == sp && flight->calls[i].ip != ip &&
		    flight->calls[i].returns_to == returns_to)
			found = 1;
	return found;
}

/* Is this free of a block without a record the work of another one that has not returned, which took the record? */
static __always_inline int is_part_of_free(struct in_flight *flight, struct image *image, u64 address, u64 ip, u64 sp)
{
	u64 above = flight->freeing.sp - sp;

	/* The same function does not call itself: it was called again, perhaps from the same place. */
	if (!flight->freeing.sp || flight->freeing.ip == ip || above >= FREE_REACH)
		return 0;
	/* A jump from its end; with another address, it is one place that calls now one function, now another. */
	if (!above && flight->freeing.address != address)
		return 0;
	return is_at_work(image, flight->freeing.sp, flight->freeing.returns_to);
}

/* Is it the work of an allocation that has not returned (realloc)? */
static __always_inline int is_part_of_allocation(struct in_flight *flight, struct image *image, u64 sp)
{
	u32 top = flight->level - 1;

	return top < MAX_NESTING && flight->calls[top].sp > sp &&
	       is_at_work(image, flight->calls[top].sp, flight->calls[top].returns_to);
}

/* Returns whether the stack is of the allocator's own work, as Python has found. */
static __always_inline u64 set_origin(struct origin *origin, u32 index)
{
	struct site *site = sites.lookup(&index);

	origin->site = index;
	origin->began = index && site ? site->first_ns : 0;
	return index && site ? site->own_work : 0;
}

/* What is compared; 0 is never wrong: the user's own functions, and addresses that several families share. */
static __always_inline u32 compared(u32 family)
{
	if (family == FAMILY_JEMALLOC_X)
		return FAMILY_MALLOC;
	return family < FAMILY_JEMALLOC_X ? family : 0;
}

static __always_inline u32 freed_by(u64 probe)
{
	return PROBE_ACTION(probe) == ACTION_REALLOCATE ? FAMILY_REALLOC : PROBE_FAMILY(probe);
}

/* Counts a misuse, and tells of the first: Python looks at its stacks while they are there. */
static __always_inline void count_misuse(struct misuse *what, u32 slot)
{
	u64 one = 1, *count = misuses.lookup(what);
	struct misuse_event *event;

	if (!count && misuses.insert(what, &one)) {
		/* Another processor was faster. */
		count = misuses.lookup(what);
		if (!count) {
			lose(LOSS_MISUSES_FULL, 0);
			return;
		}
	}
	if (count) {
		__sync_fetch_and_add(count, 1);
		return;
	}
	event = ring.ringbuf_reserve(sizeof(struct misuse_event));
	if (!event)
		/* No harm: it is in the table, and found there at the next report. */
		return;
	event->head.kind = EVENT_MISUSE;
	event->head.slot = slot;
	event->head.tid = bpf_get_current_pid_tgid();
	event->head.image = what->image;
	event->head.ns = bpf_ktime_get_ns();
	event->what = *what;
	ring.ringbuf_submit(event, 0);
}

/* What is wrong with freeing a block of this family (0: of no record). */
static __always_inline u32 misuse_of(u64 probe, struct image *image, u64 key, u32 family)
{
	u32 gave, takes = compared(PROBE_FAMILY(probe));
	struct freed_block *freed;

	if (family) {
		gave = compared(family);
		return gave && takes && gave != takes && image->checks & CHECK_FAMILIES ? MISUSE_MISMATCH : 0;
	}
	freed = freed_place(key);
	if (!freed || !(PROBE_FLAGS(probe) & PROBE_CLOSED))
		return 0;
	/* The whole number, because of the key's part of it others may have the same. */
	if (freed->key == key && freed->image == image->number)
		return image->checks & CHECK_DOUBLE ? MISUSE_DOUBLE : 0;
	return image->checks & CHECK_UNKNOWN ? MISUSE_UNKNOWN : 0;
}

/* Notes what is being freed; returns its family, 0 if it has no record. */
static __always_inline u32 look_at_block(struct in_flight *flight, u64 key)
{
	struct record_place place = {};
	struct outstanding *block = record_find(key, &place);

	/* Into memory: the verifier would follow the rest once for each place where it may be. */
	flight->freeing.family = block ? block->family : 0;
	flight->freeing.site = block ? block->site : 0;
	return *(volatile u32 *)&flight->freeing.family;
}

/* Notes what is wrong, and whether the block is kept as freed; returns whether either is so. */
static __always_inline int judge_free(struct in_flight *flight, u64 probe, struct image *image, u64 key, u32 family)
{
	flight->freeing.kind = misuse_of(probe, image, key, family);
	flight->freeing.stays = family && PROBE_FLAGS(probe) & PROBE_CLOSED;
	return *(volatile u32 *)&flight->freeing.kind | *(volatile u32 *)&flight->freeing.stays;
}

/* Notes the block as freed by whom it was, until its address is given out again. */
static __always_inline void keep_freed(struct misuse *what, u64 key)
{
	struct freed_block *freed = freed_place(key);

	if (!freed)
		return;
	/* Two processors may write the same place: then it is of neither until one is done. */
	freed->key = 0;
	asm volatile("" ::: "memory");
	freed->image = what->image;
	freed->families = what->allocated_by | (u32)what->freed_by << 8;
	freed->allocated = what->allocated;
	freed->freed = what->freed;
	asm volatile("" ::: "memory");
	freed->key = key;
}

/* At the entry of a function that frees, before it does, and before the block's record goes. */
static __always_inline void check_free(struct pt_regs *ctx, u64 probe, struct image *image, struct in_flight *flight,
				       u64 address)
{
	u64 sp = ctx->sp, key = BLOCK_KEY(address, image->number);
	struct unwind_regs caller = { .sp = sp + sizeof(caller.pc), .bp = ctx->bp };
	struct freed_block *freed;
	struct misuse what = {};
	u32 family;

	if (READ_USER(&caller.pc, sizeof(caller.pc), sp))
		return;
	family = look_at_block(flight, key);
	if ((!family && is_part_of_free(flight, image, address, ctx->ip, sp)) || is_part_of_allocation(flight, image, sp))
		return;
	flight->freeing.sp = sp;
	flight->freeing.returns_to = caller.pc;
	flight->freeing.address = address;
	flight->freeing.ip = ctx->ip;
	if (!judge_free(flight, probe, image, key, family))
		return;
	if (set_origin(&what.freed, site_of(&caller, PROBE_SLOT(probe), image, flight, 0, 0)))
		return;
	set_origin(&what.allocated, flight->freeing.site);
	what.image = image->number;
	what.kind = flight->freeing.kind;
	what.allocated_by = flight->freeing.family;
	what.freed_by = freed_by(probe);
	if (flight->freeing.stays)
		keep_freed(&what, key);
	freed = what.kind == MISUSE_DOUBLE ? freed_place(key) : NULL;
	if (freed) {
		what.allocated_by = freed->families;
		what.freed_before_by = freed->families >> 8;
		what.allocated = freed->allocated;
		what.freed_before = freed->freed;
	}
	if (what.kind)
		count_misuse(&what, PROBE_SLOT(probe));
}

/* The same for a function that does nothing but free. */
static __always_inline void check_one(struct pt_regs *ctx, u64 probe, struct image *image, u64 address)
{
	u32 tid = bpf_get_current_pid_tgid();
	struct in_flight *flight = in_flight.lookup(&tid);

	if (!flight)
		flight = new_thread(tid);
	if (!flight)
		return;
	if (flight->image != image->number) {
		flight->image = image->number;
		flight->level = 0;
		forget_freeing(flight);
	}
	check_free(ctx, probe, image, flight, address);
}

#else
#define forget_freeing(flight)
#define note_return_address(call, ip)
#define is_tail_of_thrower(flight, probe, ip, sp) 0
#define check_free(ctx, probe, image, flight, address)
#define check_one(ctx, probe, image, address)
#endif
