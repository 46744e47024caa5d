/*
 * The stack of an allocation in the kernel.
 *
 * The kernel's own walk decodes unwind tables, at some 60 ns a frame: more than all else that is done here. But from one
 * return address to the next it is always equally far, except in few functions. So these distances are learnt from
 * stacks that the kernel walked (tracer/collect/kernel_rules.py), and a frame then costs one look-up. A wrong distance leads
 * to a word that is no known return address, or not to the place where stacks end; then the kernel walks.
 */

/* Of stacks that rules lead through, one in so many is walked by the kernel too, to compare. Primes: loads have rhythms. */
#define CHECKED_PART 1021
/* Of those for which they do not, while nothing about them is new, one in so many is sent to learn from. */
#define RELEARNT_PART 251

static __always_inline u64 mix(u64 id, u64 word)
{
	id = (id ^ word) * SPREAD;
	return id ^ id >> 29;
}

/* Where a pointer points, as a number: what is loaded from memory is no pointer to the verifier. */
static __always_inline u64 number_of(u64 *place)
{
	return *(volatile u64 *)place;
}

/* Returns the word of the stack at an address, 0 if it cannot be read. */
static __always_inline u64 stack_word(struct kernel_scratch *scratch, u64 at)
{
	u64 from = at & ~(KERNEL_WINDOW - 1ULL);

	if (from != scratch->window_at) {
		if (bpf_probe_read_kernel(scratch->window, KERNEL_WINDOW, (void *)from))
			return 0;
		scratch->window_at = from;
	}
	return scratch->window[at / 8 % (KERNEL_WINDOW / 8)];
}

/* Returns whether a word could be a return address: the kernel and its modules lie in the last 2 GB, but for the end. */
static __always_inline int is_text(u64 word)
{
	return word - KERNEL_TEXT < KERNEL_TEXT_BYTES;
}

/* Returns whether a word with this rule, 0 for none, could be the return address that is looked for. */
static __always_inline int could_be_next(u64 word, u64 rule)
{
	return is_text(word) && KERNEL_RULE(rule) != KERNEL_RULE_STALE;
}

/* Returns whether rules lead through the whole stack. */
static __always_inline int walk_by_rules(struct kernel_scratch *scratch, u32 point)
{
	u64 at = number_of(&scratch->context), rule = rule_of(KERNEL_RULE_BEGIN(point)), id = 0;
	u64 stack = at & ~(KERNEL_STACK - 1ULL);
	u32 depth;

	if (!rule)
		return 0;
	scratch->window_at = 0;
	scratch->ended = ENDED_DEPTH;
#pragma nounroll
	for (depth = 0; depth < KERNEL_FRAMES; depth++) {
		u64 kind = KERNEL_RULE(rule), address;

		if (kind == KERNEL_RULE_PLACE)
			at = stack + KERNEL_RULE_VALUE(rule) * 8 - 8;
		else
			at += KERNEL_RULE_VALUE(rule);
		address = stack_word(scratch, at);
		rule = rule_of(address);
		if (kind == KERNEL_RULE_ALIGNED) {
			u64 further = stack_word(scratch, at + 8), rule_further = rule_of(further);

			/* Either could be it, also where the true one is not known yet. */
			if (could_be_next(address, rule) == could_be_next(further, rule_further))
				return 0;
			if (!could_be_next(address, rule)) {
				at += 8;
				address = further;
				rule = rule_further;
			}
		}
		if (!rule || KERNEL_RULE(rule) == KERNEL_RULE_STALE)
			return 0;
		/* What is always at one place is where stacks end; any other address there may be of an earlier call. */
		if (kind == KERNEL_RULE_PLACE && KERNEL_RULE(rule) != KERNEL_RULE_END)
			return 0;
		scratch->addresses[depth] = address;
		id = mix(id, address);
		if (KERNEL_RULE(rule) == KERNEL_RULE_END) {
			if (KERNEL_RULE_VALUE(rule) && KERNEL_RULE_VALUE(rule) != at % KERNEL_STACK / 8 + 1)
				return 0;
			scratch->ended = ENDED_COMPLETE;
			depth++;
			break;
		}
	}
	scratch->depth = depth;
	scratch->id = id;
	return 1;
}

