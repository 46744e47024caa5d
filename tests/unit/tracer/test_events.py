"""What the kernel side sends, byte for byte as bpf/records.h lays it out, reaches whom it is for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from symbolizer.unwind_rule import RuleKind, UnwindRule
from tracer import records
from tracer.attach.program import Program
from tracer.attach.tracee import Inherited, Tracee
from tracer.collect.rule_table import RuleTable
from tracer.collect.sites import SiteReader
from tracer.collect.unwind_rules import Unwinder
from tracer.events import SECOND, KernelEvents
from tracer.limits import MAX_SLOTS
from tracer.listener import Listener, TraceLine
from tracer.losses import LOSSES, loss_index
from tracer.records import EventKind, StackEnd

BASE = 0x7FFD_0000_1000
OUTER, UNSUPPORTED = 0x402000, 0x403000
STARTED = 5 * SECOND


class FakeRing:
    """Gives records once, in order."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []
        self.released = 0

    def consumed(self) -> int:
        return 0

    def records(self, position: int) -> Iterator[tuple[int, memoryview]]:
        for number, data in list(enumerate(self.contents))[position:]:
            yield number + 1, memoryview(data)

    def release(self, position: int) -> None:
        self.released = position


class Rules:
    """Every address calls OUTER 16 bytes further out, which ends the stack."""

    asked: list[int]

    def __init__(self) -> None:
        self.asked = []

    def rule_for(self, address: int, *, interrupted: bool) -> UnwindRule:
        self.asked.append(address)
        kinds = {OUTER: RuleKind.END, UNSUPPORTED: RuleKind.UNSUPPORTED}
        return UnwindRule(kinds.get(address, RuleKind.CFA_SP), 16)


@dataclass
class FakeProcess:
    pid: int


class FakeTracee:
    """One process with its unwinder."""

    def __init__(self, slot: int) -> None:
        self.image, self.process, self.rules, self.reads = slot, FakeProcess(4000 + slot), Rules(), 0
        self.shares_memory, self.dropped = False, Inherited(0, 0)
        #: How many rules had been asked for, each time.
        self.caught_up: list[int] = []
        self._unwinder = self._new_unwinder()

    def _new_unwinder(self) -> Unwinder:
        return Unwinder(self.image, self.rules, RuleTable(np.zeros(16, records.RULE_BUCKET)))

    def unwinder(self, version: int) -> Unwinder | None:
        return self._unwinder if version == self.image else None

    def read_mappings(self) -> None:
        self.reads += 1

    def catch_up(self) -> None:
        self.caught_up.append(len(self.rules.asked))

    def is_gone(self, version: int) -> bool:
        return version < self.image

    def became(self, image: int) -> None:
        self.image, self.shares_memory = image, False
        self._unwinder = self._new_unwinder()


@dataclass
class FakeReader:
    """Notes which sites are provisional and which images went."""

    provisional: list[int] = field(default_factory=list)
    dropped: list[int] = field(default_factory=list)
    losses: list[int] = field(default_factory=lambda: [0] * len(LOSSES))

    def count_loss(self, index: int) -> None:
        self.losses[index] += 1

    def note_provisional(self, site: int) -> None:
        self.provisional.append(site)

    def drop_image(self, image: int) -> tuple[int, int]:
        self.dropped.append(image)
        return 640, 10


class FakeProgram:
    """The tables that a miss touches."""

    def __init__(self) -> None:
        self.ring = FakeRing()
        self.stacks = np.zeros(8, records.stack_dtype(8))
        self.stacks["depth"] = 1
        self.losses = np.zeros(len(LOSSES), records.LOSS_COUNT)


