/*
 * pointed: after a line, makes blocks that are pointed at in known ways, tells some of their addresses, and waits in
 * hold_local(), where a line is answered with how many it was.
 * Answer: the global shelf[2] holds a table (make_table(), 800 bytes), and that at +0x28 a leaf (make_leaf(), 64). The
 * global list holds three nodes (make_node(), 48) in a row. A block of 111 (make_local()) is held by hold_local() only,
 * one of 92 (keep_in_register())
 * by r12 of a thread only, one of 72 (make_watched()) by an epoll only, one of 45 (make_lost()) by nobody. make_large() makes two lists of 120
 * blocks of 100,000 bytes, whose last words point at the next: a global holds the first, nobody the second.
 * To be built with -fno-optimize-sibling-calls -pthread.
 */
#include "talk.c"
#include <pthread.h>
#include <semaphore.h>
#include <string.h>
#include <sys/epoll.h>

#define LARGE 100000
#define LARGE_COUNT 120

struct node {
	struct node *next;
	char text[40];
};

void **shelf[4];
struct node *list;
char *large;
static int pipe_ends[2], watcher;
static sem_t waits;

NOINLINE static void *make_leaf(void)
{
	return calloc(1, 64);
}

NOINLINE static void **make_table(void)
{
	void **table = calloc(1, 800);

	table[5] = make_leaf();
	return table;
}

NOINLINE static struct node *make_node(struct node *next)
{
	struct node *node = calloc(1, sizeof(*node));

	node->next = next;
	return node;
}

NOINLINE static void *make_local(void)
{
	return calloc(1, 111);
}

NOINLINE static void make_watched(void)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = calloc(1, 72)};

	require(!epoll_ctl(watcher, EPOLL_CTL_ADD, pipe_ends[0], &event), "a pipe is watched");
}

NOINLINE static void make_lost(void)
{
	void *volatile block = malloc(45);

	memset(block, 'x', 45);
	block = NULL;
}

NOINLINE static char *make_large(void)
{
	char *next = NULL;

	for (int number = 0; number < LARGE_COUNT; number++) {
		char *block = malloc(LARGE);

		memset(block, 'x', LARGE);
		memcpy(block + LARGE - sizeof(next), &next, sizeof(next));
		next = block;
	}
	return next;
}

/* Waits in pause(2) for ever; the system call leaves all registers but rax, rcx and r11 as they are. */
NOINLINE static void *keep_in_register(void *nothing)
{
	void *block;

	sem_post(&waits);
	block = calloc(1, 92);
	__asm__ volatile("mov %0, %%r12\n1:\tmov $34, %%eax\n\tsyscall\n\tjmp 1b"
			 : "+a"(block) : : "r12", "rcx", "r11", "memory");
	return nothing;
}

NOINLINE static void make_all(void)
{
	char *volatile lost;
	pthread_t thread;

	require(!pthread_create(&thread, NULL, keep_in_register, NULL), "a thread begins");
	while (sem_wait(&waits))
		;
	usleep(20000);
	shelf[2] = make_table();
	for (int number = 0; number < 3; number++)
		list = make_node(list);
	make_watched();
	make_lost();
	large = make_large();
	lost = make_large();
	lost = NULL;
	(void)lost;
	say("{\"table\": \"%p\", \"in_leaf\": \"%p\", \"outside\": \"%p\"}\n", (void *)shelf[2], (char *)shelf[2][5] + 10,
	    (void *)&list);
}

/* Works so far down on the stack that no later call leaves the pointers of this one in the gaps of its frame. */
NOINLINE static void far_below(void (*work)(void))
{
	volatile char room[65536];

	room[0] = 0;
	work();
	room[1] = room[0];
}

NOINLINE static void hold_local(void)
{
	void *volatile local = make_local();

	say("end\n");
	for (int lines = 1;; lines++) {
		wait_line();
		say("{\"lines\": %d, \"held\": %d}\nend\n", lines, local != NULL);
	}
}

int main(void)
{
	watcher = epoll_create1(0);
	require(watcher >= 0 && !pipe(pipe_ends), "there are files");
	say("ready\n");
	wait_line();
	far_below(make_all);
	hold_local();
}
