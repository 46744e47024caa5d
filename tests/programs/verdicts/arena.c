/*
 * Truth: no leak: a request's arena takes chunks as it goes, gives back all but the first eight at the request's end.
 */
#include "traffic.h"

#define CHUNKS 64
#define CHUNK_BYTES 8000
#define KEPT 8

static char *chunks[CHUNKS];
static size_t used;

NOINLINE static char *take_chunk(void)
{
	return (char *)filled(malloc(CHUNK_BYTES), CHUNK_BYTES);
}

NOINLINE static char *from_arena(size_t size)
{
	size_t chunk = used / CHUNK_BYTES;

	if (used % CHUNK_BYTES + size > CHUNK_BYTES)
		used = ++chunk * CHUNK_BYTES;
	if (!chunks[chunk])
		chunks[chunk] = take_chunk();
	used += size;
	return chunks[chunk] + (used - size) % CHUNK_BYTES;
}

NOINLINE static void reset_arena(void)
{
	for (int chunk = KEPT; chunk < CHUNKS; chunk++) {
		free(chunks[chunk]);
		chunks[chunk] = NULL;
	}
	used = 0;
}

static void work(long step)
{
	static long ends = 50;

	for (unsigned number = 0; number < 10; number++)
		from_arena(100 + chance(200));
	if (step == ends) {
		reset_arena();
		ends = step + 50 + chance(100);
	}
}

int main(int count, char **words)
{
	return run(count, words, work);
}