class World:
    """Two processes and the events of both."""

    def __init__(self, *, quiet: bool = False) -> None:
        self.program, self.reader, self.tracees = FakeProgram(), FakeReader(), [FakeTracee(0), FakeTracee(1)]
        self.lines: list[TraceLine] = []
        self.notices: list[str] = []
        self.looked: list[Any] = []
        self.events = KernelEvents(
            cast(Program, self.program), self._at, cast(SiteReader, self.reader),
            Listener(traced=self.lines.append, notice=self.notices.append), STARTED, quiet=quiet)

    def _at(self, slot: int) -> Tracee | None:
        return cast(Tracee, self.tracees[slot]) if slot < len(self.tracees) else None

    def send(self, kind: EventKind, slot: int = 0, image: int | None = None, rest: bytes = b"", ns: int = STARTED) -> None:
        image = slot if image is None else image
        self.program.ring.contents.append(records.EVENT_STRUCT.pack(kind, slot, 77, image, ns) + rest)

    def miss(self, site: int = 3, slot: int = 0, image: int | None = None, caller: int = OUTER, pc: int = 0x401000,
             copied: int = records.COPY_PIECE, missing: int = 0) -> None:
        """Send a stack whose one word, at rsp + 8, is its caller."""
        memory = bytearray(2 * records.COPY_PIECE)
        memory[8:16] = caller.to_bytes(8, "little")
        self.send(EventKind.MISS, slot, image,
                  records.MISS_STRUCT.pack(site, copied, missing, 0, pc, BASE, 0, 0xB10C) + bytes(memory))

    def drain(self) -> bool:
        return self.events.drain(self.looked.append)


def test_a_miss_is_answered() -> None:
    """The stack is finished at its site, which is provisional, and the ring is given back."""
    world = World()
    world.miss(site=3)
    assert world.drain()
    row = world.program.stacks[3]
    assert (row["depth"], row["ended"], row["addresses"][1]) == (2, StackEnd.COMPLETE, OUTER)
    assert world.reader.provisional == [3] and world.program.ring.released == 1
    assert not any(world.reader.losses)
    assert not world.drain()


def test_only_what_was_copied_counts() -> None:
    """Bytes behind the copy are of an older record; a piece that is missing has no words."""
    world = World()
    for site, more in ((2, {"copied": 0}), (3, {"missing": 1})):
        world.miss(site=site, **more)
        world.drain()
        assert world.program.stacks["ended"][site] == StackEnd.NO_COPY
    assert world.reader.losses[loss_index("stack_no_copy")] == 2


def test_what_python_cannot_follow_is_counted() -> None:
    """A stack that ends early here too is a loss of its kind, unless it has no site of its own."""
    world = World()
    world.miss(site=4, caller=UNSUPPORTED)
    world.miss(site=0, caller=UNSUPPORTED)
    world.drain()
    assert world.reader.losses == [
        int(loss.name == "stack_unsupported") for loss in LOSSES]


def test_a_miss_of_a_program_that_is_gone() -> None:
    """After an exec, stacks of the old image are no longer looked into; their sites may be others' by now, and are let alone."""
    world = World()
    world.miss(site=5, slot=1, image=1 + MAX_SLOTS)
    world.drain()
    assert world.program.stacks["ended"][5] == 0 and world.tracees[1].rules.asked == []
    assert world.reader.provisional == []


def test_new_paths_are_answered_first() -> None:
    """Misses at an address whose rule is known wait for one at another address, which goes on missing until then."""
    world = World()
    world.miss()
    world.drain()
    for pc in (0x401000, 0x401000):
        world.miss(pc=pc, site=pc >> 12 & 7)
    world.miss(pc=0x406000, site=6, image=MAX_SLOTS)  # of a program that is gone: nobody waits
    world.miss(pc=0x405000, site=5)
    world.drain()
    assert world.reader.provisional == [3, 5, 1, 1]


def test_changed_mappings() -> None:
    """However often it is told, a process is looked at once, and only that one."""
    world = World()
    for _ in range(3):
        world.send(EventKind.MAPPINGS, slot=1)
    world.drain()
    assert world.looked == [world.tracees[1]] and world.tracees[1].reads == 3
    world.drain()
    assert len(world.looked) == 1


