/* BCC stamps programs with this; kernels since 5.0 ignore the stamp (commit 6c4fc209fcf9). */
#ifndef LEAKTRACE_VERSION_H
#define LEAKTRACE_VERSION_H
#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))
#define LINUX_VERSION_CODE KERNEL_VERSION(5, 10, 0)
#endif
