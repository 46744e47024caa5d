/*
 * follow_observes [PART]: what a process can observe of its children, of signals, pipes and a terminal, as JSON: a line
 * for each kind of thing. Answer: the lines are the same whoever else watches, so none has a number that changes from run
 * to run. "children" end by themselves and by signals; "stops" are SIGSTOP, SIGTSTP and SIGCONT as waitpid(2) and SIGCHLD
 * tell of them; "signals" are sent from one process to the other; "pipe" is a megabyte; "terminal" is job control.
 */
#define _GNU_SOURCE
#include "talk.c"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>

#define SIGNALS 200
#define STOPPED 20
#define ROUNDS 5

static void *volatile block;
static volatile sig_atomic_t seen;

static void count(int number)
{
	(void)number;
	seen++;
}

/* The next SIGCHLD, which is blocked: what happened, and to whom it was said to. */
static const char *next_word(pid_t child)
{
	static char word[64];
	siginfo_t info;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	while (sigwaitinfo(&set, &info) < 0)
		require(errno == EINTR, "a signal comes");
	snprintf(word, sizeof(word), "\"%s %d %s\"",
		 info.si_code == CLD_EXITED ? "exited" : info.si_code == CLD_KILLED ? "killed" :
		 info.si_code == CLD_DUMPED ? "dumped" : info.si_code == CLD_STOPPED ? "stopped" :
		 info.si_code == CLD_CONTINUED ? "continued" : info.si_code == CLD_TRAPPED ? "trapped" : "else",
		 info.si_status, info.si_pid == child ? "child" : "another");
	return word;
}

static const char *status_of(pid_t child)
{
	static char words[4][64];
	static int turn;
	char *word = words[turn++ % 4];
	struct rusage usage;
	int status = -1;
	pid_t found = wait4(child, &status, WUNTRACED | WCONTINUED | __WALL, &usage);

	snprintf(word, 64, "\"%s %d\"",
		 found != child ? "error" : WIFEXITED(status) ? "exited" : WIFSIGNALED(status) ? "killed" :
		 WIFSTOPPED(status) ? "stopped" : WIFCONTINUED(status) ? "continued" : "else",
		 WIFEXITED(status) ? WEXITSTATUS(status) : WIFSIGNALED(status) ? WTERMSIG(status) :
		 WIFSTOPPED(status) ? WSTOPSIG(status) : 0);
	return word;
}

static void ends_by(const char *way)
{
	struct rlimit none = {0, 0};
	static int *volatile nowhere;

	setrlimit(RLIMIT_CORE, &none);
	block = malloc(10);
	if (!strcmp(way, "return"))
		exit(11);
	if (!strcmp(way, "segv"))
		*nowhere = 1;
	if (!strcmp(way, "abort"))
		abort();
	if (!strcmp(way, "kill"))
		kill(getpid(), SIGKILL);
	if (!strcmp(way, "term"))
		raise(SIGTERM);
	if (!strcmp(way, "trap"))
		raise(SIGTRAP);
	_exit(12);
}

static void children(void)
{
	const char *ways[] = {"return", "_exit", "segv", "abort", "kill", "term", "trap"};
	char line[600];
	int length = 0;

	for (unsigned i = 0; i < sizeof(ways) / sizeof(*ways); i++) {
		pid_t child = fork();

		if (child == 0)
			ends_by(ways[i]);
		length += snprintf(line + length, sizeof(line) - length, "%s[\"%s\", %s", i ? ", " : "", ways[i], next_word(child));
		length += snprintf(line + length, sizeof(line) - length, ", %s]", status_of(child));
	}
	say("{\"children\": [%s], \"left\": %d}\n", line, waitpid(-1, NULL, WNOHANG | __WALL));
}

static void stops(void)
{
	const int signals[] = {SIGSTOP, SIGCONT, SIGTSTP, SIGCONT, SIGSTOP, SIGCONT, SIGTTIN, SIGCONT};
	char line[600], byte;
	int length = 0, ends[2], said[2];
	pid_t child;

	require(!pipe(ends) && !pipe(said), "pipes are made");
	child = fork();
	if (child == 0) {
		signal(SIGCONT, count);
		setpgid(0, 0);
		require(write(said[1], "r", 1) == 1, "it says that it is ready");
		for (;;) {
			ssize_t got = read(ends[0], &byte, 1);

			if (got == 1)
				_exit(seen);
		}
	}
	require(read(said[0], &byte, 1) == 1, "it is ready");
	for (unsigned i = 0; i < sizeof(signals) / sizeof(*signals); i++) {
		kill(child, signals[i]);
		length += snprintf(line + length, sizeof(line) - length, "%s%s", i ? ", " : "", next_word(child));
		length += snprintf(line + length, sizeof(line) - length, ", %s", status_of(child));
	}
	/* One that is stopped is killed: it has no need to go on for that. */
	kill(child, SIGSTOP);
	length += snprintf(line + length, sizeof(line) - length, ", %s", next_word(child));
	length += snprintf(line + length, sizeof(line) - length, ", %s", status_of(child));
	kill(child, SIGKILL);
	length += snprintf(line + length, sizeof(line) - length, ", %s", next_word(child));
	length += snprintf(line + length, sizeof(line) - length, ", %s", status_of(child));
	say("{\"stops\": [%s]}\n", line);
	for (int i = 0; i < 2; i++) {
		close(ends[i]);
		close(said[i]);
	}
}

