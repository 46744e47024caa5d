/*
 * points_variables: pointers in every kind of place, and where each is. Answer: the name in each line that it prints.
 * Two threads wait: the first in main(), the second three calls below thread_main(), in wait_here().
 */
#include <pthread.h>
#include <sys/syscall.h>

#include "talk.c"

struct registry {
	long count;
	void *entries[6];
};

void **library_slot(int which);

static struct registry registry;
void *initialised = &registry;
static void *volatile only_one;
__thread void *current_session = &registry;
static __thread void *other_sessions[5];
static pthread_barrier_t both;

static void place(const char *what, void *volatile *where)
{
	*where = malloc(64);
	say("{\"what\": \"%s\", \"address\": %lu, \"tid\": %ld}\n", what, (unsigned long)where, syscall(SYS_gettid));
}

NOINLINE void wait_here(void *volatile *outer)
{
	void *volatile inner[3];

	place("wait_here", &inner[1]);
	inner[0] = inner[2] = (void *)outer;
	pthread_barrier_wait(&both);
	for (;;)
		pause();
}

NOINLINE void middle(void *volatile *outer)
{
	void *volatile kept;

	place("middle", &kept);
	wait_here(outer ? &kept : outer);
	say("%p\n", kept);
}

NOINLINE void serve_client(int number)
{
	void *volatile client[2];

	place("serve_client", &client[0]);
	client[1] = client[0];
	middle(&client[number]);
	say("%p\n", client[1]);
}

static void *thread_main(void *unused)
{
	place("thread current_session", &current_session);
	place("thread other_sessions+0x20", &other_sessions[4]);
	place("thread library_session+0x8", library_slot(2));
	place("thread exported_session", library_slot(3));
	serve_client(1);
	return unused;
}

int main(void)
{
	pthread_t thread;
	pthread_key_t key;
	void *specific = malloc(64);
	void *volatile mine;
	void *volatile *early = malloc(4096);

	say("ready\n");
	wait_line();
	pthread_barrier_init(&both, NULL, 2);
	place("registry+0x18", &registry.entries[2]);
	place("initialised", &initialised);
	place("only_one", &only_one);
	place("library_table", library_slot(0));
	place("static_shelf+0x10", library_slot(1));
	place("current_session", &current_session);
	place("other_sessions+0x10", &other_sessions[2]);
	place("library_session+0x8", library_slot(2));
	place("exported_session", library_slot(3));
	place("main", &mine);
	place("[heap]", &early[7]);
	require(pthread_key_create(&key, NULL) == 0, "a key for thread-specific data");
	require(pthread_setspecific(key, specific) == 0, "thread-specific data");
	require(pthread_create(&thread, NULL, thread_main, NULL) == 0, "a second thread");
	pthread_barrier_wait(&both);
	say("{\"what\": \"specific\", \"address\": 0, \"value\": %lu}\n", (unsigned long)specific);
	say("end\n");
	wait_line();
	return mine == NULL;
}
