/* What a trace of the kernel keeps, mirrored by tracer/collect/kernel_records.py and compared with it at load. */

/* Where memory came from. In a block's key it lies above the address. */
enum kernel_source {
	SOURCE_PAGES = 1,
	SOURCE_PERCPU,
	SOURCE_VMALLOC,
	SOURCE_SLAB = 15,
};
#define SOURCE_SHIFT 60
#define KERNEL_KEY(source, address) ((u64)(source) << SOURCE_SHIFT | ((address) & ((1ULL << SOURCE_SHIFT) - 1)))
/* Bit by bit the opposite: kmemleak looks through our tables too, and what they point to it would call no leak. */
#define SLAB_KEY(address) KERNEL_KEY(SOURCE_SLAB, ~(address))

/* Places in the kernel that tell of memory. */
enum point {
	POINT_KMALLOC,
	POINT_KMALLOC_NODE,
	POINT_CACHE_ALLOC,
	POINT_CACHE_ALLOC_NODE,
	POINT_PAGE_ALLOC,
	POINT_PERCPU_ALLOC,
	POINT_VMALLOC,
	POINT_KFREE,
	POINT_CACHE_FREE,
	POINT_PAGE_FREE,
	POINT_PERCPU_FREE,
	POINT_VFREE,
	POINT_CACHE_FREE_BULK,
	POINT_KFREE_RCU,
	POINT_CACHE_ALLOC_BULK,
	POINTS = 16
};

/* What is said of one site beside its counters, once. */
struct kernel_site {
	u64 wasted_bytes; /* of live blocks: what they take beyond what was asked for */
	u64 unseen_frees; /* of its blocks: given out again though their free was not seen */
	u64 cache;	  /* struct kmem_cache *, 0 where the kernel does not say */
	u32 source;
	u16 point;
	u16 node; /* that the memory is meant to be from: as asked for, else that of the processor */
	u32 gfp;
	u32 order;
	char name[32]; /* of the cache */
};
RECORD_SIZE(struct kernel_site, 72);

/* The function that the kernel's own account charges for a site; empty where it charges nobody. */
struct kernel_charged {
	char function[64];
};
RECORD_SIZE(struct kernel_charged, 64);

/* How the kernel's stack leads from one return address to the next: learnt by Python from stacks that were walked. */
#define KERNEL_RULE_STEP 1 /* the next one lies so many bytes further */
#define KERNEL_RULE_END 2  /* the last one; it lies at this place in its stack, in words from 1, 0 for any */
#define KERNEL_RULE_ALIGNED 3 /* so many bytes, or a word more: a function that aligns its stack to 16 bytes */
#define KERNEL_RULE_PLACE 4   /* the next one lies at this place in its stack, in words from 1: randomized offsets */
#define KERNEL_RULE_STALE 5   /* no address that stacks lead through, but what calls that have ended left there */
#define KERNEL_RULE(rule) ((rule) & 0xff)
#define KERNEL_RULE_VALUE(rule) ((rule) >> 8)
/* In place of an address: from the program's arguments to the first return address. No address is that small. */
#define KERNEL_RULE_BEGIN(point) (0x100 + (point))

/* The kernel's code and its modules', up to MODULES_END (Documentation/arch/x86/x86_64/mm.rst). */
#define KERNEL_TEXT 0xffffffff80000000
#define KERNEL_TEXT_BYTES 0x7f000000

/* Kernel stacks on x86-64 (THREAD_SIZE, IRQ_STACK_SIZE): so large, and aligned to that. */
#define KERNEL_STACK 16384
#define KERNEL_WINDOW 512

/* A stack as the kernel walks it, with its memory: what rules are learnt from. */
#define KERNEL_COPY 8192
#define KERNEL_PIECE 512
struct kernel_miss {
	u16 point;
	u16 skip; /* frames that were left out before the first one */
	u32 depth;
	u64 context; /* where the program's arguments lie, and the copy begins */
	u64 copied;  /* bytes */
	u64 addresses[KERNEL_FRAMES];
	u8 data[KERNEL_COPY];
};
RECORD_SIZE(struct kernel_miss, 24 + 8 * KERNEL_FRAMES + KERNEL_COPY);

/* The name of a process that has ended. */
struct process_name {
	char comm[16];
};
