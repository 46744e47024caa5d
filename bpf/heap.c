/* The probes of user-space allocators. */

/* The key of a block: user addresses have 47 bits, so the image number fits above them. */
#define BLOCK_KEY(address, image) ((address) | IMAGE_KEY(image))

/* From an entry: spare me the return. Only a session listens. */
#define NO_RETURN 1

/* In assembler, or the compiler merges the loads into one from a computed address, which the verifier refuses. */
#define REGISTER(ctx, name)                                                                                            \
	({                                                                                                             \
		u64 value_;                                                                                            \
		asm volatile("%0 = *(u64 *)(%1 + %2)"                                                                  \
			     : "=r"(value_)                                                                            \
			     : "r"(ctx), "i"(__builtin_offsetof(struct pt_regs, name)));                               \
		value_;                                                                                                \
	})

static __always_inline u64 argument(struct pt_regs *ctx, u32 number)
{
	if (number == 0)
		return REGISTER(ctx, di);
	if (number == 1)
		return REGISTER(ctx, si);
	if (number == 2)
		return REGISTER(ctx, dx);
	if (number == 3)
		return REGISTER(ctx, cx);
	if (number == 4)
		return REGISTER(ctx, r8);
	return REGISTER(ctx, r9);
}

/* Of calloc's arguments. No allocator gives 2^63 bytes, so what comes near an overflow is a call that fails. */
static __always_inline u64 product(u64 size, u64 count)
{
	u64 high = (size >> 32) * (u32)count + (count >> 32) * (u32)size;

	if ((size >> 32 && count >> 32) || high >> 31)
		return ~0ULL;
	return size * count;
}

/* How many blocks this allocation stands for in the report; 0: it is not looked at. */
static __always_inline u32 sample(u64 size)
{
#if defined(SAMPLE_BYTES)
	/* Chance 1/weight with a whole weight, so that weighted counts are unbiased and add up without fractions. */
	u64 dice = bpf_get_prandom_u32();
	u64 weight;

	/* The cheap question first: is it surely not? dice / 2^32 < size / SAMPLE_BYTES, both sides rounded towards yes. */
	if (size < SAMPLE_BYTES && dice * (SAMPLE_BYTES >> SAMPLE_SHIFT) > (size + 1) << (32 - SAMPLE_SHIFT))
		return 0;
	if (size >= SAMPLE_BYTES)
		return 1;
	weight = size ? (SAMPLE_BYTES + size - 1) / size : SAMPLE_BYTES;
	return dice < (1ULL << 32) / weight ? weight : 0;
#elif defined(SAMPLE_COUNT)
	/* At random, not by turns: a program that allocates in a pattern would show but a part of it. */
	return (u64)bpf_get_prandom_u32() * SAMPLE_COUNT >> 32 ? 0 : SAMPLE_COUNT;
#else
	return 1;
#endif
}

static __always_inline u32 weigh(u64 size)
{
#ifdef MIN_SIZE
	if (size < MIN_SIZE)
		return 0;
#endif
#ifdef MAX_SIZE
	if (size > MAX_SIZE)
		return 0;
#endif
	return sample(size);
}

/* Did the kernel put this return address there, to come by when the function returns? */
static __always_inline int is_trampoline(struct image *image, u64 address)
{
	if (image->trampoline)
		return address == image->trampoline;
	/* Until Python has read where it is: the kernel maps it as high as possible (xol_add_vma() in uprobes.c). */
	return address >= 0x7fffffff0000ULL;
}

/*
 * Is the older call still under way, so that this one works for it, or did a longjmp or an exception end it without a
 * return? A call of the same stack pointer is a tail call of the older one, or one in its place after a longjmp.
 */
static __always_inline int is_nested(struct in_flight *outer, struct image *image, u64 sp)
{
	u64 returns_to = 0;

	if (!outer->sp || outer->image != image->number || sp > outer->sp)
		return 0;
	READ_USER(&returns_to, sizeof(returns_to), outer->sp);
	if (PROBE_FLAGS(outer->probe) & PROBE_THROWS)
		return sp < outer->sp && returns_to == outer->caller;
	return is_trampoline(image, returns_to);
}

/* The first allocation of a thread. */
static __always_inline struct in_flight *new_thread(u32 tid)
{
	u32 zero = 0;
	struct in_flight *none = no_flight.lookup(&zero);

	if (!none)
		return NULL;
	in_flight.update(&tid, none);
	return in_flight.lookup(&tid);
}

