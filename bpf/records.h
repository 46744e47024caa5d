/*
 * Everything that Python reads or writes, mirrored by tracer/records.py and compared with it at load.
 *
 * Padding is a named field, so that no byte of a map value is left uninitialised.
 */

#define RECORD_SIZE(type, bytes) _Static_assert(sizeof(type) == (bytes), #type " is not " #bytes " bytes")

/* 32 powers of two from 1 microsecond (2^10 ns) reach 2^41 ns, 36 minutes; older blocks share the last one. */
#define LIFETIME_BUCKETS 32
#define LIFETIME_SHIFT 10

/* How the walk of a stack ended. Only ENDED_PENDING changes later: Python completes the stack. */
enum stack_end {
	ENDED_COMPLETE = 1, /* the outermost frame was reached */
	ENDED_DEPTH,        /* --depth frames were kept, more exist */
	ENDED_PENDING,      /* an address without a rule: a copy of the stack is on its way to Python */
	ENDED_NO_COPY,      /* an address without a rule, and the ring buffer had no room for the copy */
	ENDED_UNREADABLE,   /* the frame's memory could not be read (paged out, or a damaged stack) */
	ENDED_UNSUPPORTED,  /* the compiler's rule for this address is one that is not followed */
};

/* One live block. Key: its address, with the process image in the upper 16 bits. */
struct outstanding {
	u64 born_ns;
#ifdef KERNEL
	u64 size : 40;	/* bytes that it takes */
	u64 extra : 24; /* how many of them nobody asked for */
	u32 site;	/* index into sites and stacks */
	u32 process;
#define WEIGHT(record) 1ULL
#else
	u64 size : 48; /* bytes, as asked for; user addresses have no more bits */
	u64 family : 8;
	u64 unused : 8;
	u32 site;   /* index into sites and stacks */
	u32 weight; /* how many blocks this one stands for when sampling, else 1 */
#define WEIGHT(record) (record)->weight
#endif
};
RECORD_SIZE(struct outstanding, 24);

/* Blocks by a hash of their key: a cache line of keys, then the records. What has no room is in the overflow map. */
#define BLOCKS_PER_BUCKET 7
struct block_bucket {
	u64 keys[BLOCKS_PER_BUCKET]; /* 0 free, 1 being written */
	u64 overflowed;              /* how many blocks of this bucket are in the overflow map */
	struct outstanding records[BLOCKS_PER_BUCKET];
	u64 spare[3];
};
RECORD_SIZE(struct block_bucket, 256);

/* Counters of one call site; they only grow, so live = allocated - freed at any moment. */
struct site {
	u64 allocated_bytes;
	u64 allocated_count;
	u64 freed_bytes;
	u64 freed_count;
	/* Of the estimate of live bytes when sampling; these two go up and down, and are read as signed. */
	u64 variance;       /* in square bytes */
	u64 large_variance; /* in units of 2^32 square bytes */
	u64 first_ns;
	u64 own_work; /* with --check-frees: the allocator frees there what was freed before; Python says so */
	u64 lifetimes[LIFETIME_BUCKETS]; /* freed blocks by log2 of their age in ns */
};
RECORD_SIZE(struct site, 64 + 8 * LIFETIME_BUCKETS);

/* The stack of one site, innermost frame first. */
struct stack {
	u64 id;
	u32 image;
	u32 code; /* of the image, when the stack was seen */
	u32 depth;
	u32 ended;
	u64 addresses[MAX_DEPTH]; /* beyond depth: anything */
};
RECORD_SIZE(struct stack, 24 + 8 * MAX_DEPTH);

/* Unwind rules by return address. A bucket is one cache line; Python is the only writer. */
#define RULES_PER_BUCKET 4
struct rule_bucket {
	u64 keys[RULES_PER_BUCKET];
	u64 rules[RULES_PER_BUCKET];
};
RECORD_SIZE(struct rule_bucket, 64);

/* Set in a frame's address that was interrupted, not returned to: its rule is that at it, not before it. */
#define INTERRUPTED (1ULL << 63)

/*
 * What the process behind one slot is now. exec makes a new image, so nothing of the old one is believed.
 *
 * A child begins with its parent's code, whose rules are true of it too; between vfork and exec it also works in its
 * parent's memory, and has its number. All that is new takes its number from the slot's own row.
 */
