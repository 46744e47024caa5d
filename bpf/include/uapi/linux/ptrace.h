/* User registers as the kernel saves them on x86-64 (arch/x86/include/asm/ptrace.h), BCC's PT_REGS_* names them. */
#ifndef LEAKTRACE_PTRACE_H
#define LEAKTRACE_PTRACE_H
#include <linux/types.h>
struct pt_regs {
	unsigned long r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};
#endif
