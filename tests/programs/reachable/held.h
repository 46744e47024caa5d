/*
 * What the programs share whose blocks are held in known ways at their end.
 *
 * Each says in its first comment how many of its own blocks are of which kind when it ends. A pointer that counts lies
 * in a global or in the frame of a function that calls end(); all others are cleared, and so is the dead stack below.
 */
#ifndef HELD_H
#define HELD_H

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define NOINLINE __attribute__((noinline, noclone))

/* Makes the compiler believe that a pointer is used, so that no allocation is left out. */
static inline void *use(void *pointer)
{
	__asm__ volatile("" : "+r"(pointer) : : "memory");
	return pointer;
}

/*
 * Overwrites the stack below the caller's frame, where pointers of calls that are over may still lie. In the caller
 * itself, and not in a function: the gaps in that one's frame would stay as they are.
 */
#define clear_stack() \
	__asm__ volatile("sub $32768, %%rsp\n\tmov %%rsp, %%rdi\n\tmov $4096, %%ecx\n\txor %%eax, %%eax\n\t" \
			 "rep stosq\n\tadd $32768, %%rsp" : : : "rax", "rcx", "rdi", "memory", "cc")

/* Ends the program without a pointer in a register, so that none gets back into the stack. */
NOINLINE static void leave(void)
{
	__asm__ volatile("xor %%ebx, %%ebx\n\txor %%r12d, %%r12d\n\txor %%r13d, %%r13d\n\txor %%r14d, %%r14d\n\t"
			 "xor %%r15d, %%r15d\n\txor %%edx, %%edx\n\txor %%esi, %%esi\n\txor %%r8d, %%r8d\n\t"
			 "xor %%r9d, %%r9d\n\txor %%r10d, %%r10d\n\txor %%r11d, %%r11d"
			 : : : "rbx", "r12", "r13", "r14", "r15", "rdx", "rsi", "r8", "r9", "r10", "r11", "cc");
	exit(0);
}

/* Ends the program while the caller's frame is alive. */
#define end() \
	do { \
		clear_stack(); \
		leave(); \
	} while (0)

#endif
