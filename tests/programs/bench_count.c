/*
 * A library to preload: counts how many blocks a process asks for, as one 64-bit number at the start of the
 * file that BENCH_COUNT_FILE names. Whoever maps or reads that file sees the count grow; the bench divides it by
 * the program's own rate to say how many malloc/free pairs one operation makes. Works over any allocator,
 * because it calls the next definition of each function.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* dlsym may itself ask for memory, before there is an allocator to ask; it needs well under this. */
enum { EARLY_BYTES = 16384, ALIGN = 16 };

static struct {
	void *(*malloc)(size_t);
	void *(*calloc)(size_t, size_t);
	void *(*realloc)(void *, size_t);
	void *(*memalign)(size_t, size_t);
	void *(*aligned_alloc)(size_t, size_t);
	int (*posix_memalign)(void **, size_t, size_t);
	void (*free)(void *);
} next;

static char early[EARLY_BYTES] __attribute__((aligned(ALIGN)));
static size_t early_used;
static uint64_t unmapped_count;
static uint64_t *count = &unmapped_count;
static int resolving;

static void *early_block(size_t size)
{
	size_t start = early_used;

	if (size > EARLY_BYTES - start)
		return NULL;
	early_used = start + ((size + ALIGN - 1) & ~(size_t)(ALIGN - 1));
	return early + start;
}

static int is_early(const void *block)
{
	return (const char *)block >= early && (const char *)block < early + EARLY_BYTES;
}

static void resolve(void)
{
	resolving = 1;
	next.calloc = dlsym(RTLD_NEXT, "calloc");
	next.realloc = dlsym(RTLD_NEXT, "realloc");
	next.memalign = dlsym(RTLD_NEXT, "memalign");
	next.aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
	next.posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
	next.free = dlsym(RTLD_NEXT, "free");
	next.malloc = dlsym(RTLD_NEXT, "malloc");
	resolving = 0;
}

__attribute__((constructor)) static void map_count(void)
{
	const char *path = getenv("BENCH_COUNT_FILE");
	int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600) : -1;
	void *mapped;

	if (fd < 0)
		return;
	if (ftruncate(fd, sizeof(*count)) == 0) {
		mapped = mmap(NULL, sizeof(*count), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		if (mapped != MAP_FAILED)
			count = mapped;
	}
	close(fd);
}

/* True when the real allocator can be called; counts the call. */
static int enter(void)
{
	if (!next.malloc && !resolving)
		resolve();
	if (!next.malloc)
		return 0;
	__atomic_fetch_add(count, 1, __ATOMIC_RELAXED);
	return 1;
}

void *malloc(size_t size)
{
	return enter() ? next.malloc(size) : early_block(size);
}

void *calloc(size_t members, size_t size)
{
	/* Early memory is static, so it is already zero. */
	return enter() ? next.calloc(members, size) : early_block(members * size);
}

void *realloc(void *block, size_t size)
{
	void *copy;

	if (!block || !is_early(block))
		return enter() ? next.realloc(block, size) : early_block(size);
	copy = malloc(size);
	if (copy)
		memcpy(copy, block, size < (size_t)(early + EARLY_BYTES - (char *)block)
					? size : (size_t)(early + EARLY_BYTES - (char *)block));
	return copy;
}

void *memalign(size_t alignment, size_t size)
{
	return enter() ? next.memalign(alignment, size) : NULL;
}

void *aligned_alloc(size_t alignment, size_t size)
{
	return enter() ? next.aligned_alloc(alignment, size) : NULL;
}

int posix_memalign(void **block, size_t alignment, size_t size)
{
	return enter() ? next.posix_memalign(block, alignment, size) : ENOMEM;
}

void free(void *block)
{
	if (!block || is_early(block))
		return;
	if (!next.malloc && !resolving)
		resolve();
	if (next.free)
		next.free(block);
}
