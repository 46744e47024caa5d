/*
 * leaky: a kernel module that allocates and keeps, known to the byte. A command is one line written to /proc/leaky:
 *   KIND COUNT SIZE                COUNT more, of SIZE bytes each (or of the order SIZE)
 *   krealloc COUNT BEFORE AFTER    split COUNT ORDER KEEP    cache_bulk COUNT    pages_bulk COUNT
 *   free KIND [COUNT [CONTEXT]]    the newest; COUNT 0: all; CONTEXT: task, softirq, hardirq, bulk, rcu
 *   free all
 *   forget KIND [COUNT]            the newest: they are held, and nothing points to them any more
 * /proc/leaky when read: for every kind its name, how many are held, the bytes they take, the bytes that were asked
 * for, and how many were ever made; at the end how many were freed in soft and in hard interrupts.
 */
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/proc_fs.h>
#include <linux/seq_file.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>
#include "leaky.h"

static struct leaky_kind *const tables[] = { leaky_slab_kinds, leaky_page_kinds, leaky_area_kinds };
static const struct leaky_command *const commands[] = { leaky_slab_commands, leaky_page_commands };
static DEFINE_MUTEX(lock);

#define for_each_kind(table, kind)                                      \
	for (table = 0; table < ARRAY_SIZE(tables); table++)            \
		for (kind = tables[table]; kind->name; kind++)

int leaky_hold(struct leaky_kind *kind, void *at, size_t size)
{
	struct leaky_block *block = &kind->blocks[kind->count];

	if (!at)
		return -ENOMEM;
	if (kind->count == LEAKY_MOST) {
		kind->release(at, size);
		return -ENOSPC;
	}
	block->at = at;
	block->size = size;
	block->requested = kind->requested ? kind->requested(at, size) : size;
	block->taken = kind->taken(at, size);
	kind->count++;
	kind->allocated++;
	return 0;
}

struct leaky_block leaky_take(struct leaky_kind *kind)
{
	return kind->blocks[--kind->count];
}

static int make(struct leaky_kind *kind, unsigned long count, size_t size)
{
	int error = kind->make ? 0 : -EOPNOTSUPP;

	for (; count && !error; count--)
		error = leaky_hold(kind, kind->make(size), size);
	return error;
}

static int free_some(const char *name, unsigned long count, const char *context)
{
	struct leaky_kind *kind;
	int table, error = -ENOENT;

	for_each_kind(table, kind)
		if (!strcmp(name, kind->name) || !strcmp(name, "all"))
			error = leaky_free(kind, count ?: LEAKY_MOST, context);
	return error;
}

static int forget(const char *name, unsigned long count)
{
	struct leaky_kind *kind;
	int table, error = -ENOENT;

	for_each_kind(table, kind)
		if (!strcmp(name, kind->name))
			for (error = 0; count && kind->count; count--)
				memset(&kind->blocks[--kind->count], 0, sizeof(*kind->blocks));
	return error;
}

static int obey(const char *line)
{
	char name[24] = "", context[16] = "", freed[24] = "", forgotten[24] = "";
	unsigned long count = 0, first = 0, second = 0;
	const struct leaky_command *command;
	struct leaky_kind *kind;
	int table;

	if (sscanf(line, "free %23s %lu %15s", freed, &count, context) >= 1)
		return free_some(freed, count, context);
	if (sscanf(line, "forget %23s %lu", forgotten, &count) >= 1)
		return forget(forgotten, count ?: LEAKY_MOST);
	if (sscanf(line, "%23s %lu %lu %lu", name, &count, &first, &second) < 2)
		return -EINVAL;
	for (table = 0; table < ARRAY_SIZE(commands); table++)
		for (command = commands[table]; command->name; command++)
			if (!strcmp(name, command->name))
				return command->obey(count, first, second);
	for_each_kind(table, kind)
		if (!strcmp(name, kind->name))
			return make(kind, count, first);
	return -ENOENT;
}

static ssize_t write_command(struct file *file, const char __user *text, size_t size, loff_t *offset)
{
	char line[96] = "";
	int error;

	if (size >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, text, size))
		return -EFAULT;
	mutex_lock(&lock);
	error = obey(line);
	mutex_unlock(&lock);
	return error ?: size;
}

static int show(struct seq_file *file, void *unused)
{
	struct leaky_kind *kind;
	int table;

	mutex_lock(&lock);
	for_each_kind(table, kind) {
		size_t taken = 0, requested = 0;
		unsigned long at;

		for (at = 0; at < kind->count; at++) {
			taken += kind->blocks[at].taken;
			requested += kind->blocks[at].requested;
		}
		seq_printf(file, "%s %lu %zu %zu %lu\n", kind->name, kind->count, taken, requested, kind->allocated);
	}
	seq_printf(file, "freed_softirq %lu\nfreed_hardirq %lu\n", leaky_freed_softirq, leaky_freed_hardirq);
	mutex_unlock(&lock);
	return 0;
}

static int open(struct inode *inode, struct file *file)
{
	return single_open(file, show, NULL);
}

static const struct proc_ops operations = {
	.proc_open = open,
	.proc_read = seq_read,
	.proc_write = write_command,
	.proc_lseek = seq_lseek,
	.proc_release = single_release,
};

static void leaky_end(void)
{
	struct leaky_kind *kind;
	int table;

	remove_proc_entry("leaky", NULL);
	free_some("all", 0, "");
	for_each_kind(table, kind)
		vfree(kind->blocks);
	rcu_barrier();
	leaky_slab_end();
}

static int __init leaky_begin(void)
{
	struct leaky_kind *kind;
	int table, error = leaky_slab_begin();

	if (error)
		return error;
	/* All room at once, so that nothing is allocated for it under the eyes of a tracer. */
	for_each_kind(table, kind) {
		kind->blocks = vzalloc(LEAKY_MOST * sizeof(*kind->blocks));
		error = kind->blocks ? error : -ENOMEM;
	}
	if (!error && proc_create("leaky", 0600, NULL, &operations))
		return 0;
	leaky_end();
	return -ENOMEM;
}

module_init(leaky_begin);
module_exit(leaky_end);
MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Allocates and keeps, known to the byte: for tests of leaktrace");
