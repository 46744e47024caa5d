/*
 * Runs under a seccomp filter that kills it for any system call number above 334, as filters that list what they know
 * do. Prints "ready"; for a line on standard input keeps 3 blocks of 100 bytes from keep(), prints "end"; ends with 0
 * after another line.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>

static void *volatile kept[3];

__attribute__((noinline)) static void keep(void)
{
	for (int i = 0; i < 3; i++)
		kept[i] = malloc(100);
}

int main(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 334, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
	char line[16];

	setvbuf(stdout, NULL, _IONBF, 0);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program))
		return 1;
	puts("ready");
	if (!fgets(line, sizeof line, stdin))
		return 2;
	keep();
	puts("end");
	return fgets(line, sizeof line, stdin) ? 0 : 3;
}
