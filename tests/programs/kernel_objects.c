/*
 * kernel_objects: has the kernel make objects, and keeps them or gives them back, on command. A line is a command:
 *   make KIND COUNT [BYTES]    COUNT more of it, each with BYTES of data where the kind has any
 *   free KIND [COUNT]          the newest COUNT, or all
 *   anything else              nothing; only tells
 * Answer: one JSON line for every kind, what was made, what was freed, what is held and with how many bytes of data.
 * Needs root, and CAP_SYS_RESOURCE for more than 256 queues or as many files as the limit says. Each kind has its own
 * function for making one, make_...(), so that a user's stack names it.
 *
 * The kernel frees keys in a thread of its own and many other objects after a grace period, so a moment after "end".
 */
#define _GNU_SOURCE
#include "talk.c"
#include <fcntl.h>
#include <linux/keyctl.h>
#include <mqueue.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>

enum { MOST = 1 << 15, FILES = 1 << 18 };

/* What names one object; most need one number only. */
struct handle {
	int first, second;
};

struct kind {
	const char *name;
	struct handle (*make)(size_t bytes);
	void (*release)(struct handle handle);
	uint64_t made, freed, held_bytes;
	size_t sizes[MOST];
	struct handle held[MOST];
};

/* A tmpfs that nobody else sees, the files that are shared by all objects of a kind, and data to fill them with. */
static int directory, watcher, poller, polled;
static int serial;
static char data[1 << 20];

static void fill(int file, size_t bytes)
{
	while (bytes) {
		size_t part = bytes < sizeof(data) ? bytes : sizeof(data);

		require(write(file, data, part) == (ssize_t)part, "the data fits");
		bytes -= part;
	}
}

static void name_next(char name[32])
{
	snprintf(name, 32, "leaktrace-%d-%d", getpid(), serial++);
}

static void close_both(struct handle handle)
{
	close(handle.first);
	if (handle.second >= 0)
		close(handle.second);
}

NOINLINE static struct handle make_socketpair(size_t bytes)
{
	int ends[2];

	require(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0, "socketpair");
	fill(ends[0], bytes);
	return (struct handle){ ends[0], ends[1] };
}

NOINLINE static struct handle make_pipe(size_t bytes)
{
	int ends[2];

	require(pipe(ends) == 0, "pipe");
	require(bytes <= 65536 || fcntl(ends[1], F_SETPIPE_SZ, bytes) >= (int)bytes, "a pipe that is large enough");
	fill(ends[1], bytes);
	return (struct handle){ ends[0], ends[1] };
}

/* One inode has one watch of an inotify instance, so each has a file of its own. */
NOINLINE static struct handle make_watch(size_t bytes)
{
	char name[32], path[64];
	int file, number = serial;

	name_next(name);
	file = openat(directory, name, O_CREAT | O_EXCL | O_RDWR, 0600);
	require(file >= 0, "a file to watch");
	fill(file, bytes);
	close(file);
	snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", directory, name);
	file = inotify_add_watch(watcher, path, IN_ATTRIB);
	require(file >= 0, "inotify_add_watch");
	return (struct handle){ file, number };
}

static void release_watch(struct handle handle)
{
	char name[64];

	snprintf(name, sizeof(name), "leaktrace-%d-%d", getpid(), handle.second);
	require(inotify_rm_watch(watcher, handle.first) == 0, "inotify_rm_watch");
	require(unlinkat(directory, name, 0) == 0, "unlink");
}

NOINLINE static struct handle make_key(size_t bytes)
{
	char name[32];
	int key;

	name_next(name);
	key = syscall(SYS_add_key, "user", name, data, bytes ? bytes : 1, KEY_SPEC_PROCESS_KEYRING);
	require(key > 0, "add_key");
	return (struct handle){ key, -1 };
}

static void release_key(struct handle handle)
{
	require(syscall(SYS_keyctl, KEYCTL_UNLINK, handle.first, KEY_SPEC_PROCESS_KEYRING) == 0, "keyctl unlink");
}

NOINLINE static struct handle make_unlinked_file(size_t bytes)
{
	char name[32];
	int file;

	name_next(name);
	file = openat(directory, name, O_CREAT | O_EXCL | O_RDWR, 0600);
	require(file >= 0 && unlinkat(directory, name, 0) == 0, "an unlinked file");
	fill(file, bytes);
	return (struct handle){ file, -1 };
}

NOINLINE static struct handle make_eventfd(size_t bytes)
{
	int file = eventfd(bytes, 0);

	require(file >= 0, "eventfd");
	return (struct handle){ file, -1 };
}

/* An item stands for a file and its number: one file under many numbers has many, and no other object is made. */
NOINLINE static struct handle make_epoll_item(size_t bytes)
{
	struct epoll_event event = { .events = EPOLLIN, .data.u64 = bytes };
	int file = dup(polled);

	require(file >= 0 && epoll_ctl(poller, EPOLL_CTL_ADD, file, &event) == 0, "epoll_ctl");
	return (struct handle){ file, -1 };
}

static void release_epoll_item(struct handle handle)
{
	require(epoll_ctl(poller, EPOLL_CTL_DEL, handle.first, NULL) == 0, "epoll_ctl");
	close(handle.first);
}

/* The system call, as the library's own function keeps a block of its heap for some timers. */
NOINLINE static struct handle make_timer(size_t bytes)
{
	struct sigevent event = { .sigev_notify = SIGEV_NONE, .sigev_value.sival_int = bytes };
	int timer;

	require(syscall(SYS_timer_create, CLOCK_MONOTONIC, &event, &timer) == 0, "timer_create");
	return (struct handle){ timer, -1 };
}

