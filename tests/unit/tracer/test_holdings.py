"""What processes hold adds up by site: those that run as of now, those that have ended as of their end."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
import pytest

from symbolizer.choices import GroupBy
from symbolizer.jit_names import JitNames
from symbolizer.mappings import AddressSpace, parse_maps
from symbolizer.symbolizer import Symbolizer
from tests.unit.tracer.conftest import DEPTH, stack
from tests.unit.tracer.test_naming import Jit, Names
from tracer import records
from tracer.collect.snapshot import NOT_SCANNED, Blocks, Members, Retired, Snapshot, gained, merge_sites
from tracer.holdings import KINDS, Holdings, Sites, kinds_of, totals_of
from tracer.judge.reachability import Kind
from tracer.limits import MAX_SLOTS
from tracer.naming import BATCH, StackNamer
from tracer.report.model import Totals
from tracer.stack_pool import NOBODY, Mapped, StackPool

#: A block of 100 bytes each, of another size in no test.
SIZE = 100
Row = tuple[np.ndarray, int, int]


def space(start: int) -> AddressSpace:
    """Return a process that has the server loaded there, 4 MB of it."""
    return AddressSpace.of(parse_maps(b"%x-%x r-xp 00000000 08:01 11 /usr/bin/server\n" % (start, start + 0x400000)))


@dataclass
class FakeTracee:
    """What is seen of a process: slot n has the server at n + 1 times 16 MB."""

    uid: int
    space: AddressSpace
    jit: Jit = field(default_factory=Jit)

    def space_of(self, version: int) -> AddressSpace:
        return self.space


class World:
    """Holdings of some processes, by slot, each with a number of its own."""

    def __init__(self, slots: int = 3, by: GroupBy = GroupBy.ADDRESS) -> None:
        self.tracees = [FakeTracee(70 + slot, space(start_of(slot))) for slot in range(slots)]
        self.pool = StackPool(self._of_image)
        self.names = Names()
        namer = StackNamer(cast(Symbolizer, self.names), self.pool, lambda: [cast(JitNames, each.jit) for each in self.tracees],
                           by, raw=False)
        self.holdings = Holdings(self.pool, namer, self._of_image)

    def _of_image(self, image: int) -> Mapped:
        return cast(Mapped, self.tracees[image % MAX_SLOTS]) if image else NOBODY

    def replace(self, slot: int, uid: int) -> None:
        """Have another process in a slot."""
        self.tracees[slot] = FakeTracee(uid, space(start_of(slot)))


def start_of(slot: int) -> int:
    return (slot + 1) << 24


def at(slot: int, offset: int, generation: int = 1) -> np.ndarray:
    """Return a stack of one frame: a call at an offset of the server."""
    return stack(start_of(slot) + offset + 1, image=slot + generation * MAX_SLOTS)


def snapshot(*rows: Row, taken_ns: int = 0) -> Snapshot:
    """Return a snapshot of stacks, each with its blocks that were born and those of them that were freed."""
    counters = np.zeros(len(rows), records.SITE)
    for row, (_, born, freed) in enumerate(rows):
        mine = counters[row : row + 1]
        mine["allocated_count"], mine["allocated_bytes"] = born, born * SIZE
        mine["freed_count"], mine["freed_bytes"], mine["first_ns"] = freed, freed * SIZE, 1
    return merge_sites(taken_ns, counters, np.array([row[0] for row in rows], records.stack_dtype(DEPTH)), Retired())[0]


def by_offset(world: World, sites: Sites) -> dict[int, int]:
    """Return the live blocks of each site by the offset of its call."""
    found = {}
    for row in range(len(sites.snapshot)):
        (asked,) = {(key, offset) for key, offset, address, _ in world.names.asked if address == sites.frames(row)[-1].address}
        found[asked[1] - 1] = int(sites.snapshot.live_count[row])
    return found


def shares_of(sites: Sites) -> list[tuple[int, int, int, int]]:
    """Return who holds what: process, live blocks of the site, bytes and blocks of the process there, sorted."""
    shares = sites.shares
    return sorted(zip(shares.uid.tolist(), sites.snapshot.live_count[shares.row].tolist(), shares.bytes.tolist(),
                      shares.count.tolist(), strict=True))


def test_live_and_ended_processes_add_up() -> None:
    """A site is what all processes hold there, those that have ended too, at whatever address each had it."""
    world = World()
    world.holdings.end(70, snapshot((at(0, 0x10), 5, 1), (at(0, 0x20), 3, 0)))
    world.holdings.end(71, snapshot((at(1, 0x10), 7, 0)))
    sites = world.holdings.sites(snapshot((at(2, 0x10), 2, 0), (at(2, 0x30), 1, 0)))
    assert by_offset(world, sites) == {0x10: 13, 0x20: 3, 0x30: 1}
    assert sites.snapshot.live_bytes.sum() == 17 * SIZE
    assert sites.stacks.tolist() == [1, 1, 1]


def test_counters_add_up() -> None:
    """Births, deaths and lifetimes of all processes, also where nothing is alive any more."""
    world = World()
    last = snapshot((at(0, 0x10), 5, 5), (at(0, 0x20), 3, 1))
    last.counters["lifetimes"][:, 4] = 2
    world.holdings.end(70, last)
    world.holdings.end(71, snapshot((at(1, 0x10), 7, 6)))
    counters = world.holdings.sites(snapshot((at(2, 0x10), 2, 1))).snapshot.counters
    assert sorted(zip(counters["allocated_count"].tolist(), counters["freed_count"].tolist(),
                      counters["allocated_bytes"].tolist(), counters["freed_bytes"].tolist(), strict=True)) == [
        (3, 1, 3 * SIZE, SIZE), (14, 12, 14 * SIZE, 12 * SIZE)]
    assert counters["lifetimes"][:, 4].tolist() == [2, 2] and counters["lifetimes"].sum() == 4


def test_ages_and_errors_add_up() -> None:
    """The oldest block of a site is that of any process, and -1 stays where none was looked at; variances are summed."""
    world = World()
    last = snapshot((at(0, 0x10), 1, 0), (at(0, 0x20), 1, 0))
    last.oldest_ns[:], last.variance[:] = 50, 4.0
    world.holdings.end(70, last)
    young = snapshot((at(1, 0x10), 1, 0))
    young.oldest_ns[:], young.variance[:] = 30, 5.0
    world.holdings.end(71, young)
    now = snapshot((at(2, 0x10), 1, 0), (at(2, 0x30), 1, 0))
    sites = world.holdings.sites(now)
    assert sorted(zip(sites.snapshot.oldest_ns.tolist(), sites.snapshot.variance.tolist(), strict=True)) == [
        (-1, 0.0), (50, 4.0), (50, 9.0)]


def test_shares_of_each_process() -> None:
    """Each process has its part of a site; who holds nothing there any more has none."""
    world = World()
    world.holdings.end(70, snapshot((at(0, 0x10), 5, 1), (at(0, 0x20), 3, 3)))
    sites = world.holdings.sites(snapshot((at(1, 0x10), 2, 0), (at(2, 0x10), 4, 3), (at(2, 0x20), 6, 0), (at(1, 0x20), 1, 1)))
    assert shares_of(sites) == [(70, 7, 400, 4), (71, 7, 200, 2), (72, 6, 600, 6), (72, 7, 100, 1)]


def test_several_stacks_of_one_site_are_one_share() -> None:
    """Where stacks are put together, so is what a process holds in them; the site says how many stacks it has."""
    world = World(by=GroupBy.LINE)
    world.names.lines = {start_of(slot) + offset + 1: 7 for slot in range(3) for offset in (0x10, 0x20)}
    world.holdings.end(70, snapshot((at(0, 0x10), 5, 0), (at(0, 0x20), 3, 0)))
    sites = world.holdings.sites(snapshot((at(1, 0x10), 2, 0), (at(1, 0x20), 4, 0)))
    assert shares_of(sites) == [(70, 14, 800, 8), (71, 14, 600, 6)]
    assert sites.stacks.tolist() == [2]


def test_totals_of_each_process() -> None:
    """What it allocated, freed and holds, by process, those that have ended too, with stacks that hold nothing."""
    world = World()
    world.holdings.end(70, snapshot((at(0, 0x10), 5, 1), (at(0, 0x20), 3, 3)))
    sites = world.holdings.sites(snapshot((at(1, 0x10), 2, 0), (at(2, 0x30), 9, 9), (at(1, 0x30), 1, 1)))
    assert sites.totals == {70: Totals(400, 4, 800, 8, 4), 71: Totals(200, 2, 300, 3, 1), 72: Totals(0, 0, 900, 9, 9)}
    assert totals_of(sites.snapshot) == Totals(600, 6, 2000, 20, 14)


def test_shares_and_totals_agree_with_the_sites() -> None:
    """The shares of a site sum up to it, and the sums of all processes to those of all sites."""
    world = World()
    random = np.random.default_rng(7)

    def some(slot: int, generation: int = 1) -> Snapshot:
        return snapshot(*((at(slot, 16 * int(offset), generation), 9, int(random.integers(0, 10)))
                          for offset in random.choice(40, 25, replace=False)))

    for uid, slot in enumerate([0, 1, 0, 1, 0]):
        world.replace(slot, uid)
        world.holdings.end(uid, some(slot, uid + 1))
    sites = world.holdings.sites(some(2))
    shares = sites.shares
    assert np.bincount(shares.row, shares.bytes, len(sites.snapshot)).tolist() == sites.snapshot.live_bytes.tolist()
    assert np.bincount(shares.row, shares.count, len(sites.snapshot)).tolist() == sites.snapshot.live_count.tolist()
    assert len({*zip(shares.uid.tolist(), shares.row.tolist(), strict=True)}) == len(shares.uid) and (shares.count > 0).all()
    everything = totals_of(sites.snapshot)
    for name in Totals.__dataclass_fields__:
        assert sum(getattr(each, name) for each in sites.totals.values()) == getattr(everything, name)


def test_what_ended_stays_in_further_reports() -> None:
    """Until it is forgotten, what a process left is in each report, the same every time; what runs is as of now."""
    world = World()
    world.holdings.end(70, snapshot((at(0, 0x10), 5, 1)))
    now = snapshot((at(1, 0x20), 2, 0))
    first, second = world.holdings.sites(now), world.holdings.sites(now)
    assert by_offset(world, first) == by_offset(world, second) == {0x10: 4, 0x20: 2}
    third = world.holdings.sites(snapshot((at(1, 0x20), 9, 0)))
    assert by_offset(world, third) == {0x10: 4, 0x20: 9} and third.totals[70] == first.totals[70]


def test_forget_ended() -> None:
    """Which processes were forgotten is said, and nothing of them is left; those that end later begin anew."""
    world = World()
    world.holdings.end(70, snapshot((at(0, 0x10), 5, 1)))
    world.holdings.end(71, snapshot((at(1, 0x20), 5, 5)))
    assert world.holdings.forget_ended() == {70, 71} and world.holdings.forget_ended() == set()
    sites = world.holdings.sites(snapshot((at(2, 0x10), 2, 0)))
    assert by_offset(world, sites) == {0x10: 2} and set(sites.totals) == {72} == set(sites.shares.uid.tolist())
    world.replace(0, 90)
    world.holdings.end(90, snapshot((at(0, 0x20, generation=2), 1, 0)))
    assert shares_of(world.holdings.sites(snapshot())) == [(90, 1, 100, 1)]


def test_growth_across_the_end_of_a_process() -> None:
    """A site is known again when a process that held some of it ends, and when another begins: growth is the difference."""
    world = World()
    first = world.holdings.sites(snapshot((at(0, 0x10), 5, 0), (at(1, 0x10), 3, 0))).snapshot
    world.holdings.end(70, snapshot((at(0, 0x10), 6, 0)))
    world.replace(0, 90)
    second = world.holdings.sites(snapshot((at(1, 0x10), 3, 1), (at(0, 0x10, generation=2), 4, 0))).snapshot
    assert gained(first, second, lambda each: each.live_count).tolist() == [4]
    world.holdings.forget_ended()
    third = world.holdings.sites(snapshot((at(1, 0x10), 3, 1), (at(0, 0x10, generation=2), 4, 0))).snapshot
    assert gained(second, third, lambda each: each.live_count).tolist() == [-6]


@pytest.mark.parametrize("by", [GroupBy.ADDRESS, GroupBy.LINE])
def test_growth_when_the_pool_begins_anew(by: GroupBy) -> None:
    """Stacks that are seen no longer are let go in time, and the sites that stay keep their identity: growth goes on."""
    world = World(by=by)
    kept, many = (at(1, 0x8000), 5, 0), [(at(0, 16 * n), 1, 0) for n in range(2 * BATCH)]
    first = world.holdings.sites(snapshot(*many, kept)).snapshot
    assert len(world.pool) == 2 * BATCH + 1
    second = world.holdings.sites(snapshot((at(1, 0x8000), 9, 0))).snapshot
    assert len(world.pool) == 1, "the pool grows for ever"
    assert gained(first, second, lambda each: each.live_count).tolist() == [4]


def test_the_pool_stays_while_ended_processes_need_it() -> None:
    """What has ended is kept by numbers of the pool, which therefore does not begin anew."""
    world = World()
    world.holdings.end(70, snapshot(*((at(0, 16 * n), 1, 0) for n in range(2 * BATCH))))
    for _ in range(2):
        sites = world.holdings.sites(snapshot((at(1, 0x10), 1, 0)))
        assert sites.snapshot.live_count.sum() == 2 * BATCH + 1 and len(world.pool) == 2 * BATCH


def test_blocks_without_a_stack_are_nobodys() -> None:
    """What found no room for its stack counts in the sums, as a site without a process that is known."""
    world = World()
    sites = world.holdings.sites(snapshot((stack(ended=0, image=0), 4, 1), (at(1, 0x10), 2, 0)))
    assert shares_of(sites) == [(-1, 3, 300, 3), (71, 2, 200, 2)]
    assert totals_of(sites.snapshot).live_count == 5


def test_nothing_at_all() -> None:
    """No stack, or only processes that left none, is no site."""
    world = World()
    assert len(world.holdings.sites(snapshot()).snapshot) == 0
    world.holdings.end(70, snapshot())
    sites = world.holdings.sites(snapshot())
    assert len(sites.snapshot) == 0 and sites.totals == {70: Totals(0, 0, 0, 0, 0)}


def test_hundreds_of_processes_with_thousands_of_stacks() -> None:
    """Of each stack one number, one name and one sum is kept, however many processes had it."""
    processes, stacks = 300, 2000
    world = World(slots=1)
    last = snapshot(*((at(0, 16 * n), 3, 1) for n in range(stacks)))
    for number in range(processes):
        world.replace(0, number)
        world.holdings.end(number, last)
    sites = world.holdings.sites(snapshot((at(0, 0), 1, 0)))
    assert len(world.pool) == len(sites.snapshot) == stacks == len(world.names.asked)
    assert sites.snapshot.live_count.sum() == processes * stacks * 2 + 1
    assert len(sites.shares.uid) == processes * stacks


Found = tuple[int, int, int, int]


def row_at(snapshot: Snapshot, slot: int, offset: int) -> int:
    """Return the row of the stack that calls there."""
    return int(np.flatnonzero(snapshot.stacks["addresses"][:, 0] == start_of(slot) + offset + 1)[0])


def with_found(made: Snapshot, slot: int, *blocks: Found) -> Snapshot:
    """Return the snapshot with blocks of SIZE: address, offset of the call, weight, and how it is reached."""
    rows = np.array([row_at(made, slot, offset) for _, offset, _, _ in blocks], np.int64)
    addresses, _, weights, kinds = np.array(blocks, np.int64).reshape(-1, 4).T
    return replace(made, blocks=Blocks(addresses.astype(np.uint64), np.full(len(blocks), SIZE, np.uint64), np.zeros(len(blocks), np.int64),
                                       weights.astype(np.uint64), rows, kinds.astype(np.uint8)))


def with_members(made: Snapshot, slot: int, keys: dict[int, int]) -> Snapshot:
    """Return the snapshot with the sites behind it; keys: with the offset of the call."""
    rows = np.array([row_at(made, slot, offset) for offset in keys.values()], np.int64)
    return replace(made, members=Members(np.array([*keys], np.uint64), rows))


def per_offset(world: World, sites: Sites, figures: np.ndarray) -> dict[int, object]:
    """Return a figure of each site by the offset of its call."""
    return {offset: figures[row].tolist() for offset, row in rows_of(world, sites).items()}


def rows_of(world: World, sites: Sites) -> dict[int, int]:
    found = {}
    for row in range(len(sites.snapshot)):
        (asked,) = {offset for _, offset, address, _ in world.names.asked if address == sites.frames(row)[-1].address}
        found[asked - 1] = row
    return found


def test_how_blocks_are_reached() -> None:
    """Bytes and blocks of each row by kind, each as often as it stands for; what nobody looked at is in none."""
    made = with_found(snapshot((at(0, 0x10), 9, 0), (at(0, 0x20), 9, 0)), 0, (16, 0x10, 1, Kind.DEFINITELY), (32, 0x10, 3, Kind.DEFINITELY),
                      (48, 0x10, 1, Kind.REACHABLE), (64, 0x20, 2, Kind.POSSIBLY), (80, 0x20, 5, NOT_SCANNED))
    kinds = kinds_of(made)
    assert kinds.shape == (2, KINDS, 2) and len(Kind) == KINDS
    expected = np.zeros((2, KINDS, 2), np.int64)
    expected[row_at(made, 0, 0x10), Kind.DEFINITELY] = 4 * SIZE, 4
    expected[row_at(made, 0, 0x10), Kind.REACHABLE] = SIZE, 1
    expected[row_at(made, 0, 0x20), Kind.POSSIBLY] = 2 * SIZE, 2
    assert kinds.tolist() == expected.tolist()
    assert made.blocks is not None
    for nothing in (replace(made, blocks=None), replace(made, blocks=replace(made.blocks, kinds=None))):
        assert not kinds_of(nothing).any()


def test_kinds_of_live_and_ended_processes_add_up() -> None:
    """A site's blocks are counted by kind over all processes, each as of its own look; and those of ended ones apart."""
    world = World()
    world.holdings.end(70, with_found(snapshot((at(0, 0x10), 5, 1), (at(0, 0x20), 3, 0)), 0, (16, 0x10, 1, Kind.DEFINITELY),
                                      (32, 0x20, 1, Kind.REACHABLE)))
    world.holdings.end(71, with_found(snapshot((at(1, 0x10), 7, 0)), 1, (16, 0x10, 2, Kind.DEFINITELY)))
    now = with_found(snapshot((at(2, 0x10), 2, 0), (at(2, 0x30), 1, 0)), 2, (16, 0x10, 1, Kind.INDIRECTLY), (48, 0x30, 1, NOT_SCANNED))
    for _ in range(2):
        sites = world.holdings.sites(now)
        assert per_offset(world, sites, sites.kinds[:, :, 1]) == {0x10: [0, 0, 1, 3], 0x20: [1, 0, 0, 0], 0x30: [0, 0, 0, 0]}
        assert (sites.kinds[:, :, 0] == SIZE * sites.kinds[:, :, 1]).all()
        assert per_offset(world, sites, sites.gone) == {0x10: 11, 0x20: 3, 0x30: 0}
    world.holdings.forget_ended()
    sites = world.holdings.sites(now)
    assert per_offset(world, sites, sites.kinds[:, :, 1]) == {0x10: [0, 0, 1, 0], 0x30: [0, 0, 0, 0]} and not sites.gone.any()


