/*
 * live_bare: a program without any library and without an allocator, for 64 and (-m32) 32 bits. It waits until it is
 * ended. Built with -nostdlib -static.
 */
void _start(void);

void _start(void)
{
	for (;;)
#ifdef __x86_64__
		__asm__ volatile("syscall" : : "a"(34) /* pause */ : "rcx", "r11", "memory");
#else
		__asm__ volatile("int $0x80" : : "a"(29) /* pause */ : "memory");
#endif
}
