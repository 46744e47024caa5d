"""The loop from a target to reports: attach, drain, judge; yields Reports. Also the Python API."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace

import numpy as np

from symbolizer.packages import Packages
from tracer.attach.compiler import Compilation
from tracer.attach.follow import Follower
from tracer.attach.loader import LoadedObject
from tracer.attach.objects import Objects
from tracer.attach.program import Program
from tracer.attach.selection import Selection
from tracer.attach.spawn import HeldCommand
from tracer.attach.start import Prepared, prepare
from tracer.attach.target import Process
from tracer.attach.tracee import Tracee
from tracer.closing import ClosingNotes
from tracer.collect.rule_table import RuleTable
from tracer.collect.sites import SiteReader
from tracer.containers import ContainerNames
from tracer.errors import CannotTrace
from tracer.events import KernelEvents
from tracer.holdings import Holdings
from tracer.listener import Listener
from tracer.looks import Looks
from tracer.membership import Membership
from tracer.memory_heads import MemoryHeads
from tracer.misuses import MisuseCollector
from tracer.naming import StackNamer
from tracer.poller import Poller
from tracer.report.model import Report
from tracer.reporter import Reporter
from tracer.requirements import require_allocator, require_survival
from tracer.roster import Roster
from tracer.settings import Settings
from tracer.stack_pool import StackPool
from tracer.symbols import make_symbolizer
from tracer.verdicts import Watch

#: Say that something is under way when it takes longer than this, in seconds.
PATIENCE = 0.5
#: Nice value: leaktrace works little, but what it does is waited for.
PRIORITY = -10
SECOND = 1_000_000_000
#: Seconds that the rest waits for a program to be loaded; it takes some 10 ms.
LONGEST_LOADING = 5.0


@dataclass(slots=True)
class _Clock:
    """When reports are due, in monotonic ns."""

    interval: int
    start: int = field(default_factory=time.monotonic_ns)
    due: int = 0

    def __post_init__(self) -> None:
        self.due = self.start + self.interval

    def advance(self) -> None:
        now = time.monotonic_ns()
        # A report that took longer than the interval skips those it missed.
        while self.due <= now:
            self.due += self.interval


class Session:
    """One trace of one or more processes. Use as a context manager; reports() yields until it is over."""

    def __init__(self, settings: Settings, listener: Listener | None = None, prepared: Prepared | None = None) -> None:
        self._prepared = prepared
        self.settings = settings
        self.listener = listener or Listener()
        self.symbolizer = make_symbolizer(settings, self.listener, self._attend)
        self.objects = Objects(self.symbolizer)
        self.roster = Roster(settings, self.objects)
        #: Told when the command has ended, and so many processes that it made have not.
        self.on_command_end: Callable[[int], None] = lambda others: None
        #: The process ends with this session, so that followed ones need not be stopped to be left.
        self.ends_with_process = False
        self._stop = self._asked = False
        self._begun = False
        self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._command: HeldCommand | None = None
        self._program: Program | None = None
        self._members: Membership | None = None
        self._selection: Selection | None = None
        self._follower: Follower | None = None
        self._serving = False

    def __enter__(self) -> Session:
        try:
            self._begin()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Detach from everything; a command that was never let go is ended."""
        if self._command and not self._begun:
            self._command.kill()
        if self._follower:
            self._follower.close(interrupt=not self.ends_with_process)
            self._follower = None
        if self._members:
            self._members.close()
        if self._program:
            self._program.close()
            self._program = None
        for tracee in self.roster.everyone:
            tracee.close()
        self.symbolizer.close()

    def stop(self) -> None:
        """End reports() after one last report; may be called from a signal handler."""
        self._stop = True
        os.write(self._woken[1], b"x")

    def ask(self) -> None:
        """Have reports() yield one more at once; may be called from a signal handler."""
        self._asked = True
        os.write(self._woken[1], b"x")

    @property
    def tracees(self) -> list[Tracee]:
        """All processes of this trace, also those that have ended."""
        return self.roster.everyone

    @property
    def running(self) -> bool:
        """Whether any of them has not ended, or one may yet come."""
        if self._selection is not None:
            return bool(self.roster.running_count) or not self._selection.is_over()
        return bool(self.roster.running_count)

    def _begin(self) -> None:
        settings = self.settings
        prepared = self._prepared or prepare(settings)
        self._command, self.way, self._selection = prepared.command, prepared.way, prepared.selection
        try:
            for process in prepared.processes:
                self._admit(process)
            program = self._program = Program(settings, self._wait_for(prepared.compilation))
        finally:
            prepared.compilation.wait()
        require_survival(self.tracees, self.way)
        self._reader = SiteReader(program, self._volatile)
        pool = StackPool(self.roster.of_image)
        namer = StackNamer(self.symbolizer, pool, lambda: [tracee.jit for tracee in self.tracees], settings.group_by,
                           raw=settings.raw_stacks, idle=self._attend)
        self._holdings = Holdings(pool, namer, self.roster.of_image)
        self._looks = Looks(settings, self._reader)
        members = self._members = Membership(settings, program, RuleTable(program.rules), self.roster, self._reader,
                                             self._holdings, self.listener, self._looks)
        for tracee in self.tracees:
            members.bind(tracee)
        program.watch_processes()
        _hurry()
        self._clock = _Clock(int(settings.interval * SECOND))
        self._watch = Watch(self._reader, self._clock.start)
        misuses = self._collect_misuses(program) if settings.check_frees else None
        self._reporter = Reporter(
            settings, self._clock.start, self.symbolizer, self.objects, self.roster, self.listener, self._reader,
            self._holdings, self._looks, self._watch, MemoryHeads(settings), ContainerNames(self._attend),
            ClosingNotes(self.symbolizer, self.roster, Packages(), self._attend), misuses)
        members.hear(KernelEvents(program, self.roster.at, self._reader, self.listener, self._clock.start,
                                  quiet=settings.follows, wanted=members.wanted, executed=members.hold,
                                  misuses=misuses))
        self._attach(members)
        if not settings.follows:
            # Of many processes, one without is no reason to end.
            for tracee in self.tracees:
                require_allocator(tracee, settings, self.listener)
        self._begun = True

    def _collect_misuses(self, program: Program) -> MisuseCollector:
        pool = StackPool(self.roster.of_image)
        namer = StackNamer(self.symbolizer, pool, lambda: [tracee.jit for tracee in self.tracees],
                           self.settings.group_by, raw=self.settings.raw_stacks, idle=self._attend)

        def pid_of(slot: int) -> int | None:
            tracee = self.roster.at(slot)
            return tracee.process.pid if tracee is not None else None

        return MisuseCollector(program, pool, namer, pid_of)

    def _admit(self, process: Process) -> None:
        try:
            tracee = self.roster.admit(process)
        except ProcessLookupError:
            if process.pid in self.settings.pids:
                raise CannotTrace(f"Process {process.pid} ({process.comm}) has just ended.",
                                  "Trace a process that runs.") from None
            # A child of one of those, which need not live long.
            return
        if tracee is not None:
            tracee.read_mappings()

    def _note_end(self, pid: int, status: int) -> None:
        if self._command is None or pid != self._command.pid:
            return
        self._command.status = status
        others = len(self.roster.running)
        if others:
            self.on_command_end(others)

    def _volatile(self, slot: int) -> np.ndarray:
        tracee = self.roster.at(slot)
        return tracee.volatile() if tracee is not None else np.empty((0, 2), np.uint64)

    def _attach(self, members: Membership) -> None:
        """Attach to the processes that run, and let a command run until it is loaded."""
        settings, command = self.settings, self._command
        self._follower = Follower(members, forks=settings.follows, stays=settings.stays)
        members.select(self._selection, self._follower)
        self._looks.follower = self._follower if settings.stays else None
        if command:
            members.on_end = self._note_end
            for tracee in self.tracees:
                tracee.allow_checks(from_start=True)
            self._follower.adopt(command.pid)
            self._attend()
            if not settings.stays:
                command.poll()
        else:
            for tracee in list(self.tracees):
                members.begin(tracee, required=tracee.process.pid in settings.pids)
            members.look_around()
            if self._selection and not self._selection.tells_apart():
                self.listener.notice("of control groups of version 1 the kernel does not say who is in them when a "
                                     "program begins: its first moment is missed, perhaps all of one that ends soon")
            if not self.roster.running_count:
                self.listener.notice("no process of the selection runs yet; waiting for one")

    def _wait_for(self, compilation: Compilation) -> LoadedObject:
        if not compilation.wait(PATIENCE):
            self.listener.progress("compiling the BPF program ...")
        return compilation.result()

    def _attend(self) -> bool:
        """Handle what the kernel side has sent, and what followed processes wait for; return whether there was any."""
        if self._members is None:
            return False
        found = self._members.drain()
        if self._follower and not self._serving:
            # What is served here may come by here again.
            self._serving = True
            try:
                found = self._serve(self._follower, self._members) or found
            finally:
                self._serving = False
        return found

    def _serve(self, follower: Follower, members: Membership) -> bool:
        """Serve what is followed now; or, what was caught at its exec, until it is loaded."""
        if self.settings.follows or (self.settings.stays and self._begun):
            return follower.serve()
        watched = follower.watches
        until = time.monotonic() + LONGEST_LOADING
        while follower.watches and time.monotonic() < until:
            follower.serve()
            members.drain()
            if follower.watches:
                follower.wait(PATIENCE)
        if watched:
            members.loaded()
        return watched

    def reports(self) -> Iterator[Report]:
        """Yield a report at each interval, and a last one when the trace ends: by count, duration, stop() or exit."""
        settings, made = self.settings, 0
        end = self._clock.start + int(settings.duration * SECOND) if settings.duration else None
        follower = self._follower if settings.stays else None
        if self._members is None or self._program is None:
            raise CannotTrace("The trace is over.", "Start another one.")
        with Poller(self._program.ring.fd, self._woken[0], self._attend) as poller:
            poller.follow(follower)
            if follower is None:
                poller.watch({tracee.pidfd: tracee for tracee in self.roster.running}, self._members.has_ended)
            while True:
                poller.wait(min(self._clock.due, self._watch.due, end or self._clock.due),
                            lambda: self._stop or self._asked or not self.running)
                poller.notice_ends()
                self._watch.look()
                over = self._stop or not self.running
                over = over or (end is not None and time.monotonic_ns() >= end)
                due = time.monotonic_ns() >= self._clock.due
                if not (due or over or self._asked):
                    continue
                asked, self._asked = self._asked, False
                self._clock.advance()
                made += due or over
                over = over or made == settings.count
                yield replace(self.report(last=over), asked_for=asked)
                if over:
                    return

    def report(self, *, last: bool = False) -> Report:
        """Return what is outstanding now."""
        members = self._members
        if members is None:
            raise CannotTrace("The trace is over.", "Start another one.")
        self._attend()
        members.begin_report()
        try:
            report = self._reporter.report(members, last=last)
        finally:
            members.end_report()
        if self.settings.follows and not self.settings.keep_ended:
            self.roster.forget(self._holdings.forget_ended())
        return report

    def helpers(self) -> list[int]:
        """Return the processes that work for this session."""
        return self.symbolizer.helpers()

    def kernel_bytes(self) -> int:
        """Return how much kernel memory the maps hold."""
        return self._program.kernel_bytes() if self._program else 0


def _hurry() -> None:
    """Be scheduled soon after a miss, also on a busy machine: until it is answered, its path goes on missing."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


def stop_on_signals(session: Session) -> None:
    """Have Ctrl-C and SIGTERM end the session with a last report, a second one at once; SIGUSR1 asks for a report."""

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        session.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    signal.signal(signal.SIGUSR1, lambda *_: session.ask())