static void release_timer(struct handle handle)
{
	require(syscall(SYS_timer_delete, handle.first) == 0, "timer_delete");
}

NOINLINE static struct handle make_queue(size_t bytes)
{
	struct mq_attr attributes = { .mq_maxmsg = 1, .mq_msgsize = bytes ? bytes : 1 };
	char name[33] = "/";
	mqd_t queue;

	name_next(name + 1);
	queue = mq_open(name, O_CREAT | O_EXCL | O_RDWR, 0600, &attributes);
	require(queue >= 0 && mq_unlink(name) == 0, "mq_open");
	require(bytes == 0 || mq_send(queue, data, bytes, 0) == 0, "mq_send");
	return (struct handle){ queue, -1 };
}

NOINLINE static struct handle make_memfd(size_t bytes)
{
	int file = memfd_create("leaktrace", 0);

	require(file >= 0, "memfd_create");
	fill(file, bytes);
	return (struct handle){ file, -1 };
}

static struct kind kinds[] = {
	{ .name = "socketpairs", .make = make_socketpair, .release = close_both },
	{ .name = "pipes", .make = make_pipe, .release = close_both },
	{ .name = "watches", .make = make_watch, .release = release_watch },
	{ .name = "keys", .make = make_key, .release = release_key },
	{ .name = "unlinked_files", .make = make_unlinked_file, .release = close_both },
	{ .name = "eventfds", .make = make_eventfd, .release = close_both },
	{ .name = "epoll_items", .make = make_epoll_item, .release = release_epoll_item },
	{ .name = "timers", .make = make_timer, .release = release_timer },
	{ .name = "queues", .make = make_queue, .release = close_both },
	{ .name = "memfds", .make = make_memfd, .release = close_both },
};
enum { KINDS = sizeof(kinds) / sizeof(kinds[0]) };

static void make(struct kind *kind, uint64_t count, size_t bytes)
{
	for (; count; count--) {
		uint64_t at = kind->made - kind->freed;

		require(at < MOST, "there is room for one more");
		kind->held[at] = kind->make(bytes);
		kind->sizes[at] = bytes;
		kind->held_bytes += bytes;
		kind->made++;
	}
}

static void release(struct kind *kind, uint64_t count)
{
	for (; count && kind->made > kind->freed; count--) {
		uint64_t at = kind->made - kind->freed - 1;

		kind->release(kind->held[at]);
		kind->held_bytes -= kind->sizes[at];
		kind->freed++;
	}
}

static void obey(const char *line)
{
	char verb[16] = "", name[32] = "";
	unsigned long count = 0, bytes = 0;
	int words = sscanf(line, "%15s %31s %lu %lu", verb, name, &count, &bytes);

	for (int at = 0; words >= 2 && at < KINDS; at++) {
		if (strcmp(name, kinds[at].name))
			continue;
		if (!strcmp(verb, "make"))
			make(&kinds[at], count, bytes);
		else if (!strcmp(verb, "free"))
			release(&kinds[at], words > 2 ? count : MOST);
		else
			break;
		return;
	}
	require(words < 2, "the command is known");
}

static void read_line(char *line, size_t size)
{
	for (size_t at = 0; at + 1 < size; at++) {
		if (read(0, &line[at], 1) != 1)
			_exit(0);
		line[at + 1] = 0;
		if (line[at] == '\n')
			return;
	}
	require(0, "the line is short enough");
}

/* Without CAP_SYS_RESOURCE, as in many containers, what is allowed is the end: a command that wants more says so. */
static rlim_t raise_limit(int resource, rlim_t most)
{
	struct rlimit limit = { most, most };

	if (setrlimit(resource, &limit) == 0)
		return most;
	require(getrlimit(resource, &limit) == 0, "the limit is known");
	limit.rlim_cur = limit.rlim_max;
	require(setrlimit(resource, &limit) == 0, "the limit can be used up");
	return limit.rlim_max;
}

/* All that is made once, so that nothing of it is made under the eyes of a tracer: also room in the table of files. */
static void prepare(void)
{
	char path[] = "/tmp/kernel_objects.XXXXXX";
	int last = raise_limit(RLIMIT_NOFILE, FILES) - 1;

	memset(data, 'x', sizeof(data));
	for (int at = 0; at < KINDS; at++) {
		memset(kinds[at].held, 0xff, sizeof(kinds[at].held));
		memset(kinds[at].sizes, 0xff, sizeof(kinds[at].sizes));
	}
	raise_limit(RLIMIT_SIGPENDING, RLIM_INFINITY);
	raise_limit(RLIMIT_MSGQUEUE, RLIM_INFINITY);
	require(dup2(0, last) == last, "there is room for many files");
	close(last);
	require(mkdtemp(path) && mount("leaktrace", path, "tmpfs", 0, NULL) == 0, "root may mount a tmpfs");
	directory = open(path, O_RDONLY | O_DIRECTORY);
	require(directory >= 0 && umount2(path, MNT_DETACH) == 0 && rmdir(path) == 0, "a tmpfs that nobody else sees");
	watcher = inotify_init();
	poller = epoll_create1(0);
	polled = eventfd(0, 0);
	require(watcher >= 0 && poller >= 0 && polled >= 0, "inotify, epoll and eventfd");
}

int main(void)
{
	char line[128];

	prepare();
	say("ready\n");
	for (;;) {
		read_line(line, sizeof(line));
		obey(line);
		for (int at = 0; at < KINDS; at++)
			say("{\"kind\": \"%s\", \"made\": %lu, \"freed\": %lu, \"held\": %lu, \"held_bytes\": %lu}\n",
			    kinds[at].name, kinds[at].made, kinds[at].freed, kinds[at].made - kinds[at].freed,
			    kinds[at].held_bytes);
		say("end\n");
	}
}
