"""A program that does one thing after another as it is told, and a limit for tests that could wait for ever."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

#: Seconds that a test with real processes may take.
LIMIT = 20

ACTOR = r"""
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

/* actor OUT STEP...: does each step, and appends to OUT what it saw. */

static int out;
static char *self, *path;
static volatile int handled, value, sender;
static char child_stack[1 << 16] __attribute__((aligned(16)));

static void say(const char *format, ...)
{
    char line[200];
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(line, sizeof line, format, arguments);
    va_end(arguments);
    if (write(out, line, length) != length)
        abort();
}

static void handle(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    handled++;
    value = info->si_value.sival_int;
    sender = info->si_pid;
}

static int ended(pid_t pid)
{
    int status = -1;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status;
}

static void *nothing(void *argument) { return argument; }
static void *forever(void *argument) { for (;;) pause(); return argument; }
static void *executes(void *argument) { (void)argument; execl(self, self, path, "p", NULL); abort(); }
static int exits(void *code) { syscall(SYS_exit, (int)(long)code); return 0; }
static void *churns(void *argument)
{
    for (;;) {
        pthread_t thread;
        if (!pthread_create(&thread, NULL, nothing, NULL))
            pthread_join(thread, NULL);
    }
    return argument;
}

static void step(char what, int number)
{
    pid_t pid;
    pthread_t thread;
    int status;
    char byte;
    if (what == 'w') {  /* wait until something comes, or nothing more will */
        while (read(0, &byte, 1) < 0 && errno == EINTR)
            ;
    } else if (what == 'x') {
        _exit(number);
    } else if (what == 'p') {
        say("p %d\n", getpid());
    } else if (what == 'f') {
        if (!(pid = fork())) _exit(7);
        say("f %d\n", ended(pid));
    } else if (what == 'v') {
        if (!(pid = vfork())) { execl(self, self, path, "x9", NULL); _exit(1); }
        say("v %d\n", ended(pid));
    } else if (what == 's') {
        char *words[] = {self, path, "x9", NULL}, *none[] = {NULL};
        if (posix_spawn(&pid, self, NULL, NULL, words, none)) abort();
        say("s %d\n", ended(pid));
    } else if (what == 'm') {  /* a child that shares memory, and goes on at the same time */
        pid = clone(exits, child_stack + sizeof child_stack, CLONE_VM | SIGCHLD, (void *)5L);
        say("m %d\n", ended(pid));
    } else if (what == 'P') {  /* a sibling */
        pid = clone(exits, child_stack + sizeof child_stack, CLONE_PARENT | SIGCHLD, (void *)5L);
        say("P %d\n", pid);
    } else if (what == 't') {
        if (pthread_create(&thread, NULL, nothing, NULL) || pthread_join(thread, NULL)) abort();
        say("t\n");
    } else if (what == 'T') {
        while (number--)
            if (pthread_create(&thread, NULL, forever, NULL)) abort();
        say("T\n");
    } else if (what == 'c') {
        while (number--)
            if (pthread_create(&thread, NULL, churns, NULL)) abort();
        say("c\n");
    } else if (what == 'g') {
        if (!(pid = fork())) {
            if (!(pid = fork())) _exit(3);
            _exit(WEXITSTATUS(ended(pid)) + 1);
        }
        say("g %d\n", ended(pid));
    } else if (what == 'e') {
        if (pthread_create(&thread, NULL, executes, NULL)) abort();
        for (;;) pause();
    } else if (what == 'd') {  /* the first thread ends, another executes */
        if (pthread_create(&thread, NULL, executes, NULL)) abort();
        pthread_exit(NULL);
    } else if (what == 'k') {
        if (!(pid = fork())) for (;;) kill(getpid(), SIGKILL);
        say("k %d\n", ended(pid));
    } else if (what == 'R') {  /* children that are killed at any time */
        int right = 0;
        for (int n = 0; n < number; n++) {
            if (!(pid = fork())) for (;;) pause();
            for (volatile int wait = n * 100 % 20000; wait > 0; wait--)
                ;
            kill(pid, SIGKILL);
            right += ended(pid) == SIGKILL;
        }
        say("R %d\n", right);
    } else if (what == 'F') {  /* a child that waits */
        if (!(pid = fork())) for (;;) pause();
        say("F %d\n", pid);
        say("F %d\n", ended(pid));
    } else if (what == 'A') {  /* a child that has a debugger already */
        if (!(pid = fork())) { ptrace(PTRACE_TRACEME, 0, 0, 0); say("A %d\n", getpid()); for (;;) pause(); }
        ended(pid);
    } else if (what == 'h') {
        raise(SIGUSR1);
        say("h %d\n", handled);
    } else if (what == 'q') {
        union sigval with = {.sival_int = 4711};
        sigqueue(getpid(), SIGUSR1, with);
        say("q %d %d\n", value, sender == getpid());
    } else if (what == 'j') {  /* what a shell does */
        if (!(pid = fork())) for (;;) pause();
        kill(pid, number);
        if (waitpid(pid, &status, WUNTRACED) != pid) abort();
        say("j stopped %d %d\n", WIFSTOPPED(status), WIFSTOPPED(status) ? WSTOPSIG(status) : -1);
        kill(pid, SIGCONT);
        if (waitpid(pid, &status, WCONTINUED) != pid) abort();
        say("j continued %d\n", !!WIFCONTINUED(status));
        kill(pid, SIGTERM);
        say("j %d\n", ended(pid));
    } else if (what == 'E') {
        struct epoll_event event;
        int epoll = epoll_create1(0);
        say("E waits\n");
        int found = epoll_wait(epoll, &event, 1, number * 100);
        say("E %d %d\n", found, found < 0 ? errno : 0);
    } else {
        abort();
    }
}

