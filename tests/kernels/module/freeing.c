/* Gives memory back in every way there is: here, in a soft or a hard interrupt, many at once, after RCU readers. */
#include <linux/completion.h>
#include <linux/hardirq.h>
#include <linux/irq_work.h>
#include <linux/rcupdate.h>
#include <linux/string.h>
#include <linux/timer.h>
#include "leaky.h"

#define BULK 32

/* Under the caller's lock: one at a time. */
static struct leaky_kind *asked_kind;
static unsigned long asked_count;
static DECLARE_COMPLETION(done);
unsigned long leaky_freed_softirq, leaky_freed_hardirq;

/* What kfree_rcu() is told lies inside the block, not at its begin. */
struct leaky_read {
	u64 data;
	struct rcu_head rcu;
};

static OWN_FRAME void leaky_free_newest(struct leaky_kind *kind, unsigned long count)
{
	for (; count && kind->count; count--) {
		struct leaky_block block = leaky_take(kind);

		kind->release(block.at, block.size);
		leaky_freed_hardirq += !!in_hardirq();
		leaky_freed_softirq += !in_hardirq() && in_serving_softirq();
	}
}

static OWN_FRAME void leaky_free_in_softirq(struct timer_list *timer)
{
	leaky_free_newest(asked_kind, asked_count);
	complete(&done);
}

static OWN_FRAME void leaky_free_in_hardirq(struct irq_work *work)
{
	leaky_free_newest(asked_kind, asked_count);
	complete(&done);
}

static DEFINE_TIMER(timer, leaky_free_in_softirq);
static struct irq_work work;

static int free_in_interrupt(struct leaky_kind *kind, unsigned long count, bool hard)
{
	if (!kind->interrupts)
		return -EOPNOTSUPP;
	asked_kind = kind;
	asked_count = count;
	reinit_completion(&done);
	if (hard) {
		init_irq_work(&work, leaky_free_in_hardirq);
		irq_work_queue(&work);
		wait_for_completion(&done);
		irq_work_sync(&work);
	} else {
		mod_timer(&timer, jiffies);
		wait_for_completion(&done);
	}
	return 0;
}

static OWN_FRAME void leaky_free_many(struct leaky_kind *kind, unsigned long count)
{
	void *at[BULK];

	while (count && kind->count) {
		size_t part;

		for (part = 0; part < BULK && count && kind->count; part++, count--)
			at[part] = leaky_take(kind).at;
		kind->release_many(part, at);
	}
}

static OWN_FRAME void leaky_free_after_readers(struct leaky_kind *kind, unsigned long count)
{
	for (; count && kind->count; count--) {
		struct leaky_read *block = leaky_take(kind).at;

		kfree_rcu(block, rcu);
	}
}

int leaky_free(struct leaky_kind *kind, unsigned long count, const char *context)
{
	if (!*context || !strcmp(context, "task"))
		leaky_free_newest(kind, count);
	else if (!strcmp(context, "softirq") || !strcmp(context, "hardirq"))
		return free_in_interrupt(kind, count, *context == 'h');
	else if (!strcmp(context, "bulk") && kind->release_many)
		leaky_free_many(kind, count);
	else if (!strcmp(context, "rcu") && kind->rcu)
		leaky_free_after_readers(kind, count);
	else
		return -EOPNOTSUPP;
	return 0;
}
