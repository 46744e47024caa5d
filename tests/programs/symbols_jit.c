/*
 * symbols_jit: code made at run time, with its name in /tmp/perf-PID.map, PID as the process itself sees it; the file's
 * mode is the first argument, in octal. Answer: 3006 bytes from keep(), called by MadeAtRunTime, called by main().
 */
#include "talk.c"

#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void *volatile block;
/* push %rbp; mov %rsp,%rbp; call *%rdi; pop %rbp; ret */
static const unsigned char made[] = {0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3};

NOINLINE static void keep(void)
{
	block = malloc(3006);
	say("{\"bytes\": 3006}\n");
}

NOINLINE static void write_map(const void *code, mode_t mode)
{
	char path[64];
	FILE *map;

	snprintf(path, sizeof(path), "/tmp/perf-%d.map", getpid());
	map = fopen(path, "w");
	require(map != NULL, "the map can be written");
	fprintf(map, "%lx %zx MadeAtRunTime\n", (unsigned long)code, sizeof(made));
	fclose(map);
	require(chmod(path, mode) == 0, "the map's mode can be set");
}

int main(int argc, char **argv)
{
	void *code = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	require(code != MAP_FAILED, "memory can be executable");
	memcpy(code, made, sizeof(made));
	write_map(code, argc > 1 ? strtol(argv[1], NULL, 8) : 0644);
	say("ready\n");
	wait_line();
	((void (*)(void (*)(void)))code)(keep);
	say("end\n");
	wait_line();
	return 0;
}