def test_new_mappings_are_read_before_older_misses() -> None:
    """What a library's first stack needs is there when it comes, also behind a queue of known ones."""
    world = World()
    world.miss()
    world.drain()
    world.miss(site=4)
    world.send(EventKind.MAPPINGS)
    world.tracees[0].rules.asked.clear()
    world.miss(site=5, pc=0x409000)
    world.drain()
    assert world.tracees[0].reads == 1 and world.tracees[0].rules.asked == [0x409000]


def test_what_was_loaded_is_known_before_a_stack_is_followed() -> None:
    """A library that has come since the mappings were read is looked for before the first rule of a stack is."""
    world = World()
    world.miss()
    world.drain()
    assert world.tracees[0].caught_up[0] == 0 and world.tracees[0].rules.asked


def test_exec() -> None:
    """The old image is dropped and said to be gone, the process has the new one and is looked at."""
    world = World()
    world.send(EventKind.EXEC, slot=1, image=1 + MAX_SLOTS)
    world.drain()
    assert world.reader.dropped == [1] and world.tracees[1].image == MAX_SLOTS + 1 and world.looked == [world.tracees[1]]
    (notice,) = world.notices
    assert "4001" in notice and "10 blocks" in notice and "640 bytes" in notice


def test_what_execs_did_away_with_adds_up() -> None:
    """All execs of a process together; one that is told of twice counts once."""
    world = World()
    one = world.tracees[1]
    world.events.follow_exec(cast(Tracee, one), 1 + MAX_SLOTS)
    world.send(EventKind.EXEC, slot=1, image=1 + MAX_SLOTS)
    world.drain()
    assert (one.dropped, world.reader.dropped, len(world.notices)) == (Inherited(640, 10), [1], 1)
    world.send(EventKind.EXEC, slot=1, image=1 + 2 * MAX_SLOTS)
    world.send(EventKind.EXEC, slot=1, image=1 + MAX_SLOTS)
    world.drain()
    assert (one.dropped, one.image) == (Inherited(1280, 20), 1 + 2 * MAX_SLOTS)


def test_exec_of_a_child_that_worked_in_its_parents_memory() -> None:
    """After vfork, exec leaves the parent's blocks alone: nothing is dropped."""
    world = World()
    world.tracees[1].shares_memory = True
    world.send(EventKind.EXEC, slot=1, image=1 + MAX_SLOTS)
    world.drain()
    assert world.reader.dropped == [] and world.tracees[1].dropped == Inherited(0, 0)
    assert world.tracees[1].image == 1 + MAX_SLOTS and not world.tracees[1].shares_memory


def test_execs_are_not_told_of_where_there_are_many() -> None:
    """With --follow-forks every child execs: that is no news."""
    world = World(quiet=True)
    world.send(EventKind.EXEC, slot=1, image=1 + MAX_SLOTS)
    world.drain()
    assert world.notices == [] and world.reader.dropped == [1]


def test_events_of_a_slot_that_is_free() -> None:
    """What still speaks of a process that has gone is read and passed over, whatever it is."""
    world = World()
    world.miss(slot=2)
    for kind in (EventKind.MAPPINGS, EventKind.EXEC):
        world.send(kind, slot=2)
    world.send(EventKind.FREED, slot=2, rest=records.TRACE_STRUCT.pack(0x10, 64, 3))
    world.miss(site=5)
    assert world.drain()
    assert world.reader.provisional == [5] and not (world.looked or world.lines or world.notices)


@pytest.mark.parametrize(("kind", "allocated"), [(EventKind.ALLOCATED, True), (EventKind.FREED, False)])
def test_lines_of_trace(kind: EventKind, allocated: bool) -> None:
    """Who, when since the start, where and how much."""
    world = World()
    world.send(kind, slot=1, rest=records.TRACE_STRUCT.pack(0x5555_0010, 64, 3), ns=STARTED + SECOND * 3 // 2)
    world.drain()
    assert world.lines == [TraceLine(1.5, 4001, 77, allocated, 0x5555_0010, 64)]
