/*
 * Every way an event can be lost, in the order of the losses map.
 *
 * Each loss carries how often, and how many bytes of the program's memory it concerns. tracer/losses.py says what each
 * means for the figures; a test compares the names.
 */
enum loss {
	LOSS_OUTSTANDING_FULL, /* a block was not recorded: no room among the outstanding */
	LOSS_SITES_FULL,       /* a block was counted at no site: no room for another stack */
	LOSS_IN_FLIGHT,        /* an allocation returned whose beginning was not seen, or began and could not be noted */
	LOSS_MISSED_FREE,      /* an address was given out again though its free was not seen */
	LOSS_STACK_NO_COPY,    /* a stack is shorter than it should be: no room in the ring buffer */
	LOSS_STACK_UNREADABLE, /* a stack is shorter: its memory could not be read */
	LOSS_STACK_UNSUPPORTED, /* a stack is shorter: the compiler's rule is not followed */
	LOSS_STACK_DEPTH,      /* a stack is deeper than --depth */
	LOSS_EVENT,            /* an event (exec, new library, --trace line) found no room in the ring buffer */
	LOSS_RESULT_UNREADABLE, /* the pointer an allocator stored could not be read */
	LOSS_LATE,             /* a process of the selection ran before it was traced; Python counts these */
	LOSS_MISUSES_FULL,     /* a misused free was not counted: no room for another pair of stacks */
	LOSS_NESTED,           /* kernel: an event that interrupted others; Python adds those that the kernel skipped */
	LOSS_BULK,             /* kernel: objects were freed together, more than are looked at */
	LOSS_STACK_CORRECTED,  /* kernel: the faster walk of a stack was wrong, and was put right */
	LOSSES
};
