/* One unwind step: an encoded rule and a frame's registers give the caller's registers.
 *
 * Plain C for BPF and for gcc. The includer defines u32, u64 and s64, and READ_STACK(memory, destination, words,
 * address), which copies 1 or 2 words of 8 bytes from the traced program's stack and returns 0 on success; memory is
 * whatever it was given.
 *
 * A rule is the u64 of UnwindRule.encode() in symbolizer/cfa_program.py:
 * bits 0-3 rule_kind, 4-7 bp_kind, 8-31 offset of the saved rbp (signed), 32-63 offset of the CFA (signed).
 */

/* The canonical frame address (CFA) is the value of rsp in the caller, after the return. */
enum rule_kind {
    RULE_UNKNOWN = 0,       /* no call frame information there */
    RULE_CFA_SP = 1,        /* CFA = rsp + offset */
    RULE_CFA_BP = 2,        /* CFA = rbp + offset */
    RULE_CFA_DEREF_BP = 3,  /* CFA = the 8 bytes at rbp + offset */
    RULE_END = 4,           /* outermost frame */
    RULE_SIGNAL = 5,        /* rsp points at a ucontext */
    RULE_FRAME_POINTER = 6, /* CFA = rbp + 16, rbp saved at CFA - 16, whatever the offsets say */
    RULE_UNSUPPORTED = 7,   /* call frame information of another kind */
};

enum bp_kind {
    BP_UNCHANGED = 0, /* still in rbp */
    BP_AT_CFA = 1,    /* saved at CFA + offset */
    BP_AT_BP = 2,     /* saved at rbp + offset */
};

enum unwind_result {
    STEP_OK,
    STEP_END,         /* there is no caller: the stack is complete */
    STEP_UNREADABLE,  /* the stack's memory could not be read */
    STEP_UNSUPPORTED, /* the rule says that it does not know */
    STEP_STUCK,       /* the caller's frame would not lie above this one: the rule or the registers are wrong */
};

enum {
    RULE_KIND_MASK = 0xf,      /* bits 0-3 */
    BP_KIND_SHIFT = 4,         /* bits 4-7 */
    FRAME_HEAD = 16,           /* bytes of saved rbp and return address when they are neighbours below the CFA */
    UCONTEXT_RBP = 120,        /* offsetof(ucontext_t, uc_mcontext.gregs[REG_RBP]), x86-64 Linux */
    UCONTEXT_RSP_RIP = 160,    /* the same of REG_RSP; REG_RIP is its neighbour */
};

/* All that follows bit 3 of a rule's lower half when rbp is saved at CFA - 16. */
#define BP_BELOW_RETURN_ADDRESS ((u32)-FRAME_HEAD << 8 | BP_AT_CFA << BP_KIND_SHIFT)

struct unwind_regs {
    u64 pc, sp, bp;
};

/* Continue where a signal interrupted the program: `regs->sp` points at the kernel's ucontext. */
static __attribute__((always_inline)) inline int unwind_signal(struct unwind_regs *regs, void *memory)
{
    u64 bp, sp_pc[2];

    if (READ_STACK(memory, sp_pc, 2, regs->sp + UCONTEXT_RSP_RIP) ||
        READ_STACK(memory, &bp, 1, regs->sp + UCONTEXT_RBP))
        return STEP_UNREADABLE;
    if (!sp_pc[1]) /* a call through a null pointer: where it came from is not known here */
        return STEP_END;
    /* No check that sp goes up: the handler may have had a stack of its own (sigaltstack). */
    regs->sp = sp_pc[0];
    regs->pc = sp_pc[1];
    regs->bp = bp;
    return STEP_OK;
}

/* Replace `regs` by the caller's registers, if the result is STEP_OK; else leave them alone.
 *
 * The new pc is a return address, to be looked up as pc - 1, except after RULE_SIGNAL: there it is the interrupted
 * instruction itself.
 */
static __attribute__((always_inline)) inline int unwind_step(u64 rule, struct unwind_regs *regs, void *memory)
{
    u32 kind = rule & RULE_KIND_MASK;
    u32 bp_rule = (u32)rule & ~(u32)RULE_KIND_MASK;
    s64 cfa_offset = (s64)rule >> 32;
    u64 head[2]; /* saved rbp, return address: as they lie in memory below the CFA */
    u64 cfa;

    if (kind == RULE_CFA_SP) {
        cfa = regs->sp + cfa_offset;
    } else if (kind == RULE_CFA_BP) {
        cfa = regs->bp + cfa_offset;
    } else if (kind == RULE_FRAME_POINTER) {
        if (regs->bp < regs->sp) /* rbp is in use as an ordinary register */
            return STEP_STUCK;
        cfa = regs->bp + FRAME_HEAD;
        bp_rule = BP_BELOW_RETURN_ADDRESS;
    } else if (kind == RULE_CFA_DEREF_BP) {
        if (READ_STACK(memory, &cfa, 1, regs->bp + cfa_offset))
            return STEP_UNREADABLE;
    } else if (kind == RULE_SIGNAL) {
        return unwind_signal(regs, memory);
    } else {
        return kind == RULE_END ? STEP_END : STEP_UNSUPPORTED;
    }

    if (cfa <= regs->sp) /* the stack grows down, so each caller lies higher: this alone ends every loop */
        return STEP_STUCK;

    if (bp_rule == BP_BELOW_RETURN_ADDRESS) {
        if (READ_STACK(memory, head, 2, cfa - FRAME_HEAD))
            return STEP_UNREADABLE;
    } else {
        head[0] = regs->bp;
        if (READ_STACK(memory, &head[1], 1, cfa - sizeof(head[1])))
            return STEP_UNREADABLE;
        if (bp_rule) {
            u64 base = bp_rule >> BP_KIND_SHIFT & RULE_KIND_MASK;
            s64 bp_offset = (s64)(rule << 32) >> 40; /* bits 8-31 with their sign */

            base = base == BP_AT_CFA ? cfa : regs->bp;
            if (READ_STACK(memory, &head[0], 1, base + bp_offset))
                return STEP_UNREADABLE;
        }
    }

    if (!head[1]) /* what clone() and program starters leave below the first frame */
        return STEP_END;
    regs->bp = head[0];
    regs->pc = head[1];
    regs->sp = cfa;
    return STEP_OK;
}