def test_kinds_of_many_that_end() -> None:
    """The sums grow with the stacks that they are kept by, and none is added to another's."""
    world = World()
    for number in range(40):
        last = snapshot(*((at(0, 16 * n), 1, 0) for n in range(5 * number, 5 * number + 8)))
        world.holdings.end(number, with_found(last, 0, *((16 * n, 16 * n, 1, Kind.DEFINITELY) for n in range(5 * number, 5 * number + 8))))
    sites = world.holdings.sites(snapshot())
    assert sites.kinds[:, Kind.DEFINITELY, 1].tolist() == sites.gone.tolist() == sites.snapshot.live_count.tolist()
    assert sites.gone.sum() == 320


def test_where_blocks_are() -> None:
    """Each block's address with the row of its site: of what runs, and of those that were looked at when they ended."""
    world = World()
    assert [len(each) for each in world.holdings.sites(snapshot((at(2, 0x10), 1, 0))).placed] == [0, 0]
    world.holdings.end(70, with_found(snapshot((at(0, 0x10), 5, 1), (at(0, 0x20), 3, 0)), 0, (0x70, 0x20, 1, 0), (0x78, 0x10, 1, 0)))
    world.holdings.end(71, snapshot((at(1, 0x10), 5, 1)))
    sites = world.holdings.sites(with_found(snapshot((at(2, 0x10), 2, 0), (at(2, 0x30), 1, 0)), 2, (0x90, 0x30, 1, 0), (0x98, 0x10, 1, 0)))
    rows = rows_of(world, sites)
    addresses, placed = sites.placed
    assert dict(zip(addresses.tolist(), placed.tolist(), strict=True)) == {
        0x70: rows[0x20], 0x78: rows[0x10], 0x90: rows[0x30], 0x98: rows[0x10]}
    world.holdings.forget_ended()
    assert world.holdings.sites(snapshot((at(2, 0x10), 1, 0))).placed[0].tolist() == []


def test_members_of_live_and_ended_processes() -> None:
    """A site's series is that of all sites of the kernel side behind it, those of ended processes too until they go."""
    world = World()
    assert world.holdings.sites(snapshot((at(2, 0x10), 1, 0))).snapshot.members is not None
    world.holdings.end(70, with_members(snapshot((at(0, 0x10), 5, 1), (at(0, 0x20), 3, 0)), 0, {7: 0x20, 8: 0x10, 9: 0x10}))
    now = with_members(snapshot((at(2, 0x10), 2, 0), (at(2, 0x30), 1, 0)), 2, {11: 0x30, 12: 0x10})
    sites = world.holdings.sites(now)
    rows, members = rows_of(world, sites), sites.snapshot.members
    assert members is not None and dict(zip(members.keys.tolist(), members.rows.tolist(), strict=True)) == {
        7: rows[0x20], 8: rows[0x10], 9: rows[0x10], 11: rows[0x30], 12: rows[0x10]}
    world.holdings.forget_ended()
    members = world.holdings.sites(now).snapshot.members
    assert members is not None and members.keys.tolist() == [11, 12]
