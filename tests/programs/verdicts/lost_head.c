/*
 * Truth: leaks at add_rule(): each second a list of ten rules is read anew, and its head replaces that of the old list.
 */
#include "traffic.h"

struct rule {
	struct rule *next;
	char text[120];
};

static struct rule *rules;

NOINLINE static struct rule *add_rule(struct rule *next)
{
	struct rule *rule = (struct rule *)filled(malloc(sizeof(*rule)), sizeof(*rule));

	rule->next = next;
	return rule;
}

NOINLINE static void reload(void)
{
	struct rule *head = NULL;

	for (int number = 0; number < 10; number++)
		head = add_rule(head);
	rules = head;
}

static void work(long step)
{
	if (step % 100 == 0)
		reload();
	use(rules);
}

int main(int count, char **words)
{
	return run(count, words, work);
}
