/* What happens to the traced processes themselves: exec, libraries coming and going, exceptions. */

static __always_inline void tell(u32 kind, u32 slot, u32 image)
{
	struct event *event = ring.ringbuf_reserve(sizeof(struct event));

	if (!event) {
		lose(LOSS_EVENT, 0);
		return;
	}
	event->kind = kind;
	event->slot = slot;
	event->tid = bpf_get_current_pid_tgid();
	event->image = image;
	event->ns = bpf_ktime_get_ns();
	ring.ringbuf_submit(event, 0);
}

/* Slots are numbered below MAX_SLOTS, so steps of that keep the images of all processes apart. */
static __always_inline u32 new_number(struct image *image)
{
	image->newest += MAX_SLOTS;
	return image->newest;
}

/* PASS_TIME() between two looks at whether Python is ready. */
#define TIME_PER_LOOK 40

/*
 * How long a process waits at its exec for Python to get a hold of it, which takes about 1 ms. It ends by the number of looks
 * too (after some 10 ms) where Python has no others to get a hold of: the verifier follows each.
 */
#define HOLD_WAIT_NS 20000000
#ifdef SELECTION
#define HOLD_LOOKS 2000
#else
#define HOLD_LOOKS 500
#endif

/* So that nothing of a new program is missed. */
static __always_inline void wait_until_held(u32 process)
{
	u64 until = bpf_ktime_get_ns() + HOLD_WAIT_NS;
	u32 zero = 0, i;
	u64 *waiting = hold_waits.lookup(&zero);

	/* Nothing else runs on a processor where one waits here: one must be left for Python. */
	if (!process || !waiting || *waiting >= MAX_WAITING)
		return;
	__sync_fetch_and_add(waiting, 1);
#pragma nounroll
	for (i = 0; i < HOLD_LOOKS; i++) {
		if (held.lookup(&process) || bpf_ktime_get_ns() > until)
			break;
		PASS_TIME(TIME_PER_LOOK);
	}
	__sync_fetch_and_add(waiting, -1);
}

#ifdef SELECTION
static __always_inline int is_wanted(void)
{
	struct comm comm = {};
	struct wanted_group *group;
	u32 i;

	bpf_get_current_comm(&comm, sizeof(comm));
	if (wanted_comms.lookup(&comm))
		return 1;
#pragma nounroll
	for (i = 0; i < MAX_GROUPS; i++) {
		/* A copy: the verifier does not count what lies in memory. */
		u32 index = i;

		group = wanted_groups.lookup(&index);
		if (group && group->used && bpf_get_current_ancestor_cgroup_id(group->level) == group->id)
			return 1;
	}
	return 0;
}

/* A new program of a process that is not traced yet. */
static __always_inline void select_process(void)
{
	u32 process = current_process(), waits = is_wanted();

	if (!process || (!waits && !SELECTION))
		return;
	tell(EVENT_WANTED, waits, process);
	if (waits)
		wait_until_held(process);
}
#endif

/* sched_process_exec: runs in the new image before its first instruction. */
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 *slot = traced_slot(), index;
	struct image *image;

#ifdef SELECTION
	if (!slot)
		select_process();
#endif
	if (!slot)
		return 0;
	index = *slot;
	image = images.lookup(&index);
	if (!image)
		return 0;
	image->number = image->code = new_number(image);
	image->trampoline = 0;
	image->loader_state = 0;
	image->unmapping = 0;
#ifdef CHECK_FREES
	image->checks = 0;
#endif
	tell(EVENT_EXEC, index, image->number);
#ifdef HOLD_EXECS
	wait_until_held(current_process());
#endif
	return 0;
}

/* In a new task's flags (linux/sched.h): it is a thread of this process. */
#define CLONE_THREAD 0x00010000

/* task_newtask(task, clone_flags): runs in whoever makes a thread or a process. */
int process_fork(struct bpf_raw_tracepoint_args *ctx)
{
	u32 *slot, index;
	struct image *image;

	if (ctx->args[1] & CLONE_THREAD)
		return 0;
	slot = traced_slot();
	if (!slot)
		return 0;
	index = *slot;
	image = images.lookup(&index);
	if (image)
		__sync_fetch_and_add(&image->children, 1);
	return 0;
}

/* How long a library that is about to go stays until Python knows it; it ends by the number of looks too. */
#define READ_WAIT_NS 20000000
#define READ_LOOKS 100
/* PASS_TIME() between two of them, so much that mostly the time ends it: 240 µs where a fault takes 0.8 µs. */
#define TIME_PER_READ_LOOK 300

/* A library that is unloaded as soon as it was loaded would leave stacks without names. */
static __always_inline void wait_until_read(struct image *image)
{
	u64 until = bpf_ktime_get_ns() + READ_WAIT_NS;
	u32 i;

#pragma nounroll
	for (i = 0; i < READ_LOOKS; i++) {
		if (*(volatile u32 *)&image->read == image->told || bpf_ktime_get_ns() > until)
			return;
		PASS_TIME(TIME_PER_READ_LOOK);
	}
}

/* On the dynamic loader's _dl_debug_state, which it calls for debuggers after each change. */
int process_mappings(struct pt_regs *ctx)
{
	keep_own_stack(ctx);
	u32 slot = PROBE_SLOT(probe_here(ctx, 1));
	struct image *image = images.lookup(&slot);
	u32 state = 0;

	if (!image)
		return 0;
	/* From here on, before anything is unmapped, nothing that is known of this code is used for what may follow it. */
	if (image->loader_state)
		READ_USER(&state, sizeof(state), image->loader_state);
	if (state == RT_DELETE)
		wait_until_read(image);
	if (state == RT_DELETE || image->unmapping)
		image->code = new_number(image);
	image->unmapping = state == RT_DELETE;
	image->told++;
	tell(EVENT_MAPPINGS, slot, image->code);
	return 0;
}
