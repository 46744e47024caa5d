"""The loop of a kernel trace: attach, learn stacks, drain, judge; yields Reports. Also its Python API."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace

import numpy as np

from symbolizer.kallsyms import Kallsyms
from tracer.attach import kernel, ptrace
from tracer.attach.cgroup import find_cgroup
from tracer.attach.kernel_program import KernelProgram
from tracer.attach.selection import Selection
from tracer.attach.spawn import HeldCommand
from tracer.attach.target import PROC, find_process
from tracer.attach.user import invoking_user
from tracer.collect import kernel_records
from tracer.collect.kernel_rules import KernelRules
from tracer.collect.kernel_sites import KernelReader
from tracer.collect.rule_table import RuleTable
from tracer.errors import CannotTrace
from tracer.kernel_books import find_books
from tracer.kernel_cross import BookCheck
from tracer.kernel_names import KernelNames
from tracer.kernel_report import KernelReporter
from tracer.kernel_settings import KernelSettings
from tracer.listener import Listener
from tracer.report.model import Report
from tracer.verdicts import Watch

SECOND = 1_000_000_000
#: Seconds between turns at what was sent to learn from: while it waits, stacks are right, only dearer.
PAUSE = 0.02


class KernelSession:
    """One trace of the kernel. Use as a context manager; reports() yields until it is over."""

    def __init__(self, settings: KernelSettings, listener: Listener | None = None) -> None:
        self.settings = settings
        self.listener = listener or Listener()
        self.command: HeldCommand | None = None
        self._program: KernelProgram | None = None
        self._stop = self._asked = self._let_go = False
        self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def __enter__(self) -> KernelSession:
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach from the kernel; a command that was never let go is ended."""
        if self.command and not self._let_go:
            self.command.kill()
        if self._program:
            self._program.close()
            self._program = None

    def stop(self) -> None:
        """End reports() after one last report; may be called from a signal handler."""
        self._stop = True
        os.write(self._woken[1], b"x")

    def ask(self) -> None:
        """Have reports() yield one more at once; may be called from a signal handler."""
        self._asked = True
        os.write(self._woken[1], b"x")

    def _begin(self) -> None:
        settings = self.settings
        kernel.require_platform()
        require_permission()
        groups = _levels(settings.cgroups)
        for pid in settings.pids:
            find_process(pid)
        books = find_books() if settings.cross_check else None
        if settings.command:
            # Before any thread exists: the child of a fork has but one.
            self.command = HeldCommand(settings.command, None if settings.as_root else invoking_user())
        atomics = not settings.hash_map and kernel.has_atomics()
        with ThreadPoolExecutor(1) as pool:
            reading = pool.submit(Kallsyms.read)
            program = self._program = KernelProgram(settings, atomics=atomics)
            kallsyms = reading.result()
        if kallsyms.why_not is not None:
            raise CannotTrace("The kernel's functions have no names here: " + kallsyms.why_not.partition(":")[0] + ".",
                              "Run leaktrace as root; if that is not enough, run sysctl kernel.kptr_restrict=1 first.")
        program.want(settings.pids, groups)
        self._names = KernelNames(kallsyms, raw=settings.raw_stacks)
        self._rules = KernelRules(RuleTable(program.rules), self._names.function)
        self._reader = KernelReader(program)
        program.attach()
        # Stacks that are sent meanwhile wait in the ring.
        self._start = time.monotonic_ns()
        self._watch = Watch(self._reader, self._start)
        self._reporter = KernelReporter(settings, self._start, program, self._reader, self._names, self._watch,
                                        lambda: program.coverage)
        if books is not None:
            # Sites are compared by what their callers are, also where stacks are shown as they were recorded.
            names = KernelNames(kallsyms) if settings.raw_stacks else self._names
            self._reporter.books = BookCheck(books, program, names, settings.sources)
            self._reporter.books.begin()
        self.listener.progress(f"attached to {', '.join(program.attached)}")
        if self.command:
            ptrace.request(ptrace.DETACH, self.command.pid)
            self._let_go = True

    def reports(self) -> Iterator[Report]:
        """Yield a report at each interval, and a last one: by count, duration, stop(), or the end of the command."""
        settings, made = self.settings, 0
        if self._program is None:
            raise CannotTrace("The trace is over.", "Start another one.")
        due = self._start + int(settings.interval * SECOND)
        end = self._start + int(settings.duration * SECOND) if settings.duration else None
        with select.epoll() as epoll:
            epoll.register(self._program.ring.fd, select.EPOLLIN)
            epoll.register(self._woken[0], select.EPOLLIN)
            for pid in ((self.command.pid,) if self.command else settings.pids):
                with suppress(ProcessLookupError):
                    epoll.register(os.pidfd_open(pid), select.EPOLLIN)
            while True:
                self._wait(epoll, min(due, self._watch.due, end or due))
                self._watch.look()
                now = time.monotonic_ns()
                over = self._is_over() or (end is not None and now >= end)
                if not (now >= due or over or self._asked):
                    continue
                asked, self._asked = self._asked, False
                made += now >= due or over
                while due <= now:
                    due += int(settings.interval * SECOND)
                over = over or made == settings.count
                yield replace(self._reporter.report(last=over), asked_for=asked)
                if over:
                    return

    def _is_over(self) -> bool:
        if self.command:
            self.command.poll()
        gone = bool(self.settings.pids) and not any((PROC / str(pid)).exists() for pid in self.settings.pids)
        return self._stop or gone or (self.command is not None and self.command.status is not None)

    def _wait(self, epoll: select.epoll, until: int) -> None:
        while not (self._asked or self._is_over()):
            left = (until - time.monotonic_ns()) / SECOND
            if left <= 0:
                return
            epoll.poll(left)
            self.attend()
            # One that is sent now can wait: the kernel side has a stack all the same.
            time.sleep(PAUSE)

    def attend(self) -> bool:
        """Learn from the stacks that were sent; return whether there were any."""
        if self._program is None:
            return False
        ring, depth = self._program.ring, self.settings.depth
        position = ring.consumed()
        found = False
        for after, record in ring.records(position):
            if record is not None:
                self._learn(record, depth)
            ring.release(after)
            found = True
        return found

    def _learn(self, record: memoryview, depth: int) -> None:
        assert self._program is not None
        point, skip, frames, context, copied = kernel_records.MISS.unpack_from(record)
        at = kernel_records.MISS.size
        addresses = np.frombuffer(record, np.uint64, min(frames, depth), at).tolist()
        words = np.frombuffer(record, np.uint64, int(copied) // 8, at + 8 * depth)
        own = self._rules.own_frames(addresses)
        if own and not skip:
            # Before there are rules: both walks must find the same frames.
            self._program.skip(point, own)
        self._rules.learn(point, addresses[own:], words, context)

    def walks(self) -> tuple[int, int]:
        """Return how many stacks learnt distances led through, and how many the kernel walked."""
        return self._program.walks() if self._program else (0, 0)

    def kernel_bytes(self) -> int:
        """Return how much kernel memory the maps hold."""
        return self._program.kernel_bytes() if self._program else 0


def require_permission() -> None:
    """Raise CannotTrace if this user may not load the programs of a kernel trace."""
    from tracer.attach import bpf_syscall

    try:
        os.close(bpf_syscall.load_program(bpf_syscall.RETURN_0, 0, bpf_syscall.BPF_PROG_TYPE_RAW_TRACEPOINT))
    except OSError as problem:
        raise CannotTrace(f"The kernel does not let this user load BPF programs: {problem.strerror}.",
                          f"Run leaktrace with sudo, or give it {kernel.CAPABILITIES}; the kernel needs "
                          "CONFIG_BPF_EVENTS.") from None


def _levels(cgroups: tuple[str, ...]) -> list[tuple[int, int]]:
    groups = [find_cgroup(path) for path in cgroups]
    selection = Selection((), tuple(groups))
    for group in groups:
        if group.version != 2:
            raise CannotTrace(f"The control group {group.path} is of version 1, which the kernel side cannot tell.",
                              "Name one of version 2, or processes with -p.")
    return selection.levels()


def stop_on_signals(session: KernelSession) -> None:
    """Have Ctrl-C and SIGTERM end the session with a last report, a second one at once; SIGUSR1 asks for a report."""

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        with suppress(OSError):
            session.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    signal.signal(signal.SIGUSR1, lambda *_: session.ask())
