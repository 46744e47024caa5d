/* The kernel options BCC's prelude asks about; leaktrace reads no kernel struct, so these are all. */
#ifndef LEAKTRACE_KCONFIG_H
#define LEAKTRACE_KCONFIG_H
#define CONFIG_BPF_SYSCALL 1
#define CONFIG_BPF_EVENTS 1
#endif
