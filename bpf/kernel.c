/*
 * Programs at the kernel's own tracepoints of memory, and at functions of it where the kernel can trace those.
 *
 * While a program runs, an interrupt may come to the same point: the kernel (6.1 and newer) then skips the program. So
 * each point has two. The first notes the event that it sees; the second, which comes right behind it, acts where the
 * first one did not. Interrupts nest like brackets, so each finds its own note.
 */

/* What a program is given: a tracepoint's or a function's arguments. Which is which, Python finds out (ARGUMENT_...). */
struct arguments {
	u64 at[12];
};

static __always_inline struct kernel_cpu *this_cpu(void)
{
	u32 zero = 0;

	return kernel_cpus.lookup(&zero);
}

static __always_inline struct kernel_config *configured(void)
{
	u32 zero = 0;

	return kernel_config.lookup(&zero);
}

static __always_inline void note(struct kernel_cpu *cpu, u32 point, u64 key)
{
	u32 i;

#pragma unroll
	for (i = 0; i < NESTING - 1; i++) {
		if (!cpu->seen[point][i]) {
			cpu->seen[point][i] = key;
			return;
		}
	}
	/* Notes that were never taken, since a second program can be skipped too, give way. */
	cpu->seen[point][key >> 6 & (NESTING - 1)] = key;
}

/* Whether the first program of a point saw this event; its note is taken. */
static __always_inline int was_seen(struct kernel_cpu *cpu, u32 point, u64 key)
{
	u32 i;

#pragma unroll
	for (i = 0; i < NESTING; i++) {
		if (cpu->seen[point][i] == key) {
			cpu->seen[point][i] = 0;
			return 1;
		}
	}
	return 0;
}

/* Of what is no memory, such as kfree(NULL): no key, but no empty note either. */
#define NO_KEY 1

/*
 * The two programs of a point: action is what they do with what key names. The macro's own arguments are ctx, the
 * program's, and key.
 */
#define PROGRAMS(name, point, expression, action)                    \
	int name(struct arguments *ctx)                              \
	{                                                            \
		u64 key = (expression) ?: NO_KEY;                    \
		struct kernel_cpu *cpu = this_cpu();                 \
		if (!cpu)                                            \
			return 0;                                    \
		note(cpu, point, key);                               \
		action;                                              \
		return 0;                                            \
	}                                                            \
	int name##_again(struct arguments *ctx)                      \
	{                                                            \
		u64 key = (expression) ?: NO_KEY;                    \
		struct kernel_cpu *cpu = this_cpu();                 \
		if (cpu && !was_seen(cpu, point, key)) {             \
			__sync_fetch_and_add(&cpu->again, 1);        \
			action;                                      \
		}                                                    \
		return 0;                                            \
	}

static __always_inline int is_wanted(struct kernel_config *config)
{
#if defined(WANTED_PROCESSES) || defined(PID_NAMESPACE_INODE)
	u32 process = current_process();
#else
	u32 process = bpf_get_current_pid_tgid() >> 32;
#endif
	if (process == config->own)
		return 0;
#ifdef WANTED_PROCESSES
	if (!wanted_processes.lookup(&process))
		return 0;
#endif
#ifdef WANTED_GROUPS
	{
		struct wanted_group *group;
		u32 i;

#pragma nounroll
		for (i = 0; i < WANTED_GROUPS; i++) {
			/* A copy: the verifier does not count what lies in memory. */
			u32 index = i;

			group = wanted_groups.lookup(&index);
			if (group && group->used && bpf_get_current_ancestor_cgroup_id(group->level) == group->id)
				return 1;
		}
		return 0;
	}
#endif
	return 1;
}

static __always_inline struct kernel_scratch *take_scratch(u64 bytes)
{
	u32 i;

#pragma nounroll
	for (i = 0; i < NESTING; i++) {
		u32 index = i;
		struct kernel_scratch *scratch = kernel_scratch.lookup(&index);

		if (!scratch || scratch->busy)
			continue;
#ifdef ATOMICS
		if (__sync_val_compare_and_swap(&scratch->busy, 0, 1))
			continue;
#else
		scratch->busy = 1;
#endif
		return scratch;
	}
	lose(LOSS_NESTED, bytes);
	return NULL;
}

/* Of NUMA, in 16 bits (NUMA_NO_NODE). */
#define ANY_NODE 0xffff

/* Returns whether it was recorded. */
static __always_inline int allocated(void *ctx, u64 key, u64 size, u64 extra, struct kernel_site *about)
{
	struct kernel_config *config = configured();
	struct kernel_scratch *scratch;
	struct outstanding record = {};

	if (!config || !is_wanted(config))
		return 0;
#ifdef MIN_SIZE
	if (size < MIN_SIZE)
		return 0;
#endif
#ifdef MAX_SIZE
	if (size > MAX_SIZE)
		return 0;
#endif
	scratch = take_scratch(size);
	if (!scratch)
		return 0;
#ifdef SEVERAL_NODES
	if (about->node == ANY_NODE)
		about->node = bpf_get_numa_node_id();
#else
	about->node = 0;
#endif
	record.site = kernel_site_of(ctx, scratch, config, about, size);
	scratch->busy = 0;
	record.born_ns = bpf_ktime_get_ns();
	record.size = size;
	record.extra = extra;
	record.process = bpf_get_current_pid_tgid() >> 32;
	birth(key, &record);
	return 1;
}

static __always_inline void freed(u64 key)
{
	struct record_place place = {};
	struct outstanding *record = record_find(key, &place);

	if (!record)
		return;
	death(record);
	record_remove(key, &place);
}

#if defined(FUNCTIONS) || defined(VMALLOC_RETURN)
/* bpf_get_func_arg(): also of arguments that programs may not read themselves, pointers to pointers and to functions. */
static long (*argument_of)(void *ctx, u32 number, u64 *value) = (void *)183;

static __always_inline u64 function_argument(void *ctx, u32 number)
{
	u64 value = 0;

	argument_of(ctx, number, &value);
	return value;
}

/* The same of a program behind a kprobe, which is given the registers (struct pt_regs): di, si and dx. */
static __always_inline u64 register_argument(void *ctx, u32 number)
{
	return ((volatile u64 *)ctx)[14 - number];
}

/* by_kprobe: a constant. */
#define ENTRY_ARGUMENT(by_kprobe, ctx, number) \
	((by_kprobe) ? register_argument(ctx, number) : function_argument(ctx, number))
#endif

/* Who has allocated is said by name when it may be long gone. */
int process_exit(struct arguments *ctx)
{
	u64 task = bpf_get_current_pid_tgid();
	u32 process = task >> 32;
	struct process_name name = {};

	if (process != (u32)task)
		return 0;
	bpf_get_current_comm(&name, sizeof(name));
	process_names.update(&process, &name);
	return 0;
}

/* Run once, by leaktrace itself: who it is to the kernel. */
int know_yourself(struct arguments *ctx)
{
	struct kernel_config *config = configured();

	if (config)
		config->own = bpf_get_current_pid_tgid() >> 32;
	return 0;
}
