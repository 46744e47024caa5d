"""The loop from a target to reports: attach, drain, judge; yields Reports. Also the Python API."""

from __future__ import annotations

import os
import platform
import select
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from tracer import records
from tracer.attach.compiler import Compilation
from tracer.attach.links import Links
from tracer.attach.loader import LoadedObject
from tracer.attach.objects import Objects
from tracer.attach.program import Program
from tracer.attach.spawn import HeldCommand
from tracer.attach.start import Prepared, prepare
from tracer.attach.tracee import Attached, Tracee
from tracer.collect.ring import RecordQueue
from tracer.collect.sites import SiteReader
from tracer.collect.snapshot import Snapshot
from tracer.collect.unwind_rules import Miss, RuleTable, StackTable
from tracer.errors import CannotTrace
from tracer.fill import fill_report
from tracer.limits import MAX_SLOTS
from tracer.losses import loss_index
from tracer.records import EventKind, StackEnd
from tracer.report.model import Report
from tracer.settings import Settings

#: Say that something is under way when it takes longer than this, in seconds.
PATIENCE = 0.5
#: Seconds.
BREATH = 0.0005
#: Nice value: leaktrace works little, but what it does is waited for.
PRIORITY = -10
#: Compared as a number: there may be tens of thousands of them in a second.
MISS = int(EventKind.MISS)
#: Stacks that Python could not finish either count as the kernel side counts its own.
LOSS_OF_END = {
    StackEnd.DEPTH: "stack_depth",
    StackEnd.NO_COPY: "stack_no_copy",
    StackEnd.UNREADABLE: "stack_unreadable",
    StackEnd.UNSUPPORTED: "stack_unsupported",
}
SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One allocation or free as it happens (--trace): seconds since the start, thread, address, size in bytes."""

    elapsed_s: float
    pid: int
    tid: int
    allocated: bool
    address: int
    size: int


@dataclass(slots=True)
class Listener:
    """Who is told of what is not the report: all optional."""

    attached: Callable[[Attached], None] = lambda _: None
    progress: Callable[[str], None] = lambda _: None
    notice: Callable[[str], None] = lambda _: None
    traced: Callable[[TraceLine], None] = lambda _: None
    timing: Callable[[str], None] = lambda _: None


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
        self.objects = Objects()
        self.tracees: list[Tracee] = []
        self._stop = False
        self._woken = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._command: HeldCommand | None = None
        self._links: Links | None = None
        self._program: Program | None = None
        self._queue: RecordQueue | None = None
        self._changed: set[int] = set()
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
        if self._command and self._command.held:
            self._command.kill()
        if self._program:
            self._program.close()
            self._program = None
        for tracee in self.tracees:
            os.close(tracee.pidfd)
        self.tracees.clear()

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
        self._links = Links(program, bare=settings.bare_traps)
        self._table = RuleTable(program.rules)
        self._reader = SiteReader(program)
        self._stacks = StackTable(program.stacks)
        self._queue = RecordQueue(program.ring, self._is_urgent, self._handle_record)
        program.images["number"] = range(MAX_SLOTS)
        program.watch_exec()
        _hurry()
        self._clock = _Clock(int(settings.interval * SECOND))
        if self._command:
            tracee = self.tracees[-1]
            self._command.release(lambda: self._look_again(tracee), self._drain_ring)
        else:
            for tracee in self.tracees:
                self._look_again(tracee)
        self._require_allocators()

    def _wait_for(self, compilation: Compilation) -> LoadedObject:
        if not compilation.wait(PATIENCE):
            self.listener.progress("compiling the BPF program ...")
        return compilation.result()

    def _require_allocators(self) -> None:
        for tracee in self.tracees:
            if not tracee.knows_allocator() and tracee.alive:
                searched = ", ".join(sorted(set(tracee.searched.values()))) or "none"
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
        tracee.publish(self._program, self._table)

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
        drained = time.monotonic_ns()
        report = fill_report(
            snapshot,
            self._earlier,
            settings,
            self.tracees,
            self.objects.symbolizer,
            elapsed_s=(began - self._clock.start) / SECOND,
            taken=datetime.now().astimezone(),
            kernel=platform.release(),
            last=last,
        )
        self._earlier = (began, snapshot)
        named = time.monotonic_ns()
        self.listener.timing(
            f"report took {(named - began) / SECOND:.3f} s (drain {(drained - began) / SECOND:.3f} s, "
            f"symbols {(named - drained) / SECOND:.3f} s) for {len(snapshot)} sites, "
            f"{int(snapshot.live_count.sum())} blocks"
        )
        return report

    def kernel_bytes(self) -> int:
        """Return how much kernel memory the maps hold."""
        return self._program.kernel_bytes() if self._program else 0

    def _drain_ring(self) -> None:
        if self._queue is None:
            return
        if not self._queue.drain():
            # A record is being written, perhaps by a thread that has lost its processor: let it have this one.
            time.sleep(BREATH)
        for slot in self._changed:
            self._look_again(self.tracees[slot])
        self._changed.clear()

    def _is_urgent(self, record: memoryview) -> bool:
        """Whether it is a miss at an address for which no rule is known yet."""
        kind, slot, _, image, _ = records.EVENT_STRUCT.unpack_from(record, 0)
        if kind != MISS:
            return False
        tracee = self.tracees[slot]
        pc = records.MISS_STRUCT.unpack_from(record, records.EVENT_STRUCT.size)[4]
        return image == tracee.image and not tracee.unwinder(self._table).knows(pc)

    def _handle_record(self, record: memoryview) -> None:
        head = records.EVENT_STRUCT.unpack_from(record, 0)
        if head[0] == MISS:
            self._answer(self.tracees[head[1]], head[3], record)
        else:
            self._handle(EventKind(head[0]), head, record)

    def _handle(self, kind: EventKind, head: tuple[int, ...], record: memoryview) -> None:
        _, slot, tid, image, at = head
        tracee = self.tracees[slot]
        if kind is EventKind.MAPPINGS:
            self._changed.add(slot)
        elif kind is EventKind.EXEC:
            self._follow_exec(tracee, image)
            self._changed.add(slot)
        else:
            address, size, _ = records.TRACE_STRUCT.unpack_from(record, records.EVENT_STRUCT.size)
            elapsed = (at - self._clock.start) / SECOND
            self.listener.traced(
                TraceLine(elapsed, tracee.process.pid, tid, kind is EventKind.ALLOCATED, address, size))

    def _answer(self, tracee: Tracee, image: int, record: memoryview) -> None:
        start = records.EVENT_STRUCT.size
        site, copied, missing, _, pc, sp, bp, _ = records.MISS_STRUCT.unpack_from(record, start)
        self._reader.note_provisional(site)
        if image != tracee.image or self._program is None:
            return
        memory = record[start + records.MISS_STRUCT.size :][:copied]
        ended = tracee.unwinder(self._table).answer(Miss(image, site, pc, sp, bp, memory, missing), self._stacks)
        if site and ended in LOSS_OF_END:
            self._program.losses["count"][loss_index(LOSS_OF_END[ended])] += 1

    def _follow_exec(self, tracee: Tracee, image: int) -> None:
        if self._command is None or not self._command.held:
            live, count = self._reader.drop_image(tracee.image)
            self.listener.notice(f"process {tracee.process.pid} ran another program (exec): {count} blocks of the old "
                                 f"one ({live} bytes) are gone and no longer counted")
        tracee.became(image)


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
            for fd, _ in self._epoll.poll(left):
                if fd == self._ring:
                    session._drain_ring()
                elif fd in self._pidfds:
                    self._epoll.unregister(fd)
                    self._pidfds.pop(fd).alive = False
                    if not any(tracee.alive for tracee in session.tracees):
                        return


def stop_on_signals(session: Session) -> None:
    """Have Ctrl-C and SIGTERM end the session with a last report; a second one ends it at once."""

    def handle(number: int, _frame: object) -> None:
        signal.signal(number, signal.SIG_DFL)
        session.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
