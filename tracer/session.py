"""The loop from a target to reports: attach, drain, judge; yields Reports. Also the Python API."""

from __future__ import annotations

import os
import platform
import select
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from symbolizer.packages import Packages
from tracer.attach.compiler import Compilation
from tracer.attach.links import Links
from tracer.attach.loader import LoadedObject
from tracer.attach.objects import Objects
from tracer.attach.program import Program
from tracer.attach.seccomp import has_filter, return_probes_survive
from tracer.attach.spawn import HeldCommand
from tracer.attach.start import Prepared, prepare
from tracer.attach.tracee import Tracee
from tracer.closing import ClosingNotes
from tracer.collect.sites import SiteReader
from tracer.collect.snapshot import Snapshot
from tracer.collect.unwind_rules import RuleTable
from tracer.errors import CannotTrace
from tracer.events import KernelEvents
from tracer.fill import fill_report
from tracer.listener import Listener
from tracer.naming import StackNamer
from tracer.records import StackEnd
from tracer.report.model import Report
from tracer.settings import AttachWay, Settings
from tracer.symbols import make_symbolizer

#: Say that something is under way when it takes longer than this, in seconds.
PATIENCE = 0.5
#: Seconds.
BREATH = 0.0005
#: Seconds; epoll takes no more than 24 days.
LONGEST_WAIT = 86_400.0
#: Nice value: leaktrace works little, but what it does is waited for.
PRIORITY = -10
SECOND = 1_000_000_000


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
        self.symbolizer = make_symbolizer(settings, self.listener, self._drain_ring)
        self.objects = Objects(self.symbolizer)
        self.tracees: list[Tracee] = []
        self._stop = False
        self._begun = False
        self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._command: HeldCommand | None = None
        self._links: Links | None = None
        self._program: Program | None = None
        self._events: KernelEvents | None = None
        self._earlier: tuple[int, Snapshot] | None = None

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
        if self._links:
            self._links.close()
        if self._command and (self._command.held or not self._begun):
            self._command.kill()
        if self._program:
            self._program.close()
            self._program = None
        for tracee in self.tracees:
            tracee.close()
        self.tracees.clear()
        self.symbolizer.close()

    def stop(self) -> None:
        """End reports() after one last report; may be called from a signal handler."""
        self._stop = True
        os.write(self._woken[1], b"x")

    def _begin(self) -> None:
        settings = self.settings
        prepared = self._prepared or prepare(settings)
        self._command, self.way = prepared.command, prepared.way
        try:
            self.tracees = [
                Tracee(process, slot, settings, self.objects) for slot, process in enumerate(prepared.processes)
            ]
            for tracee in self.tracees:
                tracee.read_mappings()
            self._program = Program(settings, self._wait_for(prepared.compilation))
        finally:
            prepared.compilation.wait()
        program = self._program
        _require_survival(self.tracees, self.way)
        self._links = Links(program, bare=settings.bare_traps)
        self._table = RuleTable(program.rules)
        self._reader = SiteReader(program, [tracee.volatile for tracee in self.tracees])
        for tracee in self.tracees:
            tracee.bind(program, self._table)
        program.watch_processes()
        _hurry()
        self._namer = StackNamer(self.symbolizer, self.tracees, settings.group_by, raw=settings.raw_stacks,
                                 idle=self._drain_ring)
        self._closing = ClosingNotes(self.symbolizer, self.tracees, Packages(), self._drain_ring)
        self._clock = _Clock(int(settings.interval * SECOND))
        self._events = KernelEvents(program, self.tracees, self._reader, self.listener, self._clock.start)
        if self._command:
            tracee = self.tracees[-1]
            self._command.release(lambda: self._look_again(tracee), self._drain_ring)
        else:
            for tracee in self.tracees:
                self._look_again(tracee)
        self._require_allocators()
        self._begun = True

    def _wait_for(self, compilation: Compilation) -> LoadedObject:
        if not compilation.wait(PATIENCE):
            self.listener.progress("compiling the BPF program ...")
        return compilation.result()

    def _require_allocators(self) -> None:
        for tracee in self.tracees:
            if not tracee.knows_allocator() and tracee.alive:
                searched = ", ".join(sorted(set(tracee.searched.values()))) or "none"
                if tracee.may_load_more() and (self.settings.object_path or self.settings.symbols_prefix):
                    # The user knows of one that is not there yet.
                    self.listener.notice(f"process {tracee.process.pid} has not loaded that allocator yet; waiting for "
                                         f"it (searched: {searched})")
                    continue
                if tracee.is_go():
                    raise CannotTrace(
                        f"Process {tracee.process.pid} ({tracee.process.comm}) is a Go program without C in it: its "
                        "memory comes from Go's own runtime.",
                        "Use Go's own profiler: import net/http/pprof, then go tool pprof "
                        "http://HOST:PORT/debug/pprof/heap.")
                raise CannotTrace(
                    f"Process {tracee.process.pid} ({tracee.process.comm}) has no allocator that leaktrace knows; "
                    f"searched: {searched}.",
                    "Name a library with -O, a prefix with --symbols-prefix, or the functions with --alloc-fn and "
                    "--free-fn.")

    def _look_again(self, tracee: Tracee) -> None:
        """Read the mappings, attach what is new there, and tell the kernel side."""
        if not tracee.alive or self._links is None or self._program is None:
            return
        tracee.read_mappings()
        try:
            for attached in tracee.attach(self._links, self._program):
                self.listener.attached(attached)
        except (ProcessLookupError, FileNotFoundError):
            # It is just ending; its pidfd will say so.
            pass
        tracee.publish(self._program)

    def _has_ended(self, tracee: Tracee) -> None:
        """A process is gone; its number may come again for another, whose exec is none of ours."""
        tracee.alive = False
        if self._program:
            self._program.forget_process(tracee.process.pid)

    def _drain_ring(self) -> bool:
        """Handle what the kernel side has sent; return whether there was anything."""
        return self._events.drain(self._look_again) if self._events else False

    def reports(self) -> Iterator[Report]:
        """Yield a report at each interval, and a last one when the trace ends: by count, duration, stop() or exit."""
        settings, made = self.settings, 0
        end = self._clock.start + int(settings.duration * SECOND) if settings.duration else None
        with _Poller(self) as poller:
            while True:
                poller.wait(min(self._clock.due, end or self._clock.due))
                over = self._stop or not any(tracee.alive for tracee in self.tracees)
                over = over or (end is not None and time.monotonic_ns() >= end)
                due = time.monotonic_ns() >= self._clock.due
                if not (due or over):
                    continue
                self._clock.advance()
                made += 1
                over = over or made == settings.count
                yield self.report(last=over)
                if over:
                    return

    def report(self, *, last: bool = False) -> Report:
        """Return what is outstanding now."""
        settings, began = self.settings, time.monotonic_ns()
        self._drain_ring()
        for tracee in self.tracees:
            self._look_again(tracee)
        older = None if settings.older_ms is None else int(settings.older_ms * 1_000_000)
        if older is None and (settings.format == "json" or settings.show_allocs):
            older = 0
        snapshot = self._reader.snapshot(older_ns=older, keep_blocks=settings.show_allocs)
        if (snapshot.stacks["ended"] == StackEnd.PENDING).any() and self._drain_ring():
            # A stack was on its way; it is here now.
            snapshot = self._reader.snapshot(older_ns=older, keep_blocks=settings.show_allocs)
        drained = time.monotonic_ns()
        sites = self._namer.sites(snapshot)
        report = fill_report(
            sites,
            self._earlier,
            settings,
            self.tracees,
            elapsed_s=(began - self._clock.start) / SECOND,
            taken=datetime.now().astimezone(),
            kernel=platform.release(),
            last=last,
            notes_on=self._closing.notes,
        )
        self._earlier = (began, sites.snapshot)
        # Until there is something new to name, which is seldom, nothing needs to wait for it in memory.
        self.symbolizer.close()
        named = time.monotonic_ns()
        self.listener.timing(
            f"report took {(named - began) / SECOND:.3f} s (drain {(drained - began) / SECOND:.3f} s, "
            f"symbols {(named - drained) / SECOND:.3f} s) for {len(snapshot)} stacks, {len(sites.snapshot)} sites, "
            f"{int(snapshot.live_count.sum())} blocks"
        )
        return report

    def helpers(self) -> list[int]:
        """Return the processes that work for this session."""
        return self.symbolizer.helpers()

    def kernel_bytes(self) -> int:
        """Return how much kernel memory the maps hold."""
        return self._program.kernel_bytes() if self._program else 0


