/* BCC's prelude rounds the page count of perf and ring buffers up to a power of two at compile time. */
#ifndef LEAKTRACE_LOG2_H
#define LEAKTRACE_LOG2_H
#define roundup_pow_of_two(n) ((n) <= 1 ? 1UL : 1UL << (64 - __builtin_clzl((unsigned long)(n) - 1)))
#endif
