"""Stacks get their names once, and those that differ below what is looked at are one site."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import pytest

from symbolizer.choices import GroupBy
from symbolizer.frame import Frame, Why
from symbolizer.jit_names import JitNames
from symbolizer.mappings import AddressSpace, object_key, parse_maps
from symbolizer.symbolizer import Symbolizer
from tests.unit.tracer.conftest import DEPTH, stack
from tracer import records
from tracer.collect.snapshot import Retired, Snapshot, merge_sites
from tracer.holdings import Holdings, Sites
from tracer.limits import MAX_SLOTS
from tracer.naming import BATCH, StackNamer
from tracer.records import INTERRUPTED, StackEnd
from tracer.stack_pool import Mapped, StackPool

SERVER = 0x400000
MAPS = b"""\
400000-410000 r-xp 00002000 08:01 11 /usr/bin/server
500000-501000 r-xp 00000000 00:00 0
600000-601000 r-xp 00000000 00:00 0 [heap]
700000-701000 rwxp 00000000 08:01 12 /usr/lib/other.so
800000-801000 r-xp 00000000 00:01 13 /memfd:code (deleted)
"""
SPACE = AddressSpace.of(parse_maps(MAPS))
JIT_PATH = "/tmp/perf-7.map"


@dataclass
class Names:
    """A symbolizer that says what it was asked, and knows the lines of some addresses, by default one each."""

    asked: list[tuple[Hashable, int, int, bool]] = field(default_factory=list)
    prepared: list[tuple[Hashable, int]] = field(default_factory=list)
    lines: dict[int, int] = field(default_factory=dict)
    objects: int = 2

    def prepare(self, requests: Iterable[tuple[Hashable, int]]) -> None:
        self.prepared += requests

    def resolve(self, key: Hashable | None, offset: int, address: int, is_return: bool) -> tuple[Frame, ...]:
        self.asked.append((key, offset, address, is_return))
        if key is None:
            return (Frame(address, why=Why.UNMAPPED),)
        if cast(Any, key).path.startswith("/memfd"):
            return (Frame(address, module="/memfd:code", why=Why.UNREADABLE),)
        line = self.lines.get(address, address)
        return (Frame(address, f"inlined{line}", inlined=True, line=line), Frame(address, f"named{line}", 0, line=line))


@dataclass
class Jit:
    """Names of code that a runtime made."""

    path: str = JIT_PATH
    named: dict[int, tuple[str, int]] = field(default_factory=dict)
    table: object = "first"

    def find(self, address: int) -> tuple[str, int] | None:
        return self.named.get(address)


@dataclass
class FakeTracee:
    """What naming sees of a traced process."""

    uid: int = 0
    space: AddressSpace = SPACE
    spaces: dict[int, AddressSpace] = field(default_factory=dict)
    jit: Jit = field(default_factory=Jit)

    def space_of(self, version: int) -> AddressSpace:
        return self.spaces.get(version, self.space)


def snapshot(*stacks: np.ndarray) -> Snapshot:
    counters = np.zeros(len(stacks), records.SITE)
    counters["allocated_bytes"] = [10 * (row + 1) for row in range(len(stacks))]
    counters["allocated_count"] = 1
    return merge_sites(0, counters, np.array(list(stacks), records.stack_dtype(DEPTH)), Retired())[0]


class Namer:
    """A namer with the processes whose stacks it names, in slots of their order."""

    def __init__(self, names: Names, *tracees: FakeTracee, by: GroupBy = GroupBy.LINE, raw: bool = False,
                 idle: Callable[[], object] = lambda: None) -> None:
        self.tracees = tracees or (FakeTracee(),)
        pool = StackPool(self._of_image)
        namer = StackNamer(cast(Symbolizer, names), pool, lambda: [cast(JitNames, each.jit) for each in self.tracees],
                           by, raw=raw, idle=idle)
        self._holdings = Holdings(pool, namer, self._of_image)

    def _of_image(self, image: int) -> Mapped:
        return cast(Mapped, self.tracees[image % MAX_SLOTS])

    def sites(self, snapshot: Snapshot) -> Sites:
        return self._holdings.sites(snapshot)


def named(made: np.ndarray, tracee: FakeTracee | None = None) -> tuple[tuple[Frame, ...], Names]:
    names = Names()
    sites = Namer(names, tracee or FakeTracee(), raw=True).sites(snapshot(made))
    return sites.frames(0), names


def test_frames_are_asked_for_by_file_offset() -> None:
    """A return address is looked up as such in the file that is mapped there, and one interrupted by a signal as itself."""
    frames, names = named(stack(SERVER + 0x123, SERVER + 0x456 | INTERRUPTED))
    key = object_key(SPACE.mappings[0])
    assert names.asked == [(key, 0x2123, SERVER + 0x123, True), (key, 0x2456, SERVER + 0x456, False)]
    assert [(frame.address, frame.function) for frame in frames] == [
        (SERVER + at, f"{kind}{SERVER + at}") for at in (0x123, 0x456) for kind in ("inlined", "named")]


def test_a_return_address_at_the_end_of_a_mapping() -> None:
    """A call that never returns can be the last instruction: its return address lies just beyond, the call does not."""
    _, names = named(stack(0x410000, 0x700000 | INTERRUPTED))
    assert [key and cast(Any, key).path for key, *_ in names.asked] == ["/usr/bin/server", "/usr/lib/other.so"]
    _, names = named(stack(SERVER))
    assert names.asked == [(None, 0, SERVER, True)]


def test_nothing_mapped() -> None:
    """An address outside all mappings is left to the symbolizer, without a file."""
    _, names = named(stack(0x900000))
    assert names.asked == [(None, 0, 0x900000, True)]


def test_code_of_no_file() -> None:
    """Code that was made at run time has no symbols, and the symbolizer is not asked."""
    frames, names = named(stack(0x500010, 0x600010))
    assert frames == (Frame(0x500010, why=Why.NO_SYMBOLS), Frame(0x600010, module="[heap]", why=Why.NO_SYMBOLS))
    assert names.asked == []


def test_only_the_depth_counts() -> None:
    """What lies beyond a stack's depth is no frame."""
    made = stack(SERVER + 1)
    made["addresses"][3] = SERVER + 99
    assert len(named(made)[0]) == 2