static __always_inline int begin(struct pt_regs *ctx, u64 probe)
{
	u32 slot = PROBE_SLOT(probe), tid = bpf_get_current_pid_tgid(), weight;
	u64 size = argument(ctx, PROBE_SIZE(probe)), pointer = 0, old_born = 0;
	struct outstanding *old = NULL;
	struct in_flight *flight;
	struct image *image;

	if (PROBE_COUNT(probe) != NO_ARGUMENT)
		size = product(size, argument(ctx, PROBE_COUNT(probe)));
	weight = weigh(size);
	if (!weight && PROBE_ACTION(probe) == ACTION_ALLOCATE && !(PROBE_FLAGS(probe) & PROBE_NESTS))
		return NO_RETURN;
	image = images.lookup(&slot);
	if (!image)
		return NO_RETURN;
	flight = in_flight.lookup(&tid);
	if (!flight) {
		flight = new_thread(tid);
		if (!flight)
			return NO_RETURN;
	}
	if (is_nested(flight, image, ctx->sp))
		return NO_RETURN;
	if (PROBE_ACTION(probe) != ACTION_ALLOCATE) {
		pointer = argument(ctx, PROBE_POINTER(probe));
		if (pointer) {
			struct record_place place = {};

			old = record_find(BLOCK_KEY(pointer, image->number), &place);
		}
		if (old) {
			old_born = old->born_ns;
			old->flags |= OUTSTANDING_IN_REALLOC;
		}
	} else if (PROBE_RESULT(probe) != NO_ARGUMENT) {
		pointer = argument(ctx, PROBE_RESULT(probe));
	}
	if (PROBE_FLAGS(probe) & PROBE_THROWS)
		READ_USER(&flight->caller, sizeof(flight->caller), ctx->sp);
	flight->size = size;
	flight->pointer = pointer;
	flight->old_born = old_born;
	flight->probe = probe;
	flight->image = image->number;
	flight->weight = weight;
	flight->sp = ctx->sp;
	return PROBE_FLAGS(probe) & PROBE_THROWS ? NO_RETURN : 0;
}

/* The old block of a realloc dies now if the call succeeded, and stays if it failed. Returns 0 if nothing is born. */
static __always_inline int settle_old(struct in_flight *flight, u64 result, struct image *image, u32 slot)
{
	u64 key = BLOCK_KEY(flight->pointer, image->number);
	struct record_place place = {};
	struct outstanding *old;
	int resized = PROBE_ACTION(flight->probe) == ACTION_RESIZE;
	int failed = resized ? result < flight->size
			     /* realloc(p, 0) may free p and return nothing (glibc, C17 7.22.3.5) */
			     : !result && flight->size;

	if (flight->old_born) {
		old = record_find(key, &place);
		if (old && old->born_ns == flight->old_born) {
			if (failed) {
				old->flags &= ~OUTSTANDING_IN_REALLOC;
			} else {
				trace(EVENT_FREED, slot, image->number, flight->pointer, old->size, old->site);
				death(old);
				record_remove(key, &place);
			}
		}
	}
	return !failed;
}

/* The allocation in flight is over: caller has the registers as its caller will see them, result is what it returns. */
static __always_inline int finish(struct unwind_regs *caller, struct in_flight *flight, u64 result)
{
	u32 slot = PROBE_SLOT(flight->probe);
	struct image *image = images.lookup(&slot);
	struct outstanding record = {};
	u64 address = result;

	flight->sp = 0;
	if (!image || flight->image != image->number)
		return 0;
	if (PROBE_ACTION(flight->probe) != ACTION_ALLOCATE) {
		if (!settle_old(flight, result, image, slot))
			return 0;
		if (PROBE_ACTION(flight->probe) == ACTION_RESIZE)
			address = flight->old_born ? flight->pointer : 0;
	} else if (PROBE_RESULT(flight->probe) != NO_ARGUMENT) {
		/* 0 is success where the pointer is stored through an argument. */
		if (result)
			return 0;
		if (flight->weight && READ_USER(&address, sizeof(address), flight->pointer)) {
			lose(LOSS_RESULT_UNREADABLE, flight->size);
			return 0;
		}
	}
	if (!address || !flight->weight)
		return 0;
	record.size = flight->size;
	record.weight = flight->weight;
	record.family = PROBE_FAMILY(flight->probe);
	record.site = site_of(caller, slot, image, flight, address);
	record.born_ns = bpf_ktime_get_ns();
	birth(BLOCK_KEY(address, image->number), &record);
	trace(EVENT_ALLOCATED, slot, image->number, address, record.size, record.site);
	return 0;
}

