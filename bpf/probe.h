/*
 * What a probe must do, packed into the 64 bits that come with it (the attach cookie).
 *
 * One program serves every allocator function; its table is tracer/attach/allocators.py.
 */
enum probe_action {
	ACTION_ALLOCATE = 1,
	ACTION_REALLOCATE, /* pointer is the old block */
	ACTION_RESIZE,     /* jemalloc's xallocx: in place or not at all, returns the size it reached */
	ACTION_FREE,
	ACTION_EXIT, /* a return instruction of a function with PROBE_THROWS */
};

#define PROBE_ACTION(probe) ((u32)(probe) & 0xff)
#define PROBE_SIZE(probe) ((u32)((probe) >> 8) & 0xf)
#define PROBE_COUNT(probe) ((u32)((probe) >> 12) & 0xf)   /* size is multiplied by this argument */
#define PROBE_POINTER(probe) ((u32)((probe) >> 16) & 0xf) /* the block that is freed or resized */
#define PROBE_RESULT(probe) ((u32)((probe) >> 20) & 0xf)  /* the argument that says where the result is stored */
#define PROBE_FAMILY(probe) ((u32)((probe) >> 24) & 0xff)
#define PROBE_FLAGS(probe) ((u32)((probe) >> 32) & 0xff)
#define PROBE_SLOT(probe) ((u32)((probe) >> 40) & 0xffff)

/* In place of an argument's number: the result is the return value, the size has no factor. */
#define NO_ARGUMENT 15

/*
 * An exception can leave the function. A return probe puts the kernel's trampoline where the return address was, and
 * the C++ unwinder ends the program there; so this function is probed at its return instructions instead.
 */
#define PROBE_THROWS 1
/* It calls another probed function to do its work, which must not be counted even when this one is not sampled. */
#define PROBE_NESTS 2
/* Its file hands out and takes back blocks by probed functions only, so that what it freed is its own until then. */
#define PROBE_CLOSED 4
