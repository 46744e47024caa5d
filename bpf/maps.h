/* Every map. The M-mapped ones are read and written by Python as memory, without a system call. */

#define NO_PREALLOC (1U << 0)
#define MMAPABLE (1U << 10)

struct loss_count {
	u64 count;
	u64 bytes;
};
RECORD_SIZE(struct loss_count, 16);

/* What an allocator's entry leaves for its return. */
struct call {
	u64 sp; /* at entry */
	u64 size;
	u64 pointer; /* realloc: the old block; posix_memalign: where the result goes */
	u64 probe;   /* the entry's probe description */
	/* realloc: the old block's record, taken out of the table; born_ns is 0 if there was none */
	struct outstanding old;
	/* The last block that was born during this call: perhaps the very one that this call will return. */
	u64 inner_key;
	u64 inner_size;
	u64 weight;
#ifdef CHECK_FREES
	u64 returns_to; /* of a function that throws, whose return address no trampoline takes the place of */
	u64 ip;		/* of its probe, which tells it from others of its kind */
#endif
};

/* Allocators call one another (musl: posix_memalign, aligned_alloc, malloc), and a longjmp leaves calls that never end. */
#define MAX_NESTING 4

/* The calls under way in one thread, outermost first, and what walking its stack needs. */
struct in_flight {
	u32 image;
	u32 level; /* how many */
	struct call calls[MAX_NESTING];
	struct unwind_window window;
#ifdef CHECK_FREES
	/* The last free that was no part of another one. */
	struct {
		u64 sp; /* at entry; 0: there was none */
		u64 returns_to;
		u64 address;
		u64 ip; /* of its probe, which tells it from others of its kind */
		/* The block: its family (0: it has no record) and site, what is wrong, whether it is kept as freed. */
		u32 family;
		u32 site;
		u32 kind;
		u32 stays;
	} freeing;
#endif
	/* The stack while it is walked: too large for the program's own 512 bytes, and a processor is not ours alone. */
	u64 depth;
	u64 addresses[MAX_DEPTH];
};

/*
 * BCC makes each map with one entry only: tracer/attach/program.py makes the real ones, whose sizes are the settings'.
 * (The ring's argument is pages.)
 */
BPF_F_TABLE("array", u32, struct site, sites, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct stack, stacks, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct rule_bucket, rules, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct image, images, 1, MMAPABLE);
BPF_F_TABLE("array", u32, struct loss_count, losses, 1, MMAPABLE);
/* [0]: where to look for the next free site */
BPF_TABLE("array", u32, u64, cursor, 1);

#ifdef ATOMICS
BPF_F_TABLE("array", u32, struct block_bucket, blocks, 1, MMAPABLE);
#endif
/* Not preallocated: it is large only where the kernel has no atomics (before 5.12), and then it holds all blocks. */
BPF_F_TABLE("hash", u64, struct outstanding, overflow, 1, NO_PREALLOC);
BPF_TABLE("hash", u64, u32, site_of_stack, 1);
/* Which sites are taken. A hash, because insertion-if-absent is the one atomic claim that 5.10 has too. */
BPF_TABLE("hash", u32, u32, claimed, 1);
/* LRU: threads come and go, and their entries with them. */
BPF_TABLE("lru_hash", u32, struct in_flight, in_flight, 1);
/* Zeroes to start one from: it is larger than the program's own stack. */
BPF_TABLE("array", u32, struct in_flight, no_flight, 1);
/* Traced processes by their id in leaktrace's pid namespace, for what is not attached per process. */
BPF_TABLE("hash", u32, u32, slots, 1);
#ifdef SELECTION
/* Processes that are to be traced as soon as they come: by name, or by control group. */
BPF_TABLE("hash", struct comm, u32, wanted_comms, 1);
BPF_TABLE("array", u32, struct wanted_group, wanted_groups, 1);
#endif
/* Those that Python has a hold of. */
BPF_TABLE("lru_hash", u32, u32, held, 1);
/* [0]: how many wait for that */
BPF_TABLE("array", u32, u64, hold_waits, 1);
#ifdef PROBES_BY_ADDRESS
/* Where a probe has no cookie (before 5.15): its description by process slot and instruction address. */
BPF_TABLE("hash", u64, u64, probes, 1);
#endif
#ifdef CHECK_FREES
/* The last block that was freed of all those whose keys lead to the same place. */
BPF_TABLE("array", u32, struct freed_block, freed_blocks, 1);
/* How often each was seen. */
BPF_TABLE("hash", struct misuse, u64, misuses, 1);
#endif
/* Empty: see keep_own_stack(). */
BPF_PROG_ARRAY(no_programs, 1);
BPF_PROG_ARRAY(no_sessions, 1);
BPF_RINGBUF_OUTPUT(ring, 1);