/*
 * From a return probe, where the function has returned; or, exit set, from a probe on the return instruction of a
 * function that throws, which it may share with others by a jump.
 */
static __always_inline int returned(struct pt_regs *ctx, int exit)
{
	struct unwind_regs caller = { .pc = ctx->ip, .sp = ctx->sp, .bp = ctx->bp };
	u32 tid = bpf_get_current_pid_tgid();
	struct in_flight *flight = in_flight.lookup(&tid);

	if (exit) {
		if (!flight || flight->sp != ctx->sp || !(PROBE_FLAGS(flight->probe) & PROBE_THROWS))
			return 0;
		if (READ_USER(&caller.pc, sizeof(caller.pc), ctx->sp))
			return 0;
		caller.sp += sizeof(caller.pc);
	} else if (!flight || flight->sp + 8 != ctx->sp || PROBE_FLAGS(flight->probe) & PROBE_THROWS) {
#ifdef SESSION
		/* A session returns only where the entry asked for it. */
		lose(LOSS_IN_FLIGHT, 0);
#endif
		return 0;
	}
	return finish(&caller, flight, ctx->ax);
}

static __always_inline int freed(struct pt_regs *ctx, u64 probe)
{
	u32 slot = PROBE_SLOT(probe);
	u64 address = argument(ctx, PROBE_POINTER(probe)), key;
	struct image *image = images.lookup(&slot);
	struct record_place place = {};
	struct outstanding *record;

	if (!address || !image)
		return 0;
	key = BLOCK_KEY(address, image->number);
	record = record_find(key, &place);
	if (!record)
		return 0;
	trace(EVENT_FREED, slot, image->number, address, record->size, record->site);
	death(record);
	record_remove(key, &place);
	return 0;
}

/* The probe's description: a cookie, or on kernels without them (before 5.15) a look-up by who and where. */
static __always_inline u64 probe_here(struct pt_regs *ctx, int expected)
{
#ifdef PROBES_BY_ADDRESS
	struct bpf_pidns_info task = {};
	u32 process, *slot;
	u64 key, *probe;

	if (bpf_get_ns_current_pid_tgid(PID_NAMESPACE_DEVICE, PID_NAMESPACE_INODE, &task, sizeof(task)))
		return 0;
	process = task.tgid;
	slot = slots.lookup(&process);
	if (!slot)
		return 0;
	key = ctx->ip | IMAGE_KEY(*slot);
	probe = probes.lookup(&key);
	if (!probe && expected)
		/* After an exec the code is elsewhere, and Python has not said yet where. */
		lose(LOSS_IN_FLIGHT, 0);
	return probe ? *probe : 0;
#else
	return bpf_get_attach_cookie(ctx);
#endif
}

#ifdef SESSION
int heap_session(struct pt_regs *ctx)
{
	u64 probe = bpf_get_attach_cookie(ctx);
	int exit = PROBE_ACTION(probe) == ACTION_EXIT;

	/* At entry both are the probed instruction. */
	if (exit || ctx->ip != bpf_get_func_ip(ctx)) {
		returned(ctx, exit);
		return NO_RETURN;
	}
	return begin(ctx, probe);
}
#else
int heap_enter(struct pt_regs *ctx)
{
	u64 probe = probe_here(ctx, 1);

	if (probe)
		begin(ctx, probe);
	return 0;
}

int heap_return(struct pt_regs *ctx)
{
	return returned(ctx, PROBE_ACTION(probe_here(ctx, 0)) == ACTION_EXIT);
}
#endif

int heap_free(struct pt_regs *ctx)
{
	u64 probe = probe_here(ctx, 1);

	return probe ? freed(ctx, probe) : 0;
}

/* --bare-traps: what the probes alone cost. Two, because a program is loaded for one way to attach. */
int bare_session(struct pt_regs *ctx)
{
	return 0;
}

int bare_probe(struct pt_regs *ctx)
{
	return 0;
}
