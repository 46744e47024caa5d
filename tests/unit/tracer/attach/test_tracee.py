"""One process in its slot, on a made-up /proc: numbers of images and versions, and what a child has from its parent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from symbolizer.mappings import AddressSpace, Mapping
from symbolizer.unwind_rule import RuleKind, UnwindRule
from tracer import records
from tracer.attach.objects import KnownRules, Objects
from tracer.attach.program import Program
from tracer.attach.target import Process
from tracer.attach.tracee import Tracee
from tracer.collect.rule_table import RuleTable, rule_key
from tracer.limits import MAX_SLOTS
from tracer.settings import Settings

MAIN = b"400000-401000 r-xp 00000000 08:01 11 /usr/bin/main\n"
FIRST = b"700000-701000 r-xp 00000000 08:01 22 /lib/first.so\n"
SECOND = b"700000-701000 r-xp 00000000 08:01 33 /lib/second.so\n"


class FakeObjects:
    """Every file's rule is its inode as the CFA's offset; contents are as the test has them, by inode."""

    def __init__(self) -> None:
        self.contents: dict[int, int] = {}
        self.looked: list[int] = []

    def content(self, process: Process, mapping: Mapping) -> int:
        self.looked.append(mapping.inode)
        return self.contents.get(mapping.inode, 0)

    def hold(self, process: Process, space: AddressSpace) -> None:
        pass

    def rule_for(self, mapping: Mapping, address: int, *, interrupted: bool) -> UnwindRule:
        return UnwindRule(RuleKind.CFA_SP, mapping.inode)

    def known_rules(self, mapping: Mapping) -> KnownRules | None:
        return None


class FakeProgram:
    """The kernel side's rows of images."""

    def __init__(self) -> None:
        self.images = np.zeros(MAX_SLOTS, records.IMAGE)
        self.named: list[tuple[int, int]] = []

    def name_process(self, pid: int, slot: int) -> None:
        self.named.append((pid, slot))


class World:
    """Processes that are all this one, but for what their /proc says."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program, self.objects = FakeProgram(), FakeObjects()
        self.buckets = np.zeros(64, records.RULE_BUCKET)
        self.table = RuleTable(self.buckets)
        self.made: list[Tracee] = []

    def tracee(self, slot: int, *maps: bytes) -> Tracee:
        """Return a process in a slot, bound."""
        tracee = Tracee(Process(os.getpid(), f"p{slot}", 1, self.folder / str(slot)), slot, Settings(),
                        cast(Objects, self.objects), slot)
        self.made.append(tracee)
        self.map(tracee, *maps)
        tracee.bind(cast(Program, self.program), self.table)
        return tracee

    def map(self, tracee: Tracee, *maps: bytes) -> None:
        """Have this mapped there."""
        folder = self.folder / str(tracee.slot) / str(os.getpid())
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "maps").write_bytes(b"".join(maps))

    def code(self, tracee: Tracee) -> int:
        """Return the version of the code that the kernel side counts for."""
        return int(self.program.images["code"][tracee.slot])

    def learn(self, tracee: Tracee, address: int) -> int:
        unwinder = tracee.unwinder(self.code(tracee))
        assert unwinder is not None
        return unwinder._learn(address).cfa_offset

    def installed(self) -> set[int]:
        return {int(key) for key in self.buckets["keys"].ravel() if key}


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path)
    yield made
    for tracee in made.made:
        tracee.close()


def paths(tracee: Tracee, version: int) -> list[str]:
    return [mapping.path for mapping in tracee.space_of(version).mappings]


def test_the_first_number(world: World) -> None:
    """A process's image and code begin with a number of its slot that nobody had before, and that is never 0."""
    first, second = world.tracee(0, MAIN), world.tracee(1, MAIN)
    assert (first.image, second.image) == (MAX_SLOTS, MAX_SLOTS + 1)
    assert [int(world.program.images["number"][slot]) for slot in (0, 1)] == [first.image, second.image]
    assert world.program.named == [(os.getpid(), 0), (os.getpid(), 1)]


def test_a_slot_that_is_used_again(world: World) -> None:
    """The next process in it has numbers beyond those of the last one, and nothing else of its row."""
    first = world.tracee(1, MAIN)
    row = world.program.images[1:2]
    row["newest"] += 3 * MAX_SLOTS
    row["children"], row["unmapping"], row["trampoline"], row["loader_state"] = 7, 1, 2, 3
    newest = int(row["newest"][0])
    first.close()
    second = world.tracee(1, MAIN)
    assert second.image == newest + MAX_SLOTS == world.code(second) and second.image % MAX_SLOTS == 1
    assert second.children == 0 and [int(row[name][0]) for name in ("unmapping", "trampoline", "loader_state")] == [0, 0, 0]


def test_more_code_is_the_same_version(world: World) -> None:
    """A library that is loaded changes nothing of what was there."""
    tracee = world.tracee(0, MAIN)
    tracee.read_mappings()
    version = world.code(tracee)
    world.map(tracee, MAIN, FIRST)
    tracee.read_mappings()
    assert world.code(tracee) == version and world.learn(tracee, 0x700100) == 22


def test_code_that_went_behind_the_loaders_back(world: World) -> None:
    """Where code is gone that was there, a new version begins, whose number is the process's next; the old one is known."""
    tracee = world.tracee(0, MAIN, FIRST)
    tracee.read_mappings()
    old = world.code(tracee)
    assert [world.learn(tracee, at) for at in (0x400100, 0x700100)] == [11, 22]
    world.map(tracee, MAIN, SECOND)
    tracee.read_mappings()
    assert world.code(tracee) == old + MAX_SLOTS == int(world.program.images["newest"][0])
    assert world.learn(tracee, 0x700100) == 33
    assert (paths(tracee, old)[1], paths(tracee, world.code(tracee))[1]) == ("/lib/first.so", "/lib/second.so")
    assert tracee.volatile().tolist() == [[0x700000, 0x701000]] * 2


