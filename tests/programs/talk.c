/*
 * How a test program talks to its test, included by each: say() prints a line, wait_line() waits for one. Neither
 * allocates, so that everything a report shows is the test's own. At the end of its input the program ends.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A function of its own in every stack: neither inlined, nor cloned, nor merged with one that looks the same. */
#define NOINLINE __attribute__((noinline, noclone, no_icf))

__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...)
{
	char line[512];
	va_list arguments;
	int length;

	va_start(arguments, format);
	length = vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	if (length < 0 || write(1, line, length) != length)
		_exit(1);
}

__attribute__((unused)) static void wait_line(void)
{
	char byte = 0;

	while (byte != '\n')
		if (read(0, &byte, 1) != 1)
			_exit(0);
}

/* Ends the program with a reason: what a test relies on is not so. */
__attribute__((unused)) static void require(int condition, const char *what)
{
	if (!condition) {
		say("not so: %s\n", what);
		_exit(3);
	}
}
