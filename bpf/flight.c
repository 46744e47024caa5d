/* Allocator calls from their entry to their return, per thread. */

/* The key of a block: user addresses have 47 bits, so the image number fits above them. */
#define BLOCK_KEY(address, image) ((address) | IMAGE_KEY(image))

/* From an entry: spare me the return. Only a session listens. */
#define NO_RETURN 1

/* Did the kernel put this return address there, to come by when the function returns? */
static __always_inline int is_trampoline(struct image *image, u64 address)
{
	if (image->trampoline)
		return address == image->trampoline;
	/* Until Python has read where it is: the kernel maps it as high as possible (xol_add_vma() in uprobes.c). */
	return address >= 0x7fffffff0000ULL;
}

/* The first allocation of a thread; NULL where there is no room for it, or the table is busy for too long. */
static __always_inline struct in_flight *new_thread(u32 tid)
{
	u32 zero = 0;
	struct in_flight *none = no_flight.lookup(&zero);

	if (!none)
		return NULL;
	in_flight.update(&tid, none);
	return in_flight.lookup(&tid);
}

/* A call that a longjmp or an exception ended without a return: the old block of a realloc is taken to live on. */
static __always_inline void abandon(struct call *call, struct image *image)
{
	if (call->old.born_ns)
		restore(BLOCK_KEY(call->pointer, image->number), &call->old);
}

/* Drops the calls that cannot be under way any more: a call from here, or from further out, has taken their place. */
static __always_inline void drop_ended(struct in_flight *flight, struct image *image, u64 sp)
{
	u32 i, level;

#pragma nounroll
	for (i = 0; i < MAX_NESTING; i++) {
		level = flight->level - 1;
		if (level >= MAX_NESTING || flight->calls[level].sp > sp)
			return;
		abandon(&flight->calls[level], image);
		flight->level = level;
	}
}

/* Is this a jump from the end of a call that is under way? Then they return together, and the older one counts. */
static __always_inline int is_tail_call(struct in_flight *flight, struct image *image, u64 sp)
{
	u64 returns_to = 0;
	u32 i, found = 0;

#pragma nounroll
	for (i = 0; i < MAX_NESTING; i++)
		if (i < flight->level && flight->calls[i].sp == sp)
			found = 1;
	if (!found)
		return 0;
	READ_USER(&returns_to, sizeof(returns_to), sp);
	return is_trampoline(image, returns_to);
}

/*
 * Room for one more call. Where calls are under way this one works for them, or they never end (longjmp): only their
 * return tells, so it is followed like any other, and taken back by the outer one if that returns the same block.
 */
static __always_inline struct call *push_call(struct in_flight *flight, u64 sp)
{
	struct call *call;

	if (flight->level >= MAX_NESTING)
		/* So deep no allocator goes: they were abandoned. If not, their returns are counted as lost. */
		flight->level = 0;
	call = &flight->calls[flight->level & (MAX_NESTING - 1)];
	call->sp = sp;
	call->old.born_ns = 0;
	call->inner_key = 0;
	flight->level++;
	return call;
}

/* The call that returns with this stack pointer, taken off the stack with all above it; NULL if it was not seen. */
static __always_inline struct call *pop_call(struct in_flight *flight, u64 sp, int throws)
{
	u32 level = flight->level, i;

#pragma nounroll
	for (i = MAX_NESTING; i > 0; i--) {
		struct call *call = &flight->calls[i - 1];

		if (i > level || call->sp != sp || !(PROBE_FLAGS(call->probe) & PROBE_THROWS) != !throws)
			continue;
		/* Through memory: the verifier would follow the rest once for each place. */
		flight->level = i - 1;
		return &flight->calls[*(volatile u32 *)&flight->level & (MAX_NESTING - 1)];
	}
	return NULL;
}
