"""Handles what the kernel side sends: unwind misses, execs, changed mappings, lines of --trace."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from tracer import records
from tracer.attach.program import Program
from tracer.attach.tracee import Inherited, Tracee
from tracer.collect.ring import RecordQueue
from tracer.collect.sites import SiteReader
from tracer.collect.unwind_rules import Miss, StackTable
from tracer.listener import Listener, TraceLine
from tracer.losses import loss_index
from tracer.misuses import MisuseCollector
from tracer.records import EventKind, StackEnd

SECOND = 1_000_000_000
#: Compared as a number: there may be tens of thousands of them in a second.
MISS = int(EventKind.MISS)
#: Stacks that Python could not finish either count as the kernel side counts its own.
LOSS_OF_END = {
    StackEnd.DEPTH: loss_index("stack_depth"),
    StackEnd.NO_COPY: loss_index("stack_no_copy"),
    StackEnd.UNREADABLE: loss_index("stack_unreadable"),
    StackEnd.UNSUPPORTED: loss_index("stack_unsupported"),
}


class Wanted(Protocol):
    """Who is told of a process that is to be traced."""

    def __call__(self, pid: int, *, waits: bool) -> None:
        """waits: it does so until it is let go."""


def _nobody(pid: int, *, waits: bool) -> None:
    """Where nothing is selected, nobody is wanted."""


class KernelEvents:
    """The consumer of one program's ring buffer."""

    def __init__(self, program: Program, tracee_at: Callable[[int], Tracee | None], reader: SiteReader,
                 listener: Listener, started_ns: int, *, quiet: bool = False, wanted: Wanted = _nobody,
                 executed: Callable[[int], None] = lambda pid: None,
                 misuses: MisuseCollector | None = None) -> None:
        """tracee_at: by slot; started_ns: monotonic, from which lines of --trace count; quiet: say nothing of execs.

        wanted: told of processes that are to be traced. executed: told of those that wait at an exec.
        """
        self._tracee_at = tracee_at
        self._quiet = quiet
        self._wanted = wanted
        self._executed = executed
        self._reader = reader
        self._listener = listener
        self._started = started_ns
        self._stacks = StackTable(program.stacks)
        self._misuses = misuses
        self._queue = RecordQueue(program.ring, self._is_urgent, self._handle_record)
        self._changed: set[int] = set()

    def drain(self, look_again: Callable[[Tracee], None]) -> bool:
        """Handle all that is there, and call look_again for processes whose mappings changed.

        Returns whether there was anything.
        """
        found = self._queue.drain()
        changed, self._changed = self._changed, set()
        for slot in changed:
            tracee = self._tracee_at(slot)
            if tracee is not None:
                look_again(tracee)
        return found

    def _is_urgent(self, record: memoryview) -> bool:
        """Whether it is a miss at an address for which no rule is known yet, or new code, which the next may need."""
        kind, slot, _, version, _ = records.EVENT_STRUCT.unpack_from(record, 0)
        if kind in (EventKind.MAPPINGS, EventKind.EXEC, EventKind.WANTED):
            # Somebody may be waiting.
            return True
        if kind != MISS:
            return False
        tracee = self._tracee_at(slot)
        unwinder = tracee.unwinder(version) if tracee is not None else None
        pc = records.MISS_STRUCT.unpack_from(record, records.EVENT_STRUCT.size)[4]
        return unwinder is not None and not unwinder.knows(pc)

    def _handle_record(self, record: memoryview) -> None:
        kind, slot, tid, image, at = records.EVENT_STRUCT.unpack_from(record, 0)
        if kind == EventKind.WANTED:
            self._wanted(image, waits=bool(slot))
            return
        tracee = self._tracee_at(slot)
        if tracee is None:
            return
        if kind == MISS:
            self._answer(tracee, image, record)
        elif kind == EventKind.MAPPINGS:
            tracee.read_mappings()
            self._changed.add(slot)
        elif kind == EventKind.EXEC:
            # It waits to be held.
            self._executed(tracee.process.pid)
            self.follow_exec(tracee, image)
            self._changed.add(slot)
        elif kind == EventKind.MISUSE:
            if self._misuses is not None:
                start = records.EVENT_STRUCT.size
                self._misuses.note(bytes(record[start : start + records.MISUSE_STRUCT.size]))
        else:
            address, size, _ = records.TRACE_STRUCT.unpack_from(record, records.EVENT_STRUCT.size)
            self._listener.traced(TraceLine(
                (at - self._started) / SECOND, tracee.process.pid, tid, kind == EventKind.ALLOCATED, address, size))

    def _answer(self, tracee: Tracee, version: int, record: memoryview) -> None:
        start = records.EVENT_STRUCT.size
        site, copied, missing, _, pc, sp, bp, _ = records.MISS_STRUCT.unpack_from(record, start)
        # Misses are handled before what was said earlier, and this stack may be of a library that has just come; and
        # one that goes waits for it to be known.
        tracee.catch_up()
        unwinder = tracee.unwinder(version)
        if unwinder is None:
            # Of an image that exec has replaced: its sites may be others' by now.
            if site and int(self._stacks.code[site]) == version:
                self._reader.note_provisional(site)
            return
        self._reader.note_provisional(site)
        memory = record[start + records.MISS_STRUCT.size :][:copied]
        ended = unwinder.answer(Miss(site, pc, sp, bp, memory, missing), self._stacks)
        if self._misuses is not None:
            self._misuses.keep_stack(site)
        if site and ended in LOSS_OF_END:
            self._reader.count_loss(LOSS_OF_END[ended])

    def follow_exec(self, tracee: Tracee, image: int) -> None:
        """Forget what an exec has replaced, unless that is done: a held process may have said so before the ring."""
        if image == tracee.image or tracee.is_gone(image):
            return
        live, count = (0, 0) if tracee.shares_memory else self._reader.drop_image(tracee.image)
        tracee.dropped = Inherited(tracee.dropped.bytes + live, tracee.dropped.count + count)
        tracee.became(image)
        # Misses of the new image stand behind this record, and are answered before anybody looks again.
        tracee.read_mappings()
        if self._quiet:
            return
        self._listener.notice(f"process {tracee.process.pid} ran another program (exec): {count} blocks of the old one "
                              f"({live} bytes) are gone and no longer counted")