int main(int count, char **words)
{
    struct sigaction action = {.sa_sigaction = handle, .sa_flags = SA_SIGINFO | SA_RESTART};
    self = words[0], path = words[1];
    sigaction(SIGUSR1, &action, NULL);
    out = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    for (int n = 2; n < count; n++)
        step(words[n][0], atoi(words[n] + 1));
    return 0;
}
"""


@pytest.fixture(scope="session")
def actor(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program: actor OUT STEP..., of which OUT gets a line for each thing it saw."""
    folder = tmp_path_factory.mktemp("actor")
    (folder / "actor.c").write_text(ACTOR)
    subprocess.run(["gcc", "-O1", "-w", "-pthread", "-o", folder / "actor", folder / "actor.c"], check=True)
    return folder / "actor"


@pytest.fixture
def within_limit() -> Iterator[None]:
    """Have a test fail that waits for what never comes."""

    def give_up(*_: object) -> None:
        raise TimeoutError(f"nothing for {LIMIT} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(LIMIT)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def status_of(tid: int, field: str) -> str:
    """Return a field of /proc/TID/status, empty if the thread is gone."""
    with suppress(OSError):
        for line in Path(f"/proc/{tid}/status").read_text().splitlines():
            if line.startswith(f"{field}:"):
                return line.split(":", 1)[1].split()[0]
    return ""


def threads_of(pid: int) -> set[int]:
    """Return the threads of a process, none if it is gone."""
    with suppress(OSError):
        return {int(name) for name in os.listdir(f"/proc/{pid}/task")}
    return set()


def children_of(pid: int) -> list[int]:
    """Return the children that the first thread of a process made."""
    with suppress(OSError):
        return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return []


def end(pid: int) -> None:
    """Kill a process, ours or a debuggee, and wait until it is gone."""
    with suppress(OSError):
        os.kill(pid, signal.SIGKILL)
    with suppress(ChildProcessError):
        while os.WIFSTOPPED(os.waitpid(pid, 0x40000000)[1]):
            os.kill(pid, signal.SIGCONT)