def _require_survival(tracees: Sequence[Tracee], way: AttachWay) -> None:
    """Raise CannotTrace if a return probe could end one of these."""
    filtered = next((tracee.process for tracee in tracees if has_filter(tracee.process.folder)), None)
    if filtered is not None and not return_probes_survive(way):
        raise CannotTrace(
            f"Process {filtered.pid} ({filtered.comm}) runs under a seccomp filter, and on this kernel a filter ends "
            "processes that return from a probed function.",
            "Use a kernel from 6.14 on or the latest of your stable series, or start the container with "
            "--security-opt seccomp=unconfined.")


def _hurry() -> None:
    """Be scheduled soon after a miss, also on a busy machine: until it is answered, its path goes on missing."""
    with suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)


class _Poller:
    """Waits for events of the kernel side, ends of processes, and stop()."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._epoll = select.epoll()

    def __enter__(self) -> _Poller:
        session = self._session
        program = session._program
        if program is None:
            raise CannotTrace("The trace is over.", "Start another one.")
        self._ring = program.ring.fd
        self._pidfds = {tracee.pidfd: tracee for tracee in session.tracees}
        for fd in (self._ring, session._woken[0], *self._pidfds):
            self._epoll.register(fd, select.EPOLLIN)
        return self

    def __exit__(self, *_: object) -> None:
        self._epoll.close()

    def wait(self, until: int) -> None:
        """Handle events until something asks for a report, at the latest at until (monotonic ns)."""
        session = self._session
        while not session._stop:
            left = (until - time.monotonic_ns()) / SECOND
            if left <= 0:
                return
            for fd, _ in self._epoll.poll(min(left, LONGEST_WAIT)):
                if fd == self._ring:
                    if not session._drain_ring():
                        # A record is being written, perhaps by a thread that lost its processor: let it have this one.
                        time.sleep(BREATH)
                elif fd in self._pidfds:
                    self._epoll.unregister(fd)
                    session._has_ended(self._pidfds.pop(fd))
                    if not any(tracee.alive for tracee in session.tracees):
                        return


def stop_on_signals(session: Session) -> None:
    """Have Ctrl-C and SIGTERM end the session with a last report; a second one ends it at once."""

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        session.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
