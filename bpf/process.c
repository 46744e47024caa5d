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

/* sched_process_exec: runs in the new image before its first instruction. */
int process_exec(struct bpf_raw_tracepoint_args *ctx)
{
	u32 *slot = traced_slot(), index;
	struct image *image;

	if (!slot)
		return 0;
	index = *slot;
	image = images.lookup(&index);
	if (!image)
		return 0;
	/* Slots are numbered below MAX_SLOTS, so steps of that keep the images of all processes apart. */
	image->number += MAX_SLOTS;
	image->code += MAX_SLOTS;
	image->trampoline = 0;
	image->loader_state = 0;
	image->unmapping = 0;
	tell(EVENT_EXEC, index, image->number);
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

/* On the dynamic loader's _dl_debug_state, which it calls for debuggers after each change. */
int process_mappings(struct pt_regs *ctx)
{
	u32 slot = PROBE_SLOT(probe_here(ctx, 1));
	struct image *image = images.lookup(&slot);
	u32 state = 0;

	if (!image)
		return 0;
	/* From here on, before anything is unmapped, nothing that is known of this code is used for what may follow it. */
	if (image->loader_state)
		READ_USER(&state, sizeof(state), image->loader_state);
	if (state == RT_DELETE || image->unmapping)
		image->code += MAX_SLOTS;
	image->unmapping = state == RT_DELETE;
	tell(EVENT_MAPPINGS, slot, image->code);
	return 0;
}