/* Has the kernel walk the stack. It ends where a rule says so: what an interrupt interrupted is no part of its stack. */
static __always_inline void walk_by_kernel(void *ctx, struct kernel_scratch *scratch, u64 skip)
{
	long bytes = bpf_get_stack(ctx, scratch->addresses, sizeof(scratch->addresses), skip & 0xff);
	u64 id = 0, frames;
	u32 depth;

	scratch->ended = ENDED_UNREADABLE;
	scratch->depth = 0;
	scratch->id = 0;
	if (bytes <= 0)
		return;
	frames = (u64)bytes / 8;
	scratch->ended = frames == KERNEL_FRAMES ? ENDED_DEPTH : ENDED_COMPLETE;
#pragma nounroll
	for (depth = 0; depth < KERNEL_FRAMES; depth++) {
		u64 address;

		/* Else the compiler makes one bound of two, which the verifier does not follow. */
		asm volatile("" : "+r"(frames));
		if (depth >= frames)
			break;
		address = scratch->addresses[depth];
		id = mix(id, address);
		if (KERNEL_RULE(rule_of(address)) == KERNEL_RULE_END) {
			scratch->ended = ENDED_COMPLETE;
			depth++;
			break;
		}
	}
	scratch->depth = depth;
	scratch->id = id;
}

/* Sends a stack with its memory to Python, to learn from. */
static __always_inline void send_stack(struct kernel_scratch *scratch, u32 point, u64 skip)
{
	u64 from = number_of(&scratch->context), end = (from & ~(KERNEL_STACK - 1ULL)) + KERNEL_STACK;
	struct kernel_miss *miss = ring.ringbuf_reserve(sizeof(struct kernel_miss));
	u32 i;

	if (!miss)
		return;
	miss->point = point;
	miss->skip = skip;
	miss->depth = scratch->depth;
	miss->context = from;
	miss->copied = 0;
	bpf_probe_read_kernel(miss->addresses, sizeof(miss->addresses), scratch->addresses);
	from &= ~7ULL;
#pragma nounroll
	for (i = 0; i < KERNEL_COPY / KERNEL_PIECE; i++) {
		u64 at = from + i * KERNEL_PIECE, left = end - at;

		/* Beyond the stack's end nothing can be read. */
		if (at >= end)
			break;
		if (left >= KERNEL_PIECE) {
			if (bpf_probe_read_kernel(miss->data + i * KERNEL_PIECE, KERNEL_PIECE, (void *)at))
				break;
			miss->copied += KERNEL_PIECE;
		} else {
			/* The compiler knows that it is less, and leaves out what tells the verifier so. */
			asm volatile("" : "+r"(left));
			if (bpf_probe_read_kernel(miss->data + i * KERNEL_PIECE, left & (KERNEL_PIECE - 1), (void *)at))
				break;
			miss->copied += left;
			break;
		}
	}
	ring.ringbuf_submit(miss, 0);
}

#ifdef ALLOC_TAG
/* The kernel's account charges whom the task names (alloc_hooks() in include/linux/alloc_tag.h). */
static __always_inline u64 current_tag(void)
{
	u64 tag = 0;

	bpf_probe_read_kernel(&tag, sizeof(tag), (void *)(bpf_get_current_task() + ALLOC_TAG));
	return tag;
}

static __always_inline void tell_charged(u32 index, u64 tag)
{
	struct kernel_charged *charged = kernel_charged.lookup(&index);
	u64 text = 0;

	if (!charged)
		return;
	/* All of it: a site that was given back may have left a longer name. */
	__builtin_memset(charged, 0, sizeof(*charged));
	if (tag && !bpf_probe_read_kernel(&text, sizeof(text), (void *)(tag + TAG_FUNCTION)))
		bpf_probe_read_kernel_str(charged->function, sizeof(charged->function), (void *)text);
}
#endif