/* Processes that stop themselves and are continued, round after round, while other threads of them begin and work. */
static void *works(void *nothing)
{
	for (;;) {
		void *volatile one = malloc(50);

		free(one);
	}
	return nothing;
}

static void stops_of_threads(void)
{
	int rounds = 0, ended = 0, status;

	for (int number = 0; number < STOPPED; number++) {
		pid_t child = fork();

		if (child == 0) {
			pthread_t thread;

			for (int i = 0; i < 3; i++)
				pthread_create(&thread, NULL, works, NULL);
			for (int i = 0; i < ROUNDS; i++)
				raise(SIGSTOP);
			_exit(6);
		}
		while (waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status)) {
			rounds += WSTOPSIG(status) == SIGSTOP;
			kill(child, SIGCONT);
		}
		ended += WIFEXITED(status) && WEXITSTATUS(status) == 6;
	}
	say("{\"rounds\": %d, \"ended\": %d}\n", rounds, ended);
	/* However many SIGCHLD there were, they are over. */
	signal(SIGCHLD, SIG_IGN);
	signal(SIGCHLD, SIG_DFL);
}

/* Two processes send each other one signal at a time; and one sends queued ones that have a value. */
static void signals(void)
{
	struct sigaction action = {.sa_handler = count};
	int sum = 0, order = 1, last = 0;
	struct timespec patience = {20, 0};
	siginfo_t info;
	sigset_t set;
	pid_t child;

	sigemptyset(&set);
	sigaddset(&set, SIGUSR1);
	sigaddset(&set, SIGRTMIN);
	sigprocmask(SIG_BLOCK, &set, NULL);
	sigaction(SIGUSR2, &action, NULL);
	child = fork();
	if (child == 0) {
		for (int i = 0; i < SIGNALS; i++) {
			if (sigwaitinfo(&set, &info) != SIGUSR1)
				i--;
			else
				kill(getppid(), SIGUSR1);
		}
		for (int i = 1; i <= SIGNALS; i++) {
			union sigval value = {.sival_int = i};

			sigqueue(getppid(), SIGRTMIN, value);
			kill(getppid(), SIGUSR2);
		}
		_exit(0);
	}
	for (int i = 0; i < SIGNALS; i++) {
		kill(child, SIGUSR1);
		while (sigwaitinfo(&set, &info) != SIGUSR1)
			;
		sum += info.si_pid == child && info.si_code == SI_USER;
	}
	for (int i = 1; i <= SIGNALS; i++) {
		int found = sigtimedwait(&set, &info, &patience);

		if (found < 0 && errno == EINTR) {
			i--;
			continue;
		}
		order &= found == SIGRTMIN && info.si_value.sival_int == last + 1;
		last = info.si_value.sival_int;
	}
	waitpid(child, NULL, 0);
	say("{\"answered\": %d, \"queued\": %d, \"in_order\": %d, \"handled\": %s}\n", sum, last, order, seen ? "true" : "false");
}

static void pipes(void)
{
	unsigned sum = 0, bytes = 0;
	unsigned char buffer[4096];
	int ends[2], go[2], status;
	ssize_t got;
	pid_t child;

	require(!pipe(ends), "a pipe is made");
	child = fork();
	if (child == 0) {
		close(ends[0]);
		for (int i = 0; i < 256; i++) {
			unsigned char *volatile piece = malloc(4096);

			memset(piece, i, 4096);
			require(write(ends[1], piece, 4096) == 4096, "a piece is written");
		}
		close(ends[1]);
		_exit(4);
	}
	close(ends[1]);
	while ((got = read(ends[0], buffer, sizeof(buffer))) > 0)
		for (ssize_t i = 0; i < got; i++, bytes++)
			sum = sum * 31 + buffer[i];
	waitpid(child, &status, 0);
	close(ends[0]);
	/* Nobody reads any more: SIGPIPE. */
	require(!pipe(ends) && !pipe(go), "pipes are made");
	child = fork();
	if (child == 0) {
		close(ends[0]);
		signal(SIGPIPE, SIG_DFL);
		require(read(go[0], buffer, 1) == 1, "the other end is closed");
		require(write(ends[1], "x", 1) == 1, "never");
		_exit(5);
	}
	close(ends[0]);
	require(write(go[1], "g", 1) == 1, "it is told so");
	close(ends[1]);
	say("{\"pipe\": %u, \"sum\": %u, \"end\": %d, \"nobody\": %s}\n", bytes, sum, WEXITSTATUS(status), status_of(child));
}

