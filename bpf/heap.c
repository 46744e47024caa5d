/* The probes of user-space allocators. */

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

static __always_inline int begin(struct pt_regs *ctx, u64 probe)
{
	u32 slot = PROBE_SLOT(probe), tid = bpf_get_current_pid_tgid(), weight;
	u64 size = argument(ctx, PROBE_SIZE(probe)), pointer = 0, key;
	struct image *image = images.lookup(&slot);
	struct record_place place = {};
	struct outstanding *old = NULL;
	struct in_flight *flight;
	struct call *call;

	if (PROBE_COUNT(probe) != NO_ARGUMENT)
		size = product(size, argument(ctx, PROBE_COUNT(probe)));
	weight = weigh(size);
#ifdef SESSION
	/* Not looked at, and no return to come. */
	if (!weight && PROBE_ACTION(probe) == ACTION_ALLOCATE && !(PROBE_FLAGS(probe) & PROBE_NESTS))
		return NO_RETURN;
#endif
	if (!image)
		return NO_RETURN;
	flight = in_flight.lookup(&tid);
	if (!flight) {
		flight = new_thread(tid);
		if (!flight) {
			lose(LOSS_IN_FLIGHT, 0);
			distrust(slot);
			return NO_RETURN;
		}
	}
	if (flight->image != image->number) {
		flight->image = image->number;
		flight->level = 0;
		forget_freeing(flight);
	}
	if (flight->level) {
		if (is_tail_call(flight, image, ctx->sp) || is_tail_of_thrower(flight, probe, ctx->ip, ctx->sp))
			return NO_RETURN;
		drop_ended(flight, image, ctx->sp);
	}
	if (PROBE_ACTION(probe) != ACTION_ALLOCATE) {
		pointer = argument(ctx, PROBE_POINTER(probe));
		key = BLOCK_KEY(pointer, image->number);
		if (pointer && PROBE_ACTION(probe) == ACTION_REALLOCATE)
			check_free(ctx, probe, image, flight, pointer);
		if (pointer)
			old = record_find(key, &place);
	} else if (PROBE_RESULT(probe) != NO_ARGUMENT) {
		pointer = argument(ctx, PROBE_RESULT(probe));
	}
	call = push_call(flight, ctx->sp);
	if (old) {
		/* Taken out now: during the call another thread may get the address. */
		call->old = *old;
		record_remove(key, &place);
	}
	call->size = size;
	call->pointer = pointer;
	call->probe = probe;
	call->weight = weight;
	note_return_address(call, ctx->ip);
	return PROBE_FLAGS(probe) & PROBE_THROWS ? NO_RETURN : 0;
}

/* The old block of a realloc dies now if the call succeeded, and stays if it failed. Returns 0 if nothing is born. */
static __always_inline int settle_old(struct call *call, u64 result, struct image *image, u32 slot)
{
	int resized = PROBE_ACTION(call->probe) == ACTION_RESIZE;
	int failed = resized ? result < call->size
			     /* realloc(p, 0) may free p and return nothing (glibc, C17 7.22.3.5) */
			     : !result && call->size;

	if (!call->old.born_ns)
		return !failed;
	if (failed) {
		restore(BLOCK_KEY(call->pointer, image->number), &call->old);
		return 0;
	}
	trace(EVENT_FREED, slot, image->number, call->pointer, call->old.size, call->old.site);
	death(&call->old);
	return 1;
}

/* The address of the new block, 0 if there is none to be counted. */
static __always_inline u64 new_block(struct call *call, u64 result, struct image *image, u32 slot)
{
	u64 address = result;

	if (PROBE_ACTION(call->probe) != ACTION_ALLOCATE) {
		if (!settle_old(call, result, image, slot))
			return 0;
		if (PROBE_ACTION(call->probe) == ACTION_RESIZE)
			return call->old.born_ns ? call->pointer : 0;
	} else if (PROBE_RESULT(call->probe) != NO_ARGUMENT) {
		/* 0 is success where the pointer is stored through an argument. */
		if (result)
			return 0;
		if (READ_USER(&address, sizeof(address), call->pointer)) {
			lose(LOSS_RESULT_UNREADABLE, call->weight * call->size);
			return 0;
		}
	}
	return address;
}

