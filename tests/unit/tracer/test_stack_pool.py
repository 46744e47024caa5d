"""Stacks are numbered by files and offsets: the same in two processes is one, and what no file holds is apart."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest

from symbolizer.mappings import AddressSpace, object_key, parse_maps
from tests.unit.tracer.conftest import DEPTH, stack
from tracer import records
from tracer.collect.sites import ANY_VERSION
from tracer.limits import MAX_SLOTS
from tracer.records import INTERRUPTED, StackEnd
from tracer.stack_pool import NOBODY, SPARE, Mapped, Place, StackPool

FIRST = AddressSpace.of(parse_maps(b"""\
400000-410000 r-xp 00002000 08:01 11 /usr/bin/server
500000-501000 r-xp 00000000 00:00 0
700000-701000 r-xp 00000000 08:01 12 /usr/lib/other.so
"""))
#: The same files, loaded elsewhere.
SECOND = AddressSpace.of(parse_maps(b"""\
500000-501000 r-xp 00000000 00:00 0
880000-890000 r-xp 00002000 08:01 11 /usr/bin/server
990000-991000 r-xp 00000000 08:01 12 /usr/lib/other.so
"""))


@dataclass
class FakeTracee:
    """What the pool sees of a process, and how often it asked for its mappings."""

    uid: int
    space: AddressSpace
    spaces: dict[int, AddressSpace] = field(default_factory=dict)
    jit: object = None
    asked: int = 0

    def space_of(self, version: int) -> AddressSpace:
        self.asked += 1
        return self.spaces.get(version, self.space)


class World:
    """A pool, and two processes in slots 0 and 1."""

    def __init__(self) -> None:
        self.tracees = {0: FakeTracee(70, FIRST), 1: FakeTracee(71, SECOND)}
        self.pool = StackPool(self._of_image)
        self._identities = 1000

    def _of_image(self, image: int) -> Mapped:
        return cast(Mapped, self.tracees[image % MAX_SLOTS])

    def intern(self, *stacks: np.ndarray, identities: list[int] | None = None) -> list[int]:
        """Intern stacks, each of an identity of its own unless they are given."""
        if identities is None:
            identities = [self._identities + n for n in range(len(stacks))]
            self._identities += len(stacks)
        return [int(each) for each in self.pool.intern(np.array(identities, np.uint64), table(*stacks))]

    def intern_last(self, *stacks: np.ndarray) -> list[int]:
        return [int(each) for each in self.pool.intern_last(table(*stacks))]


def table(*stacks: np.ndarray) -> np.ndarray:
    return np.array(list(stacks), records.stack_dtype(DEPTH))


def test_the_same_code_at_other_addresses() -> None:
    """Two processes that call the same way through the same files have one stack, wherever these are loaded."""
    world = World()
    assert world.intern(stack(0x700010, 0x400123, image=0), stack(0x990010, 0x880123, image=1)) == [0, 0]
    assert len(world.pool) == 1 and len(world.pool.places) == 2


def test_places_are_offsets_in_files() -> None:
    """A return address counts as the call before it, one where a signal came as itself, each in the file that is mapped."""
    world = World()
    world.intern(stack(0x400123, 0x400123 | INTERRUPTED))
    server = object_key(FIRST.mappings[0])
    assert world.pool.places == [Place(server, 0x2122, True), Place(server, 0x2123, False)]
    (only,) = world.pool.stacks
    assert (only.places, only.addresses, only.complete) == ((0, 1), (0x400123, 0x400123 | INTERRUPTED), True)


@pytest.mark.parametrize("other", [
    stack(0x700010, 0x880124, image=1), stack(0x880123, image=1), stack(0x990010, image=1),
    stack(0x990010, 0x880123 | INTERRUPTED, image=1), stack(0x880123, 0x990010, image=1),
])  # fmt: skip
def test_other_calls_are_other_stacks(other: np.ndarray) -> None:
    """Another offset, another file, more frames or fewer, another order, an interrupted frame: each is another stack."""
    world = World()
    assert world.intern(stack(0x700010, 0x400123), other) == [0, 1]


def test_the_last_byte_of_a_mapping() -> None:
    """A call can be the last instruction of a file's code: its return address lies just beyond, in nothing."""
    world = World()
    world.intern(stack(0x410000), stack(0x400000))
    assert [place.file and place.file.path for place in world.pool.places] == ["/usr/bin/server", None]


def test_code_of_no_file_is_apart() -> None:
    """Equal addresses that no file holds mean something else in each process, mapped or not."""
    world = World()
    assert world.intern(stack(0x500010, image=0), stack(0x500010, image=1)) == [0, 1]
    assert world.intern(stack(0xF00010, image=0), stack(0xF00010, image=1)) == [2, 3]
    assert world.intern(stack(0x500010, image=0)) == [0]


