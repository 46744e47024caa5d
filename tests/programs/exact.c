/*
 * exact STEPS [free]: four threads make STEPS random calls each of every C allocator function, also failing ones, and
 * hand blocks to each other to free or resize. Answer: what each by_...() function allocated and what of it was freed,
 * counted by the program itself. With "free" all blocks are freed again, and the live bytes are 0.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>

enum { THREADS = 4, SLOTS = 512, LARGEST = 600 };

#define KINDS(X)                                                                                                       \
	X(by_malloc) X(by_calloc) X(by_realloc_null) X(by_realloc_larger) X(by_realloc_smaller) X(by_reallocarray)     \
	X(by_posix_memalign) X(by_aligned_alloc) X(by_memalign) X(by_valloc) X(by_pvalloc)

#define NUMBER(name) is_##name,
#define NAME(name) #name,
enum kind { KINDS(NUMBER) KIND_COUNT };
static const char *const names[] = { KINDS(NAME) };

struct block {
	void *address;
	size_t size;
	enum kind kind;
};

struct tally {
	uint64_t allocated_bytes, allocated_count, freed_bytes, freed_count;
};

struct worker {
	pthread_t thread;
	int number;
	uint64_t random;
	struct tally tallies[KIND_COUNT];
	struct block blocks[SLOTS];
	struct block kept[KIND_COUNT];
};

static struct worker workers[THREADS];
static struct {
	pthread_mutex_t lock;
	struct block block;
} mailboxes[THREADS];
static pthread_barrier_t begin, end;
static long steps;
static int free_all;
/* What no allocator gives; volatile, or the compiler warns of it. */
static volatile size_t huge = PTRDIFF_MAX - 4096;

static void born(struct worker *worker, struct block *block, void *address, size_t size, enum kind kind)
{
	require(address != NULL, names[kind]);
	if (size)
		memset(address, 1, size < 16 ? size : 16);
	*block = (struct block){ address, size, kind };
	worker->tallies[kind].allocated_bytes += size;
	worker->tallies[kind].allocated_count++;
}

static void died(struct worker *worker, struct block *block)
{
	worker->tallies[block->kind].freed_bytes += block->size;
	worker->tallies[block->kind].freed_count++;
	block->address = NULL;
}

NOINLINE static void by_malloc(struct worker *worker, struct block *block, size_t size)
{
	born(worker, block, malloc(size), size, is_by_malloc);
}

NOINLINE static void by_calloc(struct worker *worker, struct block *block, size_t size)
{
	born(worker, block, calloc(3, size / 3), size / 3 * 3, is_by_calloc);
}

NOINLINE static void by_realloc_null(struct worker *worker, struct block *block, size_t size)
{
	born(worker, block, realloc(NULL, size), size, is_by_realloc_null);
}

NOINLINE static void by_realloc_larger(struct worker *worker, struct block *block, size_t size)
{
	void *old = block->address;

	size += block->size + 1;
	died(worker, block);
	born(worker, block, realloc(old, size), size, is_by_realloc_larger);
}

NOINLINE static void by_realloc_smaller(struct worker *worker, struct block *block)
{
	size_t size = block->size / 2 + 1;
	void *old = block->address;

	died(worker, block);
	born(worker, block, realloc(old, size), size, is_by_realloc_smaller);
}

NOINLINE static void by_reallocarray(struct worker *worker, struct block *block, size_t size)
{
	void *old = block->address;

	died(worker, block);
	born(worker, block, reallocarray(old, size + 1, 2), (size + 1) * 2, is_by_reallocarray);
}

NOINLINE static void by_posix_memalign(struct worker *worker, struct block *block, size_t size)
{
	void *address = NULL;

	require(posix_memalign(&address, 64, size) == 0, "posix_memalign gives memory");
	born(worker, block, address, size, is_by_posix_memalign);
}

NOINLINE static void by_aligned_alloc(struct worker *worker, struct block *block, size_t size)
{
	born(worker, block, aligned_alloc(128, size), size, is_by_aligned_alloc);
}

