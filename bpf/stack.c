/* Captures the stack of an allocation and finds its site. Cost: one table look-up and one read per frame. */

/* 15 bits above the 48 of a user address; the top bit is INTERRUPTED. */
#define IMAGE_KEY(image) ((u64)((image) & 0x7fff) << 48)

/* Pieces that could not be read before the copy gives up; each attempt is a page fault that is not served. */
#define MAX_UNREAD 20

/* Of the ring, what copies of stacks may take: room for thousands of events stays free. */
#define ROOM_FOR_COPIES (RING_BYTES - RING_BYTES / 64)
#define HALF_OF_RING (RING_BYTES / 2)

/* The waits for room in the ring; they end by the number of looks at the clock too, at some 500 ns each. */
#define HALF_FULL_WAIT_NS 100000
#define FULL_RING_WAIT_NS 1000000
#define FULL_RING_LOOKS 1024

struct walk {
	struct unwind_regs regs;
	u64 id;
	u32 ended;
};

static __always_inline u32 end_of(int step, u64 rule)
{
	/* A chain of frame pointers has no other end than one that leads nowhere. */
	if (step == STEP_END || (rule & 0xf) == RULE_FRAME_POINTER)
		return ENDED_COMPLETE;
	return step == STEP_UNSUPPORTED ? ENDED_UNSUPPORTED : ENDED_UNREADABLE;
}

/* Walks from walk->regs outwards and writes the addresses down. */
static __always_inline void walk_stack(struct walk *walk, u64 image_key, struct in_flight *flight)
{
	u64 interrupted = 0;
	u32 depth;

	walk->ended = ENDED_DEPTH;
	/* What the stack held at the allocation before is no longer true. */
	flight->window.at = WINDOW_NOWHERE;
#pragma nounroll
	for (depth = 0; depth < MAX_DEPTH; depth++) {
		u64 address = walk->regs.pc | interrupted;
		u64 rule;
		int step;

		walk->id = (walk->id ^ address) * SPREAD;
		walk->id ^= walk->id >> 29;
		flight->addresses[depth] = address;
#ifdef FRAME_POINTERS
		rule = RULE_FRAME_POINTER;
#else
		rule = rule_of(address | image_key);
#endif
		if (!rule) {
			walk->ended = ENDED_PENDING;
			walk->regs.pc = address;
			depth++;
			break;
		}
		step = unwind_step(rule, &walk->regs, &flight->window);
		if (step != STEP_OK) {
			walk->ended = end_of(step, rule);
			depth++;
			break;
		}
		interrupted = (rule & 0xf) == RULE_SIGNAL ? INTERRUPTED : 0;
	}
	/* Into memory: the verifier would follow what comes next once for every depth that it knows the number of. */
	flight->depth = depth;
}

static __always_inline void count_short_stack(u32 ended)
{
	if (ended == ENDED_DEPTH)
		lose(LOSS_STACK_DEPTH, 0);
	else if (ended == ENDED_UNREADABLE)
		lose(LOSS_STACK_UNREADABLE, 0);
	else if (ended == ENDED_UNSUPPORTED)
		lose(LOSS_STACK_UNSUPPORTED, 0);
	else if (ended == ENDED_NO_COPY)
		lose(LOSS_STACK_NO_COPY, 0);
}

/* Gives the stack that was walked a site of its own; returns 0 if none is free. Rare: once per stack. */
static __always_inline u32 new_site(struct walk *walked, struct in_flight *flight, struct image *image)
{
	struct stack *stack;
	struct site *site;
	u32 index = claim_site();

	stack = stacks.lookup(&index);
	site = sites.lookup(&index);
	if (!index || !stack || !site)
		return 0;
	bpf_probe_read_kernel(stack->addresses, sizeof(stack->addresses), flight->addresses);
	stack->id = walked->id;
	stack->image = image->number;
	stack->code = image->code;
	stack->depth = flight->depth;
	stack->ended = walked->ended;
	site->first_ns = bpf_ktime_get_ns();
	return index;
}