def test_a_child_begins_with_its_parents_code(world: World) -> None:
    """A fork is another image with the same code: rules that the parent learned are the child's, and stacks name alike."""
    parent, child = world.tracee(0, MAIN), world.tracee(1, MAIN)
    parent.read_mappings()
    world.learn(parent, 0x400100)
    own = child.image
    child.inherit(parent, shares_memory=False)
    assert child.parent == parent.process.pid and child.image == own == int(world.program.images["number"][1])
    assert world.code(child) == world.code(parent)
    unwinder = child.unwinder(world.code(child))
    assert unwinder is not None and unwinder.knows(0x400100)
    assert paths(child, world.code(child)) == ["/usr/bin/main"] and not child.is_gone(world.code(parent))


def test_a_child_in_its_parents_memory(world: World) -> None:
    """After vfork, what it allocates is its parent's: it counts for the parent's image, until it execs."""
    parent, child = world.tracee(0, MAIN), world.tracee(1, MAIN)
    parent.read_mappings()
    child.inherit(parent, shares_memory=True)
    assert child.image == parent.image == int(world.program.images["number"][1]) and child.shares_memory
    world.program.images["newest"][1] += MAX_SLOTS
    number = int(world.program.images["newest"][1])
    world.program.images["number"][1] = world.program.images["code"][1] = number
    child.became(number)
    assert child.image == number != parent.image and not child.shares_memory
    assert child.is_gone(world.code(parent)) and not parent.is_gone(world.code(parent))


@pytest.mark.parametrize("who", [0, 1])
def test_two_that_shared_code_part(world: World, who: int) -> None:
    """Whichever of the two loads a library, the other has not: it gets a version of its own, and the common one stays as it was."""
    both = parent, child = world.tracee(0, MAIN), world.tracee(1, MAIN)
    parent.read_mappings()
    world.learn(parent, 0x400100)
    common = world.code(parent)
    child.inherit(parent, shares_memory=False)
    one, other = both[who], both[1 - who]
    world.map(one, MAIN, FIRST)
    one.read_mappings()
    fresh = world.code(one)
    assert fresh != common == world.code(other) and fresh % MAX_SLOTS == one.slot
    assert paths(other, common) == ["/usr/bin/main"]
    assert world.learn(one, 0x700100) == 22
    assert {rule_key(0x400100, fresh), rule_key(0x700100, fresh)} <= world.installed()
    assert rule_key(0x700100, common) not in world.installed()


def test_stacks_of_before_two_parted(world: World) -> None:
    """A stack that was captured under the common version is answered with what the process has loaded since."""
    parent, child = world.tracee(0, MAIN), world.tracee(1, MAIN)
    parent.read_mappings()
    common = world.code(parent)
    child.inherit(parent, shares_memory=False)
    world.map(child, MAIN, FIRST)
    child.read_mappings()
    unwinder = child.unwinder(common)
    assert unwinder is not None and unwinder is child.unwinder(world.code(child))
    assert paths(child, common) == ["/usr/bin/main", "/lib/first.so"] and paths(parent, common) == ["/usr/bin/main"]


def test_the_end_of_a_child_leaves_its_parents_rules(world: World) -> None:
    """What both had is the parent's."""
    parent, child = world.tracee(0, MAIN), world.tracee(1, MAIN)
    parent.read_mappings()
    child.inherit(parent, shares_memory=False)
    world.learn(child, 0x400100)
    child.close()
    child.close()
    assert world.installed() == {rule_key(0x400100, world.code(parent))}


def test_exec(world: World) -> None:
    """Nothing of the old image is believed: versions of before are gone, files are looked at anew, inheritance ends."""
    tracee = world.tracee(0, MAIN)
    tracee.read_mappings()
    old = world.code(tracee)
    world.learn(tracee, 0x400100)
    world.program.images["newest"][0] += MAX_SLOTS
    number = int(world.program.images["newest"][0])
    world.program.images["number"][0] = world.program.images["code"][0] = number
    tracee.became(number)
    assert tracee.is_gone(old) and not tracee.is_gone(number) and tracee.unwinder(old) is None
    assert world.installed() == set() and tracee.execs == 1
    world.objects.looked.clear()
    tracee.read_mappings()
    assert world.objects.looked == [11]


def test_the_content_of_a_file_is_looked_at_once(world: World) -> None:
    """A process keeps the file that it mapped, also if another takes its place: what a later process maps is another object."""
    first = world.tracee(0, MAIN)
    first.read_mappings()
    world.objects.contents[11] = 1
    first.read_mappings()
    second = world.tracee(1, MAIN)
    second.read_mappings()
    assert [each.space.mappings[0].content for each in (first, second)] == [0, 1] and world.objects.looked == [11, 11]


def test_children_that_are_followed_are_none_that_are_not_traced(world: World) -> None:
    """How many it made that are not traced is what is left; after its end that no longer changes with its slot's row."""
    tracee = world.tracee(0, MAIN)
    world.program.images["children"][0] = 5
    tracee.followed = 2
    assert tracee.children == 3
    tracee.end()
    world.program.images["children"][0] = 0
    assert tracee.children == 3 and not tracee.alive