struct image {
	u32 number;
	u32 code; /* changes when code is unmapped: rules and stacks of before are no longer those of the same addresses */
	u64 trampoline;   /* where the kernel makes probed functions return to; 0 while not known */
	u64 loader_state; /* address of the dynamic loader's r_debug.r_state (link.h); 0 while not known */
	u32 unmapping;    /* the loader is at it: code changes once more when it is done */
	u32 children;     /* processes it has made */
	u32 newest;       /* the last number that this slot has given out; the next is MAX_SLOTS further */
	u32 told;         /* how often the loader has changed something; and which of these Python has read the mappings after */
	u32 read;
	u32 checks; /* which CHECK_ of its frees may be made */
};
RECORD_SIZE(struct image, 48);

/* With --check-frees: what may be said of an image's frees. Python gives these; what is lost takes the last two away. */
#define CHECK_FAMILIES 1 /* that a block is not of the kind that the function frees */
#define CHECK_DOUBLE 2	 /* that it was freed before */
#define CHECK_UNKNOWN 4	 /* that no allocator gave it: every allocation since the image began was seen */

/* Where a stack was seen: its site, and when that began (lower half), because it may become another stack's. */
struct origin {
	u32 site;
	u32 began;
};
RECORD_SIZE(struct origin, 8);

/* A block that was freed and has not been given out again. */
struct freed_block {
	u64 key; /* as of an outstanding one; 0: none */
	u32 image;
	u32 families; /* of what gave it; of what freed it, 8 bits higher */
	struct origin allocated;
	struct origin freed;
};
RECORD_SIZE(struct freed_block, 32);

enum misuse_kind {
	MISUSE_MISMATCH = 1, /* freed by a function of another family */
	MISUSE_DOUBLE,	     /* freed before */
	MISUSE_UNKNOWN,	     /* no allocator gave it, or it was freed long before */
};

/* What is wrong with a free, where. Families: tracer/attach/allocators.py; FAMILY_REALLOC where realloc freed. */
struct misuse {
	u32 image;
	u8 kind;
	u8 allocated_by;
	u8 freed_by;
	u8 freed_before_by;
	struct origin allocated;
	struct origin freed;
	struct origin freed_before;
};
RECORD_SIZE(struct misuse, 32);

/* A process's name, as the kernel has it (TASK_COMM_LEN). */
struct comm {
	char name[16];
};
RECORD_SIZE(struct comm, 16);

/* A control group (version 2) and how far below the root it is. */
struct wanted_group {
	u64 id;
	u32 level;
	u32 used;
};
RECORD_SIZE(struct wanted_group, 16);

/* r_debug.r_state: something is about to be unmapped. */
#define RT_DELETE 2

enum event_kind {
	EVENT_MISS = 1, /* a stack that Python must finish */
	EVENT_MAPPINGS, /* the dynamic loader loaded or unloaded something */
	EVENT_EXEC,
	EVENT_ALLOCATED, /* these two only with --trace */
	EVENT_FREED,
	EVENT_WANTED, /* image: the id of a process that is to be traced, at its exec; slot: 1 if it waits */
	EVENT_MISUSE, /* the first of its kind and place */
};

/* Common start of everything in the ring buffer. */
struct event {
	u32 kind;
	u32 slot;
	u32 tid;
	u32 image; /* EVENT_EXEC: the new image's number; else what code the image had */
	u64 ns;
};
RECORD_SIZE(struct event, 24);

/* An allocation or free as it happens. */
struct trace_event {
	struct event head;
	u64 address;
	u64 size;
	u64 site;
};
RECORD_SIZE(struct trace_event, 48);

struct misuse_event {
	struct event head;
	struct misuse what;
};
RECORD_SIZE(struct misuse_event, 56);

/* Read in pieces, because a read that passes the end of the stack fails whole. */
#define COPY_PIECE 1024
struct miss_event {
	struct event head;
	u32 site;
	u32 copied;  /* bytes of data */
	u32 missing; /* one bit for each piece of them that could not be read */
	u32 unread;  /* how many these are */
	u64 pc; /* with INTERRUPTED where a signal stopped it */
	u64 sp; /* data begins at the piece that holds it */
	u64 bp;
	u64 address; /* the new block */
	u8 data[STACK_COPY];
};
RECORD_SIZE(struct miss_event, 72 + STACK_COPY);
_Static_assert(STACK_COPY / COPY_PIECE <= 32, "a bit for each piece");