@pytest.mark.parametrize("ended", [end for end in StackEnd if end is not StackEnd.COMPLETE] + [0])
def test_a_stack_that_ends_early_says_so(ended: int) -> None:
    """However a walk stopped before the outermost function, a last frame says that it did; also one still under way."""
    frames, _ = named(stack(SERVER + 1, SERVER + 2 | INTERRUPTED, ended=ended))
    assert frames[-1] == Frame(SERVER + 2, why=Why.UNWIND_STOPPED)
    assert named(stack(ended=ended))[0] == (Frame(0, why=Why.UNWIND_STOPPED),)


def test_the_mappings_of_that_time() -> None:
    """A stack is named by the mappings that its image had in its code, else by the latest."""
    old = AddressSpace.of(parse_maps(b"400000-410000 r-xp 00000000 08:01 99 /usr/bin/before\n"))
    tracee = FakeTracee(spaces={1: old})
    for code, path in ((1, "/usr/bin/before"), (2, "/usr/bin/server")):
        _, names = named(stack(SERVER + 1, code=code), tracee)
        assert cast(Any, names.asked[0][0]).path == path


def test_stacks_of_the_same_lines_are_one_site() -> None:
    """By line, two calls in one line are one site, which has the frames of the stack that holds most."""
    names = Names(lines={SERVER + 1: 7, SERVER + 2: 7, SERVER + 3: 8})
    sites = Namer(names).sites(snapshot(stack(SERVER + 1), stack(SERVER + 2), stack(SERVER + 3)))
    assert sorted(zip(sites.snapshot.live_bytes.tolist(), sites.stacks.tolist(), strict=True)) == [(30, 1), (30, 2)]
    two = sites.stacks.tolist().index(2)
    assert {frame.address for frame in sites.frames(two)} == {SERVER + 2}


@pytest.mark.parametrize("choice", [{"by": GroupBy.ADDRESS}, {"raw": True}])
def test_by_address_each_stack_is_a_site(choice: dict[str, Any]) -> None:
    """--group-by address and --raw-stacks put nothing together."""
    names = Names(lines={SERVER + 1: 7, SERVER + 2: 7})
    assert len(Namer(names, **choice).sites(snapshot(stack(SERVER + 1), stack(SERVER + 2))).snapshot) == 2


