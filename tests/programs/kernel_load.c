/*
 * kernel_load KIND: has the kernel allocate and free in a loop, and prints every quarter of a second "rate
 * ROUNDS_PER_SECOND" and "processor MICROSECONDS", the processor time of a round with that of its child. Nothing is held
 * from one round to the next; it leaks nothing. One round of each kind:
 *   devices      /dev/null opened and closed, and a pair of UNIX sockets made and closed
 *   files        an empty file made and removed, on a tmpfs that nobody else sees; needs root
 *   processes    a pipe made, a child forked that executes this program, which ends at once, and waited for
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const double INTERVAL_S = 0.25;

static int folder = -1;

static void require(int holds, const char *what)
{
	if (holds)
		return;
	perror(what);
	exit(1);
}

static void make_folder(void)
{
	char path[] = "/tmp/kernel_load.XXXXXX";

	require(mkdtemp(path) && mount("leaktrace", path, "tmpfs", 0, NULL) == 0, "mount");
	folder = open(path, O_RDONLY | O_DIRECTORY);
	require(folder >= 0 && umount2(path, MNT_DETACH) == 0 && rmdir(path) == 0, "a tmpfs that nobody else sees");
}

static void use_devices(void)
{
	int file = open("/dev/null", O_RDONLY), ends[2];

	require(file >= 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "/dev/null or socketpair");
	close(file);
	close(ends[0]);
	close(ends[1]);
}

static void use_file(void)
{
	int file = openat(folder, "file", O_CREAT | O_EXCL | O_RDWR, 0600);

	require(file >= 0, "openat");
	close(file);
	require(unlinkat(folder, "file", 0) == 0, "unlinkat");
}

static void use_process(void)
{
	int ends[2], status;
	pid_t child;
	char byte;

	require(pipe(ends) == 0, "pipe");
	child = fork();
	require(child >= 0, "fork");
	if (child == 0) {
		execl("/proc/self/exe", "kernel_load", "end", NULL);
		_exit(1);
	}
	close(ends[1]);
	/* The child has the other end, and its end closes it. */
	require(read(ends[0], &byte, 1) == 0, "read");
	close(ends[0]);
	require(waitpid(child, &status, 0) == child && status == 0, "waitpid");
}

static double now_s(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static double seconds(struct timeval time)
{
	return (double)time.tv_sec + (double)time.tv_usec / 1e6;
}

static double processor_s(void)
{
	struct rusage own, children;

	require(getrusage(RUSAGE_SELF, &own) == 0 && getrusage(RUSAGE_CHILDREN, &children) == 0, "getrusage");
	return seconds(own.ru_utime) + seconds(own.ru_stime) + seconds(children.ru_utime) + seconds(children.ru_stime);
}

static void repeat(void (*round)(void), int at_once)
{
	double start = now_s(), used = processor_s(), elapsed;
	long rounds = 0;

	for (;;) {
		for (int i = 0; i < at_once; i++)
			round();
		rounds += at_once;
		elapsed = now_s() - start;
		if (elapsed < INTERVAL_S)
			continue;
		printf("rate %.1f\n", (double)rounds / elapsed);
		printf("processor %.4f\n", (processor_s() - used) / (double)rounds * 1e6);
		start = now_s();
		used = processor_s();
		rounds = 0;
	}
}

int main(int count, char **words)
{
	const char *kind = count > 1 ? words[1] : "";

	if (!strcmp(kind, "end"))
		return 0;
	setvbuf(stdout, NULL, _IOLBF, 256);
	if (!strcmp(kind, "devices"))
		repeat(use_devices, 64);
	if (!strcmp(kind, "files")) {
		make_folder();
		repeat(use_file, 64);
	}
	if (!strcmp(kind, "processes"))
		repeat(use_process, 1);
	fprintf(stderr, "kernel_load devices|files|processes\n");
	return 2;
}
