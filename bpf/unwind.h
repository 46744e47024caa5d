/* One unwind step: an encoded rule and a frame's registers give the caller's registers.
 *
 * Plain C for BPF and for gcc. The includer defines u32, u64 and s64, and READ_USER(destination, size, address),
 * which copies from the traced program's memory and returns 0 on success (in BPF: bpf_probe_read_user).
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
    UCONTEXT_RBP = 120,        /* offsetof(ucontext_t, uc_mcontext.gregs[REG_RBP]), x86-64 Linux */
    UCONTEXT_RSP_RIP = 160,    /* the same of REG_RSP; REG_RIP is its neighbour */
};

struct unwind_regs {
    u64 pc, sp, bp;
};

/* 512 bytes hold several frames of most programs; reading them costs little more than reading one word. */
#define WINDOW_WORDS 64
#define WINDOW_BYTES (WINDOW_WORDS * 8)

/* A copy of the stack from `at` upwards, so that most frames cost no read of their own. */
#define WINDOW_NOWHERE (1ULL << 63) /* far from any user address: nothing is copied */
struct unwind_window {
    u64 at;
    u64 rule;
    u64 words[WINDOW_WORDS];
};

/* Continue where a signal interrupted the program: `regs->sp` points at the kernel's ucontext. */
static __attribute__((always_inline)) inline int unwind_signal(struct unwind_regs *regs)
{
    u64 bp, sp_pc[2];

    if (READ_USER(sp_pc, sizeof(sp_pc), regs->sp + UCONTEXT_RSP_RIP) ||
        READ_USER(&bp, sizeof(bp), regs->sp + UCONTEXT_RBP))
        return STEP_UNREADABLE;
    if (!sp_pc[1]) /* a call through a null pointer: where it came from is not known here */
        return STEP_END;
    /* No check that sp goes up: the handler may have had a stack of its own (sigaltstack). */
    regs->sp = sp_pc[0];
    regs->pc = sp_pc[1];
    regs->bp = bp;
    return STEP_OK;
}

/* What is true of every frame but a signal's; the words were read. */
static __attribute__((always_inline)) inline int unwind_finish(struct unwind_regs *regs, u64 cfa, u64 pc, u64 bp)
{
    if (!pc) /* what clone() and program starters leave below the first frame */
        return STEP_END;
    regs->bp = bp;
    regs->pc = pc;
    regs->sp = cfa;
    return STEP_OK;
}

/* All bits where x is 0, none elsewhere, without a branch: BPF's verifier would follow both sides of each. */
static __attribute__((always_inline)) inline u64 mask_of_zero(u64 x)
{
    u64 mask = (s64)((x - 1) & ~x) >> 63;

    /* Or the compiler sees what it is, and makes branches of it. */
    asm volatile("" : "+r"(mask));
    return mask;
}

/* Any rule, word by word. The rule comes from memory, so that BPF's verifier knows nothing of it: what is known of a
 * number makes a case of its own, each of which it follows to the end. */
static __attribute__((always_inline)) inline int unwind_slowly(const volatile u64 *rule_at, struct unwind_regs *regs)
{
    u64 rule = *rule_at;
    u32 kind = rule & RULE_KIND_MASK;
    u32 bp_kind = rule >> BP_KIND_SHIFT & RULE_KIND_MASK;
    s64 bp_offset = (s64)(rule << 32) >> 40; /* bits 8-31 with their sign */
    u64 cfa = regs->bp + ((s64)rule >> 32), pc, bp = regs->bp, saved;

    if (kind == RULE_SIGNAL)
        return unwind_signal(regs);
    if (kind == RULE_END)
        return STEP_END;
    if (kind == RULE_CFA_SP) {
        cfa = regs->sp + ((s64)rule >> 32);
    } else if (kind == RULE_CFA_DEREF_BP) {
        if (READ_USER(&cfa, sizeof(cfa), cfa))
            return STEP_UNREADABLE;
    } else if (kind == RULE_FRAME_POINTER) {
        if (bp < regs->sp) /* rbp is in use as an ordinary register */
            return STEP_STUCK;
        cfa = bp + 16;
        bp_kind = BP_AT_CFA;
        bp_offset = -16;
    } else if (kind != RULE_CFA_BP) {
        return STEP_UNSUPPORTED;
    }
    if (cfa <= regs->sp) /* the stack grows down, so each caller lies higher: this alone ends every loop */
        return STEP_STUCK;
    if (READ_USER(&pc, sizeof(pc), cfa - sizeof(pc)))
        return STEP_UNREADABLE;
    saved = (cfa & mask_of_zero(bp_kind ^ BP_AT_CFA)) + (bp & mask_of_zero(bp_kind ^ BP_AT_BP)) + bp_offset;
    if (bp_kind && READ_USER(&bp, sizeof(bp), saved))
        return STEP_UNREADABLE;
    return unwind_finish(regs, cfa, pc, bp);
}

/* Replace `regs` by the caller's registers, if the result is STEP_OK; else leave them alone.
 *
 * The new pc is a return address, to be looked up as pc - 1, except after RULE_SIGNAL: there it is the interrupted
 * instruction itself.
 */
static __attribute__((always_inline)) inline int unwind_step(u64 rule, struct unwind_regs *regs,
                                                             struct unwind_window *window)
{
    u64 kind = rule & RULE_KIND_MASK;
    u64 bp_kind = rule >> BP_KIND_SHIFT & RULE_KIND_MASK;
    u64 by_sp = mask_of_zero(kind ^ RULE_CFA_SP), by_cfa = mask_of_zero(bp_kind ^ BP_AT_CFA);
    u64 unsaved = mask_of_zero(bp_kind);
    u64 cfa = (regs->sp & by_sp | regs->bp & ~by_sp) + ((s64)rule >> 32);
    u64 saved = (cfa & by_cfa | regs->bp & ~by_cfa) + ((s64)(rule << 32) >> 40);
    u64 at_pc, at_bp;

    /* CFA_SP or CFA_BP, upwards; everything else is rare. */
    if (kind - RULE_CFA_SP <= RULE_CFA_BP - RULE_CFA_SP && cfa > regs->sp) {
        if (cfa - window->at > WINDOW_BYTES) {
            /* From this frame on; a frame larger than the window has its return address at its end. */
            window->at = cfa - regs->sp > WINDOW_BYTES ? cfa - 16 : regs->sp;
            if (READ_USER(window->words, WINDOW_BYTES, window->at))
                window->at = WINDOW_NOWHERE; /* near the end of the stack a whole window is not to be had */
        }
        at_pc = cfa - 8 - window->at;
        at_bp = (saved - window->at & ~unsaved) | (at_pc & unsaved);
        if (!((at_pc | at_bp) & ~(WINDOW_BYTES - 8ULL))) /* inside, and multiples of 8 */
            return unwind_finish(regs, cfa, window->words[at_pc >> 3 & (WINDOW_WORDS - 1)],
                                 window->words[at_bp >> 3 & (WINDOW_WORDS - 1)] & ~unsaved | regs->bp & unsaved);
    }
    window->rule = rule;
    return unwind_slowly(&window->rule, regs);
}