def test_the_same_stack_in_two_processes_is_one_site() -> None:
    """What two processes do alike is one site, with what each of them holds, though their addresses differ."""
    moved = AddressSpace.of(parse_maps(b"480000-490000 r-xp 00002000 08:01 11 /usr/bin/server\n"))
    one = Namer(Names(), FakeTracee(uid=7), FakeTracee(uid=8, space=moved))
    sites = one.sites(snapshot(stack(SERVER + 1, image=0), stack(SERVER + 0x80001, image=1), stack(SERVER + 2, image=1)))
    assert sorted(zip(sites.snapshot.live_bytes.tolist(), sites.stacks.tolist(), strict=True)) == [(30, 1), (30, 1)]
    shares = sites.shares
    both = sites.snapshot.live_count.tolist().index(2)
    assert sorted(zip(shares.uid[shares.row == both].tolist(), shares.bytes[shares.row == both].tolist(), strict=True)) == [
        (7, 10), (8, 20)]


def test_code_of_no_file_is_apart_in_each_process() -> None:
    """Code made at run time is another's at the same address of another process: two sites."""
    made = snapshot(stack(0x500010, image=0), stack(0x500010, image=1))
    sites = Namer(Names(), FakeTracee(uid=7), FakeTracee(uid=8), by=GroupBy.ADDRESS).sites(made)
    assert len(sites.snapshot) == 2


def test_another_program_in_the_same_process_is_named_anew() -> None:
    """After exec the same address is another function's, also where it was named before."""
    names, tracee = Names(), FakeTracee()
    one = Namer(names, tracee)
    one.sites(snapshot(stack(SERVER + 1)))
    tracee.space = AddressSpace.of(parse_maps(b"400000-410000 r-xp 00000000 08:01 99 /usr/bin/other\n"))
    one.sites(snapshot(stack(SERVER + 1, image=MAX_SLOTS)))
    assert [cast(Any, key).path for key, *_ in names.asked] == ["/usr/bin/server", "/usr/bin/other"]


def test_a_site_is_known_again() -> None:
    """Its number is the same in each snapshot, and its stacks are named once."""
    names = Names()
    one = Namer(names)
    first = one.sites(snapshot(stack(SERVER + 1), stack(SERVER + 2)))
    asked = len(names.asked)
    second = one.sites(snapshot(stack(SERVER + 2), stack(SERVER + 1), stack(SERVER + 3)))
    assert set(first.snapshot.identity.tolist()) < set(second.snapshot.identity.tolist())
    assert len(names.asked) == asked + 1


def test_all_addresses_are_prepared_before_the_first_is_named() -> None:
    """Tables for many addresses are made together; for a return address the call before it counts."""
    names = Names()
    Namer(names).sites(snapshot(stack(SERVER + 1, SERVER + 5 | INTERRUPTED), stack(0x900000)))
    assert sorted(offset for _, offset in names.prepared) == [0x2000, 0x2005]


def test_many_stacks_are_named_in_batches() -> None:
    """Between batches what the kernel side sends is looked at."""
    calls: list[int] = []
    one = Namer(Names(), idle=lambda: calls.append(1))
    sites = one.sites(snapshot(*(stack(SERVER + number) for number in range(1, 2 * BATCH + 2))))
    assert len(sites.snapshot) == 2 * BATCH + 1 and len(calls) == 3


def test_code_that_a_runtime_named() -> None:
    """Code of no file, or in a file that is none, is what the runtime says; its file and line are the source's."""
    jit = Jit(named={0x50000F: ("JS:*work /srv/a.js:12:7", 0xF), 0x80000F: ("Lpkg/Class;::run", 4)})
    frames, _ = named(stack(0x500010, 0x800010, 0x800020), FakeTracee(jit=jit))
    assert frames == (
        Frame(0x500010, "work", 0x10, JIT_PATH, file="/srv/a.js", line=12),
        Frame(0x800010, "Lpkg/Class;::run", 5, JIT_PATH),
        Frame(0x800020, module="/memfd:code", why=Why.UNREADABLE),
    )


def test_a_name_that_comes_later() -> None:
    """A stack with a nameless frame is looked at again once the runtime has written more, and not before."""
    names, tracee = Names(), FakeTracee()
    one, made = Namer(names, tracee), snapshot(stack(SERVER + 1, 0x500010))
    assert one.sites(made).frames(0)[-1].why is Why.NO_SYMBOLS
    asked = len(names.asked)
    tracee.jit.named[0x50000F] = ("late", 0)
    assert one.sites(made).frames(0)[-1].why is Why.NO_SYMBOLS and len(names.asked) == asked
    tracee.jit.table = "second"
    assert one.sites(made).frames(0)[-1].function == "late"


def test_no_stacks() -> None:
    """Nothing outstanding is no site."""
    assert len(Namer(Names()).sites(snapshot()).snapshot) == 0
