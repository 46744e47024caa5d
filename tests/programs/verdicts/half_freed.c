/*
 * Truth: leaks at copy_name(): a person is freed after use, and the name that it points at is not.
 */
#include "traffic.h"

struct person {
	char *name;
	int age;
	char address[200];
};

NOINLINE static char *copy_name(int number)
{
	char name[64];

	snprintf(name, sizeof(name), "a person of the long list, number %d", number);
	return strdup(name);
}

NOINLINE static struct person *read_person(int number)
{
	struct person *person = (struct person *)filled(malloc(sizeof(*person)), sizeof(*person));

	person->name = copy_name(number);
	person->age = number % 90;
	return person;
}

static void work(long step)
{
	if (step % 8 == 0)
		free(use(read_person((int)step)));
}

int main(int count, char **words)
{
	return run(count, words, work);
}