/* Sends what Python needs to finish a stack that met an address without a rule. */
static __always_inline int send_copy(struct walk *state, struct miss_event *miss, u32 slot, u32 code, u64 address)
{
	u64 from = state->regs.sp & ~(COPY_PIECE - 1ULL);
	u32 i;

	miss->head.kind = EVENT_MISS;
	miss->head.slot = slot;
	miss->head.tid = bpf_get_current_pid_tgid();
	miss->head.image = code;
	miss->head.ns = bpf_ktime_get_ns();
	miss->pc = state->regs.pc;
	miss->sp = state->regs.sp;
	miss->bp = state->regs.bp;
	miss->address = address;
	/* Both in the record and not in variables, whose every value the verifier would follow. */
	miss->missing = 0;
	miss->unread = 0;
	/* A page that was never touched, in the middle of a large array, is no end of the stack. */
#pragma nounroll
	for (i = 0; i < STACK_COPY / COPY_PIECE; i++) {
		if (!READ_USER(miss->data + i * COPY_PIECE, COPY_PIECE, from + i * COPY_PIECE))
			continue;
		miss->missing |= 1U << i;
		if (++miss->unread == MAX_UNREAD)
			break;
	}
	miss->copied = i * COPY_PIECE;
	return 0;
}

/* The slowest thing at hand that does nothing: page faults at an address where nothing ever is, at some 500 ns each. */
#define PASS_TIME(times)                                                      \
	do {                                                                  \
		u64 nothing;                                                  \
		_Pragma("unroll") for (u32 n = 0; n < (times); n++)           \
			READ_USER(&nothing, sizeof(nothing), sizeof(nothing)); \
	} while (0)

/*
 * How many bytes wait in the ring. BCC has no word for this helper, so it is asked for another one that takes the map, and
 * that wants a pointer here. Newer clang takes none for a number: NULL becomes BPF_RB_AVAIL_DATA, which is 0.
 */
#define bpf_ringbuf_output(map, flags, unused, none) bpf_ringbuf_query(map, (u64)(flags))
static __always_inline u64 ring_used(void)
{
	return ring.ringbuf_output(NULL, 0, 0);
}
#undef bpf_ringbuf_output

/*
 * While a program starts, or leaktrace has just come, each new path misses until Python has answered. Better that the program
 * waits here than that it goes on to miss: a little as soon as the ring is half full, and for up to a millisecond, in which
 * Python answers several, once it is full.
 */
static __always_inline void wait_for_room(void)
{
	u64 used = ring_used(), enough, until = bpf_ktime_get_ns();
	u32 i;

	if (used <= HALF_OF_RING)
		return;
	enough = used <= ROOM_FOR_COPIES ? HALF_OF_RING : ROOM_FOR_COPIES;
	until += used <= ROOM_FOR_COPIES ? HALF_FULL_WAIT_NS : FULL_RING_WAIT_NS;
#pragma nounroll
	for (i = 0; i < FULL_RING_LOOKS; i++) {
		if (bpf_ktime_get_ns() > until || ring_used() <= enough)
			break;
		PASS_TIME(1);
	}
}

/* Room for a miss, unless it would take what is kept for events: of those, each is needed. */
static __always_inline struct miss_event *room_for_miss(void)
{
	if (ring_used() > ROOM_FOR_COPIES)
		return NULL;
	return ring.ringbuf_reserve(sizeof(struct miss_event));
}

/* Returns the site of the allocation that returns to caller, 0 if there is no room for another one. */
static __always_inline u32 site_of(struct unwind_regs *caller, u32 slot, struct image *image, struct in_flight *flight,
				   u64 address, u64 bytes)
{
	struct walk walked = {
		.regs = *caller,
		.id = ((u64)image->code << 32 | image->number) * SPREAD,
	};
	struct miss_event *miss = NULL;
	u32 *known, index, shared;

	walk_stack(&walked, IMAGE_KEY(image->code), flight);
	if (walked.ended == ENDED_PENDING) {
		/* Two such stacks may differ beyond the address without a rule: each gets a site and a copy of its own. */
		wait_for_room();
		miss = room_for_miss();
		if (!miss) {
			walked.ended = ENDED_NO_COPY;
			walked.id ^= 1;
		}
	}
	if (!miss) {
		known = site_of_stack.lookup(&walked.id);
		if (known)
			return *known;
	}
	index = new_site(&walked, flight, image);
	if (!index)
		lose(LOSS_SITES_FULL, bytes);
	if (miss) {
		miss->site = index;
		send_copy(&walked, miss, slot, image->code, address);
		/* Also without a site: until Python has answered, each call of this path copies, and soon waits for room. */
		ring.ringbuf_submit(miss, 0);
		return index;
	}
	shared = index ? share_site(walked.id, index) : 0;
	if (shared != index)
		return shared;
	count_short_stack(walked.ended);
	return index;
}
