/*
 * Truth: leaks at cache_answer(): the cache's key holds the time, so no entry is found again, and none is evicted.
 */
#include "traffic.h"

struct entry {
	struct entry *next;
	long asked_at;
	char answer[400];
};

static struct entry *buckets[64];

NOINLINE static struct entry *find(long time)
{
	struct entry *entry = buckets[time % 64];

	while (entry && entry->asked_at != time)
		entry = entry->next;
	return entry;
}

NOINLINE static struct entry *cache_answer(long time)
{
	struct entry *entry = (struct entry *)filled(malloc(sizeof(*entry)), sizeof(*entry));

	entry->asked_at = time;
	entry->next = buckets[time % 64];
	buckets[time % 64] = entry;
	return entry;
}

static void work(long step)
{
	if (step % 12 == 0 && !find(step))
		cache_answer(step);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
