/*
 * What `leaktrace demo` traces: a server without a network, 200 requests a second. The known answer:
 *   copy_header     leaks 2048 bytes at every 4th request, where handle_request() refuses it and returns early;
 *   remember_user   is a cache that only grows, by 256 bytes at every 8th request: reachable, but given back by nobody;
 *   render_page     allocates more than both together, and is in no report: handle_request() frees it each time.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NOINLINE __attribute__((noinline))

enum { HEADER_BYTES = 2048, USER_BYTES = 256, PAGE_BYTES = 16384, LIFETIME_S = 60 };

struct user {
	struct user *next;
	char name[USER_BYTES - sizeof(struct user *)];
};

static struct user *users;

static void *allocate_or_die(void *block)
{
	if (!block)
		abort();
	return block;
}

static NOINLINE char *copy_header(const char *header)
{
	char *copy = allocate_or_die(malloc(HEADER_BYTES));

	snprintf(copy, HEADER_BYTES, "%s", header);
	return copy;
}

static NOINLINE void remember_user(const char *name)
{
	struct user *user = allocate_or_die(malloc(sizeof(*user)));

	snprintf(user->name, sizeof(user->name), "%s", name);
	user->next = users;
	users = user;
}

static NOINLINE char *render_page(const char *title)
{
	char *page = allocate_or_die(malloc(PAGE_BYTES));

	snprintf(page, PAGE_BYTES, "<h1>%s</h1>", title);
	return page;
}

static NOINLINE int handle_request(long number)
{
	char *header = copy_header(number % 4 ? "Cookie: user=me" : "Cookie:");
	char *value = strchr(header, '=');

	if (!value)
		return 400; /* The leak: header is not freed here. */
	if (number % 8 == 1)
		remember_user(value + 1);
	char *page = render_page(value + 1);
	free(page);
	free(header);
	return 200;
}

int main(void)
{
	/* Should nobody end it: it must not outlive its demo by long. */
	alarm(LIFETIME_S);
	puts("serving");
	fflush(stdout);
	for (long number = 0; handle_request(number); number++)
		usleep(5000);
}