def test_code_of_no_file_is_apart_in_each_version() -> None:
    """What was made at run time may be made anew when code was unmapped: equal addresses of two versions are two places."""
    world = World()
    assert world.intern(stack(0x500010, code=1), stack(0x500010, code=2), stack(0x400010, code=1), stack(0x400010, code=2)) == [
        0, 1, 2, 2]


def test_complete_or_not() -> None:
    """A stack that was followed to its end is another than one that stopped there; why it stopped makes no difference."""
    world = World()
    ends = [StackEnd.COMPLETE, StackEnd.DEPTH, StackEnd.UNREADABLE, 0]
    assert world.intern(*(stack(0x400123, ended=end) for end in ends)) == [0, 1, 1, 1]
    assert [each.complete for each in world.pool.stacks] == [True, False]


def test_the_mappings_of_a_version() -> None:
    """A stack is placed by what was mapped in its version; where all versions were the same there, by what is now."""
    world = World()
    old = AddressSpace.of(parse_maps(b"400000-410000 r-xp 00002000 08:01 99 /usr/bin/before\n"))
    world.tracees[0].spaces[256] = old
    assert world.intern(stack(0x400123, code=256), stack(0x400123, code=ANY_VERSION)) == [0, 1]
    assert [place.file and place.file.path for place in world.pool.places] == ["/usr/bin/before", "/usr/bin/server"]


def test_what_is_known_is_not_looked_at_again() -> None:
    """An identity has its number for good: report after report asks for no mapping, and needs no stack."""
    world = World()
    stacks = stack(0x700010, 0x400123), stack(0x400200)
    first = world.intern(*stacks, identities=[5, 6])
    asked = world.tracees[0].asked
    assert world.intern(stacks[1], stacks[0], identities=[6, 5]) == first[::-1]
    assert world.intern(stack(), identities=[5]) == first[:1]
    assert world.tracees[0].asked == asked == 3


def test_an_address_is_placed_once() -> None:
    """Thousands of stacks of one process share their outer frames: each of these is looked up once."""
    world = World()
    world.intern(*(stack(0x400100 + n, 0x400050) for n in range(9)))
    assert world.tracees[0].asked == 10


def test_the_last_stacks_of_a_process() -> None:
    """When a process ends its stacks have the numbers that they had before, or new ones."""
    world = World()
    first = world.intern(stack(0x400123, image=0), stack(0x500010, image=0))
    assert world.intern_last(stack(0x500010, image=0), stack(0x700010, image=0), stack(0x400123, image=0)) == [
        first[1], 2, first[0]]
    assert world.intern_last() == []


def test_after_the_end_of_a_process_its_addresses_are_forgotten() -> None:
    """The number of its image comes again: another program's addresses are not taken for the old one's; others stay known."""
    world = World()
    world.intern(stack(0x880200, image=1))
    world.intern_last(stack(0x400123, image=0))
    world.tracees[0] = FakeTracee(72, AddressSpace.of(parse_maps(b"400000-410000 r-xp 00000000 08:01 99 /usr/bin/next\n")))
    (number,) = world.intern(stack(0x400123, image=0))
    (place,) = (world.pool.places[at] for at in world.pool.stacks[number].places)
    assert place.file is not None and place.file.path == "/usr/bin/next"
    asked = world.tracees[1].asked
    world.intern(stack(0x880200, image=1))
    assert world.tracees[1].asked == asked


def test_clear() -> None:
    """Numbers begin anew, and nothing of before is believed."""
    world = World()
    world.intern(stack(0x400123), stack(0x400200), identities=[5, 6])
    world.pool.clear()
    assert len(world.pool) == 0
    assert world.intern(stack(0x400200), identities=[6]) == [0]
    assert len(world.pool.places) == 1


def test_blocks_without_a_stack() -> None:
    """What found no room for its stack has none: one stack without frames, whose process is nobody."""
    pool = StackPool(lambda image: NOBODY)
    assert pool.intern(np.array([9], np.uint64), table(stack(ended=0))).tolist() == [0]
    assert (pool.stacks[0].places, pool.stacks[0].complete) == ((), False)
    assert NOBODY.space_of(3).locate(0x400000) is None
    with pytest.raises(LookupError):
        NOBODY.jit.find(0)


def test_processes_that_come_and_go_leave_nothing() -> None:
    """Whatever number of short-lived processes had the same few stacks at reports, what is remembered does not grow."""
    world = World()
    sizes = []
    for image in range(0, 400 * MAX_SLOTS, MAX_SLOTS):
        world.intern(*(stack(0x400000 + at, image=image) for at in range(1, 11)))
        sizes.append((len(world.pool._by_identity), len(world.pool._known)))
    assert max(size for size, _ in sizes) <= 2 * 10 + SPARE + 10 and max(size for _, size in sizes) < 40
    assert len(world.pool) == 10