NOINLINE static void by_memalign(struct worker *worker, struct block *block, size_t size)
{
	born(worker, block, memalign(32, size), size, is_by_memalign);
}

NOINLINE static void by_valloc(struct worker *worker, struct block *block, size_t size)
{
	born(worker, block, valloc(size), size, is_by_valloc);
}

NOINLINE static void by_pvalloc(struct worker *worker, struct block *block, size_t size)
{
	born(worker, block, pvalloc(size), size, is_by_pvalloc);
}

/* None of these calls changes anything; block is live before and after. */
NOINLINE static void fail(struct block *block, unsigned which)
{
	void *untouched = block;

	if (which == 0)
		require(malloc(huge) == NULL, "malloc fails");
	else if (which == 1)
		require(calloc(huge, 8) == NULL, "calloc overflows");
	else if (which == 2)
		require(realloc(block->address, huge) == NULL, "realloc fails");
	else if (which == 3)
		require(reallocarray(block->address, huge, 8) == NULL, "reallocarray overflows");
	else if (which == 4)
		require(posix_memalign(&untouched, 24, 100) != 0 && untouched == block, "24 is no alignment");
	else if (which == 5)
		require(posix_memalign(&untouched, 64, huge) != 0 && untouched == block, "posix_memalign fails");
	else if (which == 6)
		require(aligned_alloc(64, huge) == NULL, "aligned_alloc fails");
	else
		free(NULL);
}

NOINLINE static void to_zero(struct worker *worker, struct block *block)
{
	void *old = block->address;

	died(worker, block);
	require(realloc(old, 0) == NULL, "realloc to 0 frees");
}

NOINLINE static void release(struct worker *worker, struct block *block)
{
	void *old = block->address;

	died(worker, block);
	free(old);
}

/* xorshift64 (Marsaglia 2003) */
static uint64_t next_random(struct worker *worker)
{
	worker->random ^= worker->random << 13;
	worker->random ^= worker->random >> 7;
	worker->random ^= worker->random << 17;
	return worker->random;
}

static void make(struct worker *worker, struct block *block, unsigned choice, size_t size)
{
	if (choice < 30)
		by_malloc(worker, block, size);
	else if (choice < 40)
		by_calloc(worker, block, size);
	else if (choice < 48)
		by_realloc_null(worker, block, size + 1);
	else if (choice < 53)
		by_posix_memalign(worker, block, size);
	else if (choice < 58)
		by_aligned_alloc(worker, block, size);
	else if (choice < 62)
		by_memalign(worker, block, size);
	else if (choice < 63)
		by_valloc(worker, block, size);
	else
		by_pvalloc(worker, block, size + 1);
}

static void exchange(struct worker *worker, struct block *block)
{
	int next = (worker->number + 1) % THREADS;
	struct block other;

	pthread_mutex_lock(&mailboxes[next].lock);
	other = mailboxes[next].block;
	mailboxes[next].block = *block;
	pthread_mutex_unlock(&mailboxes[next].lock);
	*block = other;
}

static void change(struct worker *worker, struct block *block, unsigned choice, size_t size)
{
	if (choice < 36)
		release(worker, block);
	else if (choice < 40)
		by_realloc_larger(worker, block, size);
	else if (choice < 44)
		by_realloc_smaller(worker, block);
	else if (choice < 47)
		by_reallocarray(worker, block, size);
	else if (choice < 49)
		to_zero(worker, block);
	else if (choice < 57)
		exchange(worker, block);
	else if (choice < 62)
		fail(block, size % 8);
	else
		by_realloc_larger(worker, block, size * 200);
}