/* Gives the stack that was walked a site of its own; returns 0 if none is free. Rare: once per stack. */
static __always_inline u32 new_kernel_site(struct kernel_scratch *scratch, u64 id, struct kernel_site *about)
{
	u32 index = claim_site();
	struct stack *stack = stacks.lookup(&index);
	struct site *site = sites.lookup(&index);
	struct kernel_site *more = kernel_sites.lookup(&index);

	if (!index || !stack || !site || !more)
		return 0;
	bpf_probe_read_kernel(stack->addresses, sizeof(stack->addresses), scratch->addresses);
	stack->id = id;
	stack->image = 0;
	stack->code = 0;
	stack->depth = scratch->depth;
	stack->ended = scratch->ended;
	*more = *about;
#ifdef CACHE_NAME
	if (about->cache) {
		u64 name = 0;

		bpf_probe_read_kernel(&name, sizeof(name), (void *)(about->cache + CACHE_NAME));
		if (name)
			bpf_probe_read_kernel_str(more->name, sizeof(more->name), (void *)name);
	}
#endif
#ifdef ALLOC_TAG
	tell_charged(index, scratch->tag);
#endif
	site->first_ns = bpf_ktime_get_ns();
	return index;
}

/* Returns the site that has an id, 0 if none has it: where it was last, which costs a tenth of a look into the hash. */
static __always_inline u32 known_site(u64 id)
{
	u32 place = id % LATEST_SITES, index, *known, *latest = latest_sites.lookup(&place);
	struct stack *stack;

	if (!latest)
		return 0;
	index = *latest;
	stack = stacks.lookup(&index);
	if (index && stack && stack->id == id)
		return index;
	known = site_of_stack.lookup(&id);
	if (!known)
		return 0;
	*latest = *known;
	return *known;
}

/* Returns the site of an allocation, 0 if there is no room for another one. */
static __always_inline u32 kernel_site_of(void *ctx, struct kernel_scratch *scratch, struct kernel_config *config,
					  struct kernel_site *about, u64 bytes)
{
	u32 point = about->point % POINTS, index, shared, by_rules, check = 0;
	u64 id, skip = config->skip[point];

	/* As memory, for number_of(). */
	*(volatile u64 *)&scratch->context = (u64)ctx;
	by_rules = walk_by_rules(scratch, point);
	if (by_rules) {
		check = !(++scratch->by_rules % CHECKED_PART);
		scratch->checked = scratch->id;
	}
	if (!by_rules || check) {
		scratch->by_kernel++;
		walk_by_kernel(ctx, scratch, skip);
		/* Both walks end where there is no more room, the kernel's with the frames of its tracing in it. */
		if (check && scratch->id != scratch->checked && scratch->ended == ENDED_COMPLETE) {
			lose(LOSS_STACK_CORRECTED, 0);
			send_stack(scratch, point, skip);
		}
	}
	id = mix(mix(scratch->id, about->cache ^ (u64)about->gfp << 32 ^ about->order),
		 (u64)about->source << 32 ^ about->node << 8 ^ scratch->ended);
#ifdef ALLOC_TAG
	scratch->tag = current_tag();
	id = mix(id, scratch->tag);
#endif
	index = known_site(id);
	if (index) {
		if (!by_rules && !(scratch->by_kernel % RELEARNT_PART))
			send_stack(scratch, point, skip);
		return index;
	}
	if (!by_rules)
		send_stack(scratch, point, skip);
	index = new_kernel_site(scratch, id, about);
	if (!index)
		lose(LOSS_SITES_FULL, bytes);
	shared = index ? share_site(id, index) : 0;
	if (shared != index)
		return shared;
	if (scratch->ended == ENDED_DEPTH)
		lose(LOSS_STACK_DEPTH, 0);
	else if (scratch->ended == ENDED_UNREADABLE)
		lose(LOSS_STACK_UNREADABLE, 0);
	return index;
}
