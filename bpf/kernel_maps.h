/* Every map of a kernel trace. All is there from the start: what a program allocates would be an allocation to trace. */

#define MMAPABLE (1U << 10)

struct loss_count {
	u64 count;
	u64 bytes;
};
RECORD_SIZE(struct loss_count, 16);

/* Programs can interrupt one another: a task's, that of a soft interrupt, of an interrupt, of an NMI. */
#define NESTING 4

/* What one program works with: too large for its own stack. */
struct kernel_scratch {
	u64 busy;
	u64 by_rules;  /* stacks that rules led through */
	u64 by_kernel; /* and those that the kernel walked */
	u64 context; /* where its arguments lie: on the kernel's stack */
	u64 window_at;
	u64 window[KERNEL_WINDOW / 8];
	u64 depth;
	u64 id;
	u64 ended;
	u64 checked; /* the id that the faster walk found, where both are made */
	u64 tag;     /* who is charged for the allocation (struct alloc_tag *) */
	/* Twice what is kept, since the kernel begins with frames of its own tracing. */
	u64 addresses[KERNEL_FRAMES];
};

/* What goes on on one processor. */
struct kernel_cpu {
	u64 seen[POINTS][NESTING]; /* keys of events that the first program of a point saw, and the second not yet */
	u64 again;		   /* events that the second programs handled because the first were skipped */
};

struct kernel_config {
	u32 own; /* leaktrace's own process */
	u32 ended;
	u64 skip[POINTS]; /* frames of the kernel's own tracing on top of each stack */
};
RECORD_SIZE(struct kernel_config, 8 + 8 * POINTS);

BPF_F_TABLE("array", u32, struct site, sites, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct stack, stacks, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct kernel_site, kernel_sites, 1, MMAPABLE);
#ifdef ALLOC_TAG
BPF_F_TABLE("array", u32, struct kernel_charged, kernel_charged, 1, MMAPABLE);
#endif
BPF_F_TABLE("array", u32, struct rule_bucket, rules, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct loss_count, losses, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct kernel_config, kernel_config, 1, MMAPABLE);
/* [0]: where to look for the next free site */
BPF_TABLE("array", u32, u64, cursor, 1);
#ifdef ATOMICS
BPF_F_TABLE("array", u32, struct block_bucket, blocks, 1, MMAPABLE);
#endif
BPF_TABLE("hash", u64, struct outstanding, overflow, 1);
BPF_TABLE("hash", u64, u32, site_of_stack, 1);
/* By their ids, the sites that were found last. Sites live as long as the trace. */
BPF_TABLE("array", u32, u32, latest_sites, 1);
BPF_TABLE("hash", u32, u32, claimed, 1);
BPF_TABLE("percpu_array", u32, struct kernel_cpu, kernel_cpus, 1);
BPF_TABLE("percpu_array", u32, struct kernel_scratch, kernel_scratch, 1);
/* How many blocks of pages there are of each order, so that none are looked for where there are none. */
BPF_TABLE("array", u32, u64, orders, 1);
BPF_TABLE("lru_hash", u32, struct process_name, process_names, 1);
#ifdef AREA_SIZES
BPF_TABLE("lru_hash", u64, u64, area_sizes, 1);
#endif
#ifdef WANTED_PROCESSES
BPF_TABLE("hash", u32, u32, wanted_processes, 1);
#endif
#ifdef WANTED_GROUPS
BPF_TABLE("array", u32, struct wanted_group, wanted_groups, 1);
#endif
BPF_RINGBUF_OUTPUT(ring, 1);