/* A report shows sites that hold something; so every call in here leaves one block of each thread. */
static void keep_one_of_each(struct worker *worker)
{
	static const enum kind from_malloc[] = { is_by_malloc, is_by_realloc_larger, is_by_realloc_smaller,
						 is_by_reallocarray };
	static volatile unsigned count = 4; /* keeps the loop a loop, with one call of by_malloc() */
	struct block *kept = worker->kept;

	for (unsigned i = 0; i < count; i++)
		by_malloc(worker, &kept[from_malloc[i]], i * 500);
	by_calloc(worker, &kept[is_by_calloc], 30);
	by_realloc_null(worker, &kept[is_by_realloc_null], 31);
	by_realloc_larger(worker, &kept[is_by_realloc_larger], 100000);
	by_realloc_smaller(worker, &kept[is_by_realloc_smaller]);
	by_reallocarray(worker, &kept[is_by_reallocarray], 50);
	by_posix_memalign(worker, &kept[is_by_posix_memalign], 33);
	by_aligned_alloc(worker, &kept[is_by_aligned_alloc], 34);
	by_memalign(worker, &kept[is_by_memalign], 35);
	by_valloc(worker, &kept[is_by_valloc], 36);
	by_pvalloc(worker, &kept[is_by_pvalloc], 37);
}

static void *run(void *argument)
{
	struct worker *worker = argument;

	pthread_barrier_wait(&begin);
	for (long step = 0; step < steps; step++) {
		uint64_t random = next_random(worker);
		struct block *block = &worker->blocks[random % SLOTS];
		unsigned choice = random >> 16 & 63;
		size_t size = (random >> 32) % LARGEST;

		if (block->address)
			change(worker, block, choice, size);
		else
			make(worker, block, choice, size);
	}
	keep_one_of_each(worker);
	pthread_barrier_wait(&end);
	/* All threads are still there while the report is taken: a thread's end frees what was not allocated here. */
	pthread_barrier_wait(&end);
	return NULL;
}

static void free_everything(void)
{
	for (int i = 0; i < THREADS; i++) {
		for (int slot = 0; slot < SLOTS; slot++)
			if (workers[i].blocks[slot].address)
				release(&workers[0], &workers[i].blocks[slot]);
		for (int kind = 0; kind < KIND_COUNT; kind++)
			release(&workers[0], &workers[i].kept[kind]);
		if (mailboxes[i].block.address)
			release(&workers[0], &mailboxes[i].block);
	}
}

static void tell(void)
{
	for (int kind = 0; kind < KIND_COUNT; kind++) {
		struct tally sum = { 0 };

		for (int i = 0; i < THREADS; i++) {
			struct tally *one = &workers[i].tallies[kind];

			sum.allocated_bytes += one->allocated_bytes;
			sum.allocated_count += one->allocated_count;
			sum.freed_bytes += one->freed_bytes;
			sum.freed_count += one->freed_count;
		}
		say("{\"function\": \"%s\", \"bytes\": %lu, \"count\": %lu, \"allocated_bytes\": %lu, "
		    "\"allocated_count\": %lu, \"freed_count\": %lu}\n",
		    names[kind], sum.allocated_bytes - sum.freed_bytes, sum.allocated_count - sum.freed_count,
		    sum.allocated_bytes, sum.allocated_count, sum.freed_count);
	}
	say("end\n");
}

int main(int argc, char **argv)
{
	require(argc > 1, "exact STEPS [free]");
	steps = atol(argv[1]);
	free_all = argc > 2;
	pthread_barrier_init(&begin, NULL, THREADS + 1);
	pthread_barrier_init(&end, NULL, THREADS + 1);
	for (int i = 0; i < THREADS; i++) {
		pthread_mutex_init(&mailboxes[i].lock, NULL);
		workers[i].number = i;
		workers[i].random = 0x9E3779B97F4A7C15ull * (i + 1);
		require(pthread_create(&workers[i].thread, NULL, run, &workers[i]) == 0, "threads start");
	}
	say("ready\n");
	wait_line();
	pthread_barrier_wait(&begin);
	pthread_barrier_wait(&end);
	if (free_all)
		free_everything();
	tell();
	wait_line();
	return 0;
}