/* A call is over: caller has the registers as its caller will see them, result is what it returns. */
static __always_inline int finish(struct unwind_regs *caller, struct in_flight *flight, struct call *call, u64 result)
{
	u32 slot = PROBE_SLOT(call->probe), outer = flight->level - 1;
	struct image *image = images.lookup(&slot);
	struct outstanding record = {};
	u64 address, key;

	if (!image || flight->image != image->number)
		return 0;
	address = new_block(call, result, image, slot);
	key = BLOCK_KEY(address, image->number);
	/* The block that a function below this one made for it, aligned or not, was counted for itself so far. */
	if (call->inner_key && key - call->inner_key <= call->inner_size)
		unbirth(call->inner_key);
	if (!address || !call->weight)
		return 0;
	record.size = call->size;
	record.weight = call->weight;
	record.family = PROBE_FAMILY(call->probe);
	record.site = site_of(caller, slot, image, flight, address, record.size * record.weight);
	record.born_ns = bpf_ktime_get_ns();
	birth(key, &record);
	if (outer < MAX_NESTING) {
		flight->calls[outer].inner_key = key;
		flight->calls[outer].inner_size = call->size;
	}
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
	struct call *call = NULL;

	if (exit) {
		if (READ_USER(&caller.pc, sizeof(caller.pc), ctx->sp))
			return 0;
		caller.sp += sizeof(caller.pc);
	}
	if (flight)
		call = pop_call(flight, caller.sp - sizeof(caller.pc), exit);
	if (!call) {
#ifdef SESSION
		/* A session returns only where the entry asked for it. */
		if (!exit) {
			lose(LOSS_IN_FLIGHT, 0);
			distrust(PROBE_SLOT(bpf_get_attach_cookie(ctx)));
		}
#endif
		return 0;
	}
	return finish(&caller, flight, call, ctx->ax);
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
	check_one(ctx, probe, image, address);
	record = record_find(key, &place);
	if (!record)
		return 0;
	trace(EVENT_FREED, slot, image->number, address, record->size, record->site);
	death(record);
	record_remove(key, &place);
	return 0;
}

/* The slot of the current process if it is traced. */
static __always_inline u32 *traced_slot(void)
{
	u32 process = current_process();

	return process ? slots.lookup(&process) : NULL;
}

/* The probe's description: a cookie, or on kernels without them (before 5.15) a look-up by who and where. */
static __always_inline u64 probe_here(struct pt_regs *ctx, int expected)
{
#ifdef PROBES_BY_ADDRESS
	u32 *slot = traced_slot();
	u64 key, *probe;

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

/*
 * Since Linux 6.13 a program's variables may lie in memory that each processor has once for it (x86's private stacks):
 * a thread that gets the processor while another one is in the same probe would overwrite that one's, and the kernel
 * panics. What calls another program has its variables on the thread's own stack; no instruction lies at address 0.
 */
static __always_inline void keep_own_stack(struct pt_regs *ctx)
{
	if (!ctx->ip)
		no_programs.call(ctx, 0);
}

#ifdef SESSION
int heap_session(struct pt_regs *ctx)
{
	/* Its own, as a table is for programs of one kind. */
	if (!ctx->ip)
		no_sessions.call(ctx, 0);
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
	keep_own_stack(ctx);
	u64 probe = probe_here(ctx, 1);

	if (probe)
		begin(ctx, probe);
	return 0;
}

int heap_return(struct pt_regs *ctx)
{
	keep_own_stack(ctx);
	return returned(ctx, PROBE_ACTION(probe_here(ctx, 0)) == ACTION_EXIT);
}
#endif

int heap_free(struct pt_regs *ctx)
{
	keep_own_stack(ctx);
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