/* A shell of one background job: it reads from the terminal, is stopped for that, comes to the foreground, and reads. */
static void terminal(void)
{
	int master = posix_openpt(O_RDWR | O_NOCTTY), status;
	char line[64] = "";
	pid_t shell;

	require(master >= 0 && !grantpt(master) && !unlockpt(master), "there is a terminal");
	shell = fork();
	if (shell == 0) {
		sigset_t none;
		const char *stopped, *continued, *ended;
		pid_t job;
		int tty;

		sigemptyset(&none);
		sigprocmask(SIG_SETMASK, &none, NULL);
		setsid();
		tty = open(ptsname(master), O_RDWR);
		require(tty >= 0 && !ioctl(tty, TIOCSCTTY, 0), "the terminal is its own");
		signal(SIGTTOU, SIG_IGN);
		job = fork();
		if (job == 0) {
			signal(SIGTTOU, SIG_DFL);
			setpgid(0, 0);
			_exit(read(tty, line, sizeof(line)) == 6 && !memcmp(line, "hello\n", 6) ? 21 : 22);
		}
		setpgid(job, job);
		stopped = status_of(job);
		tcsetpgrp(tty, job);
		kill(-job, SIGCONT);
		continued = status_of(job);
		require(write(master, "hello\n", 6) == 6, "something is typed");
		ended = status_of(job);
		tcsetpgrp(tty, getpgrp());
		/* And one that Ctrl-Z stops, and Ctrl-C ends. */
		job = fork();
		if (job == 0) {
			setpgid(0, 0);
			for (;;)
				pause();
		}
		setpgid(job, job);
		tcsetpgrp(tty, job);
		require(write(master, "\x1a", 1) == 1, "Ctrl-Z is typed");
		say("{\"terminal\": [%s, %s, %s], \"ctrl_z\": %s", stopped, continued, ended, status_of(job));
		kill(-job, SIGCONT);
		say(", \"then\": %s", status_of(job));
		require(write(master, "\x03", 1) == 1, "Ctrl-C is typed");
		say(", \"ctrl_c\": %s}\n", status_of(job));
		_exit(8);
	}
	waitpid(shell, &status, 0);
	say("{\"shell\": %d}\n", WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status));
	close(master);
}

/* An orphan gets another parent; a process is told of its parent's end; waits that nothing should cut short are not. */
static void others(void)
{
	struct timespec pause = {0, 30000000};
	struct epoll_event event;
	int status, ends[2], interrupted = 0, epoll = epoll_create1(0);
	char text[8] = "";
	pid_t child;

	require(!pipe(ends), "a pipe is made");
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	child = fork();
	if (child == 0) {
		pid_t parent = getpid(), orphan = fork();

		if (orphan == 0) {
			while (getppid() == parent)
				nanosleep(&pause, NULL);
			require(write(ends[1], "orphan", 6) == 6, "the orphan says so");
			_exit(31);
		}
		_exit(30);
	}
	require(waitpid(child, &status, 0) == child && WEXITSTATUS(status) == 30, "the parent ends");
	require(read(ends[0], text, 6) == 6, "the orphan is heard");
	require(waitpid(-1, &status, 0) > 0, "the orphan ends");
	child = fork();
	if (child == 0) {
		prctl(PR_SET_PDEATHSIG, SIGTERM);
		for (int i = 0; i < 5; i++) {
			interrupted += nanosleep(&pause, NULL) != 0;
			interrupted += poll(NULL, 0, 10) != 0;
			interrupted += epoll_wait(epoll, &event, 1, 10) != 0;
			if (fork() == 0) {
				block = malloc(5);
				_exit(0);
			}
			interrupted += wait(NULL) < 0;
		}
		_exit(interrupted);
	}
	say("{\"text\": \"%s\", \"orphan\": %d", text, WEXITSTATUS(status));
	say(", \"uninterrupted\": %s}\n", status_of(child));
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		void (*observe)(void);
	} parts[] = {{"children", children}, {"stops", stops}, {"threads", stops_of_threads}, {"signals", signals},
		     {"pipes", pipes}, {"terminal", terminal}, {"others", others}};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigprocmask(SIG_BLOCK, &set, NULL);
	for (unsigned i = 0; i < sizeof(parts) / sizeof(*parts); i++)
		if (argc < 2 || !strcmp(argv[1], parts[i].name))
			parts[i].observe();
	return 9;
}
