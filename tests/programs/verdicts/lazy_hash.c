/*
 * Truth: no leak: a table grows as it must and loses entries as often as it gains them, once it has about 500.
 */
#include "traffic.h"

#define KEYS 1000

struct entry {
	struct entry *next;
	unsigned key;
	char value[200];
};

static struct entry **buckets;
static unsigned room, entries;

NOINLINE static void grow_table(void)
{
	unsigned wider = room ? room * 2 : 16;
	struct entry **made = (struct entry **)calloc(wider, sizeof(*made));

	for (unsigned bucket = 0; bucket < room; bucket++)
		while (buckets[bucket]) {
			struct entry *entry = buckets[bucket];

			buckets[bucket] = entry->next;
			entry->next = made[entry->key % wider];
			made[entry->key % wider] = entry;
		}
	free(buckets);
	buckets = made;
	room = wider;
}

NOINLINE static struct entry *add_entry(unsigned key)
{
	struct entry *entry = (struct entry *)filled(malloc(sizeof(*entry)), sizeof(*entry));

	entry->key = key;
	entry->next = NULL;
	return entry;
}

/* Adds the key if it is absent, and takes it away if it is there: half of the keys are there in the long run. */
NOINLINE static void toggle(unsigned key)
{
	struct entry **place;

	if (entries >= room)
		grow_table();
	place = &buckets[key % room];
	while (*place && (*place)->key != key)
		place = &(*place)->next;
	if (*place) {
		struct entry *gone = *place;

		*place = gone->next;
		free(gone);
		entries--;
	} else {
		*place = add_entry(key);
		entries++;
	}
}

static void work(long step)
{
	(void)step;
	toggle(chance(KEYS));
	toggle(chance(KEYS));
}

int main(int count, char **words)
{
	return run(count, words, work);
}
