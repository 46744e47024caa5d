"""SiteReader on made-up tables: what it reads, what it gives back, and that nothing is lost by that."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import cast

import numpy as np
import pytest

from tracer import records
from tracer.attach.program import Program
from tracer.collect.capture import Capture
from tracer.collect.sites import ANY_VERSION, MANY, STILL_TO_COME_NS, SiteReader
from tracer.collect.snapshot import NOT_SCANNED
from tracer.limits import MAX_SLOTS
from tracer.losses import LOSSES
from tracer.records import StackEnd
from tracer.settings import Settings

DEPTH, SITES = 4, 16


class Tables:
    """The kernel side's tables, and which sites were given back."""

    def __init__(self) -> None:
        self.max_sites = SITES
        self.sites = np.zeros(SITES, records.SITE)
        self.stacks = np.zeros(SITES, records.stack_dtype(DEPTH))
        self.losses = np.zeros(len(LOSSES), records.LOSS_COUNT)
        self.settings = Settings()
        self.released: list[int] = []
        self.forgotten: list[int] = []
        #: Of one bucket each; 0 is no key.
        self.blocks = np.zeros(SITES, records.BLOCK_BUCKET)

    def forget_stacks(self, numbers: np.ndarray) -> None:
        self.forgotten += numbers.tolist()

    def release_sites(self, indexes: np.ndarray) -> None:
        self.sites[indexes] = np.zeros((), records.SITE)
        self.released += indexes.tolist()

    def hold(self, bucket: int, address: int, site: int, size: int = 100, *, image: int = 0, born_ns: int = 1) -> None:
        """Have a block that lives."""
        row = self.blocks[bucket : bucket + 1]
        row["keys"][0, 0] = address | (image & records.IMAGE_MASK) << records.ADDRESS_BITS
        row["records"][0, 0] = (born_ns, size, site, 1)

    def put(self, index: int, *addresses: int, born: int = 1, freed: int = 0, size: int = 100, image: int = 0) -> None:
        """Have born blocks allocated at a site, and freed of them freed."""
        self.stacks["addresses"][index, : len(addresses)] = addresses
        self.stacks["depth"][index], self.stacks["ended"][index] = len(addresses), StackEnd.COMPLETE
        self.stacks["image"][index] = image
        row = self.sites[index : index + 1]
        row["allocated_count"], row["allocated_bytes"] = born, born * size
        row["freed_count"], row["freed_bytes"] = freed, freed * size


def reader(tables: Tables, volatile: dict[int, list[tuple[int, int]]] | None = None) -> SiteReader:
    """Return a reader of the tables; volatile: by slot, where code changed."""
    return SiteReader(cast(Program, tables),
                      lambda slot: np.array((volatile or {}).get(slot, ()), np.uint64).reshape(-1, 2))


def test_sites_in_use_are_read() -> None:
    """Sites that never had a block are none; those of one stack are one; ages are not looked at."""
    tables = Tables()
    tables.put(3, 1, 2)
    tables.put(5, 1, 2, born=3, freed=1)
    tables.put(7, 9)
    snapshot = reader(tables).snapshot()
    assert sorted(zip(snapshot.live_bytes.tolist(), snapshot.live_count.tolist(), strict=True)) == [(100, 1), (300, 3)]
    assert snapshot.oldest_ns.tolist() == [-1, -1] and snapshot.blocks is None


def test_a_snapshot_does_not_change_later() -> None:
    """The tables are the kernel's memory: what was read is a copy."""
    tables = Tables()
    tables.put(3, 1, 2)
    snapshot = reader(tables).snapshot()
    tables.put(3, 7, 7, born=9)
    assert snapshot.live_count.tolist() == [1]
    assert snapshot.stacks[0]["addresses"][:2].tolist() == [1, 2]


def test_the_kernels_tables_are_left_alone() -> None:
    """Reading clears what is beyond a stack's depth in its own copy only."""
    tables = Tables()
    tables.put(3, 1, 2)
    tables.stacks["addresses"][3, 3] = 99
    reader(tables).snapshot()
    assert tables.stacks["addresses"][3, 3] == 99


def test_losses() -> None:
    """Counters that are not zero, by name, with their bytes."""
    tables = Tables()
    tables.losses[0] = (12, 480)
    tables.losses[len(LOSSES) - 1] = (1, 0)
    losses = reader(tables).snapshot().losses
    assert [(each.name, each.count, each.bytes) for each in losses] == [(LOSSES[0].name, 12, 480), (LOSSES[-1].name, 1, 0)]


def test_a_missed_stacks_site_is_given_back_when_its_block_is_dead() -> None:
    """Sites that one miss has for itself would fill the table; their counters stay in the report."""
    tables = Tables()
    tables.put(2, 1, 2, born=5, freed=1)
    tables.put(3, 1, 2, born=1, freed=1)
    tables.put(4, 1, 2, born=1, freed=0)
    tables.put(6, 8, born=1, freed=1)
    made = reader(tables)
    for site in (3, 4):
        made.note_provisional(site)
    before = made.snapshot()
    assert tables.released == [3]
    row = int(np.flatnonzero(before.counters["allocated_count"] == 7)[0])
    assert before.counters[row]["freed_count"] == 2 and before.live_count[row] == 5
    again = made.snapshot()
    assert tables.released == [3]
    assert again.counters.tobytes() == before.counters.tobytes()


def test_a_site_that_is_used_again_is_another() -> None:
    """A site that was given back belongs to whoever has it next."""
    tables = Tables()
    tables.put(3, 1, 2, born=1, freed=1)
    made = reader(tables)
    made.note_provisional(3)
    made.snapshot()
    tables.put(3, 7, born=1, freed=1)
    snapshot = made.snapshot()
    assert tables.released == [3]
    assert snapshot.counters["allocated_count"].tolist() == [1, 1]


def test_a_site_whose_block_is_not_born_yet() -> None:
    """Between its stack and its birth a site has no block: it is not given back then, but in time if none is born."""
    tables = Tables()
    made = reader(tables)
    made.note_provisional(0)
    for site, age_ns in ((3, 0), (4, 2 * STILL_TO_COME_NS)):
        tables.sites["first_ns"][site] = max(time.monotonic_ns() - age_ns, 1)
        made.note_provisional(site)
    assert made.snapshot().live_count.sum() == 0
    assert tables.released == [4]
    tables.put(3, 1, born=1, freed=1)
    made.snapshot()
    assert tables.released == [4, 3]


def test_one_image_alone() -> None:
    """The last snapshot of a process has its own stacks, those of sites that were given back too, and no others."""
    tables = Tables()
    tables.put(3, 1, 2, born=2, image=64)
    tables.put(5, 1, 2, born=3, image=65)
    tables.put(6, 7, born=1, freed=1, image=64)
    tables.put(8, 7, born=1, freed=1, image=65)
    made = reader(tables)
    made.note_provisional(6)
    made.note_provisional(8)
    snapshot = made.snapshot(image=64)
    assert set(snapshot.stacks["image"].tolist()) == {64}
    assert sorted(snapshot.counters["allocated_count"].tolist()) == [1, 2] and snapshot.live_count.sum() == 2
    assert made.snapshot().counters["allocated_count"].sum() == 7


def test_live_of_an_image() -> None:
    """What a process holds when it makes a child: its own bytes and blocks."""
    tables = Tables()
    tables.put(3, 1, born=5, freed=2, image=64)
    tables.put(4, 2, born=1, image=64)
    tables.put(5, 1, born=7, image=65)
    assert reader(tables).live_of(64) == (400, 4)
    assert reader(tables).live_of(66) == (0, 0)


def test_the_version_counts_only_where_code_changed() -> None:
    """A stack whose code was the same in all versions is one stack in each; where another library lay, two."""
    tables = Tables()
    for site, address, code in ((3, 0x1000, 1), (4, 0x1000, 65), (5, 0x5000, 1), (6, 0x5000, 65)):
        tables.put(site, 0x900, address, image=MAX_SLOTS + 1)
        tables.stacks["code"][site] = code
    snapshot = reader(tables, {1: [(0x4000, 0x6000)]}).snapshot()
    assert sorted(zip(snapshot.stacks["addresses"][:, 1].tolist(), snapshot.stacks["code"].tolist(),
                      snapshot.live_count.tolist(), strict=True)) == [(0x1000, ANY_VERSION, 2), (0x5000, 1, 1), (0x5000, 65, 1)]
    assert tables.stacks["code"].tolist().count(65) == 2, "the kernel's own table was changed"
    assert len(reader(tables, {0: [(0x4000, 0x6000)]}).snapshot()) == 2, "another slot's code"


def test_sites_of_a_process_that_is_gone() -> None:
    """Its sites and stacks are given back, what it held is said; another's stay, and so do blocks without a site."""
    tables = Tables()
    tables.put(0, born=4, image=0)
    tables.put(3, 1, born=5, freed=2, image=64)
    tables.put(5, 1, born=7, image=65)
    tables.stacks["id"][3] = 0x1234
    made = reader(tables)
    assert made.drop_image(64) == (300, 3)
    assert (tables.released, tables.forgotten) == ([3], [0x1234])
    assert made.drop_image(0) == (0, 0)
    assert sorted(made.snapshot().live_count.tolist()) == [4, 7]


@pytest.mark.parametrize(("held", "gone"), [(3, MANY), (20, 4)])
def test_blocks_of_what_is_gone_do_not_take_the_room(held: int, gone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forgotten for many images together, and sooner where they are many."""
    forgotten: list[set[int]] = []
    monkeypatch.setattr("tracer.collect.sites.forget_blocks", lambda program, images: forgotten.append(set(images)))
    tables = Tables()
    # A 16th of the room is 62 blocks.
    tables.settings = Settings(max_outstanding=1000)
    made = reader(tables)
    for number in range(1, gone + 1):
        assert forgotten == []
        tables.put(3, 1, born=held, image=64 * number)
        made.drop_image(64 * number)
    assert forgotten == [{64 * number for number in range(1, gone + 1)}]


def two_images() -> Tables:
    """Return two processes with a site of two blocks each, and one more block without a site."""
    tables = Tables()
    tables.put(0, born=1)
    tables.put(3, 1, 2, born=2, image=64)
    tables.put(5, 1, 2, born=3, freed=1, image=65)
    for bucket, (address, site, image) in enumerate([(0x10, 3, 64), (0x20, 3, 64), (0x10, 5, 65), (0x20, 5, 65), (0x30, 0, 64)]):
        tables.hold(bucket, address, site, size=100 + bucket, image=image)
    return tables


def test_a_copy_of_everything() -> None:
    """All sites in use with their counters and stacks, and all blocks; without blocks where they are not asked for."""
    made = reader(two_images())
    everything, sites = made.capture(), made.capture(blocks=False)
    assert everything.used.tolist() == sites.used.tolist() == [0, 3, 5] and everything.image is None
    assert everything.counters["allocated_count"].tolist() == [1, 2, 3] and everything.stacks["image"].tolist() == [0, 64, 65]
    assert sorted(everything.sizes.tolist()) == [100, 101, 102, 103, 104]
    assert everything.kinds is None and len(sites.keys) == len(sites.values) == 0


def test_a_copy_of_one_process() -> None:
    """Its own sites and blocks, those without a site too, and no others; nothing of one that is not there."""
    made = reader(two_images())
    mine = made.capture(64)
    assert (mine.image, mine.used.tolist()) == (64, [3])
    assert sorted(zip(mine.addresses.tolist(), mine.sizes.tolist(), strict=True)) == [(0x10, 100), (0x20, 101), (0x30, 104)]
    nobodys = made.capture(66)
    assert len(nobodys.used) == len(nobodys.keys) == 0


def test_a_copy_does_not_change_later() -> None:
    """The process runs on while the copy is looked at."""
    tables = two_images()
    before = reader(tables).capture(64)
    tables.put(3, 7, born=9, image=65)
    tables.blocks["keys"] = 0
    assert before.counters["allocated_count"].tolist() == [2] and before.stacks["image"].tolist() == [64]
    assert len(before.keys) == 3 and before.keys.all()


def test_what_was_looked_at_stands_for_what_is_now() -> None:
    """Of a process that was looked at, a snapshot has what it had then, and says how each block was reached."""
    tables = two_images()
    made = reader(tables)
    then = made.capture(64)
    looked = replace(then, kinds=np.array([{100: 0, 101: 3, 104: 2}[size] for size in then.sizes.tolist()], np.uint8))
    tables.put(3, 1, 2, born=50, image=64)
    tables.blocks["keys"][0, 0] = 0
    tables.put(5, 1, 2, born=4, freed=1, image=65)
    tables.hold(7, 0x70, 5, size=107, image=65)
    now = made.snapshot(keep_blocks=True, scanned=[looked])
    counts = dict(zip(now.stacks["image"].tolist(), now.counters["allocated_count"].tolist(), strict=True))
    assert counts == {0: 1, 64: 2, 65: 4}
    assert now.blocks is not None and now.blocks.kinds is not None
    assert dict(zip(now.blocks.sizes.tolist(), now.blocks.kinds.tolist(), strict=True)) == {
        100: 0, 101: 3, 104: 2, 102: NOT_SCANNED, 103: NOT_SCANNED, 107: NOT_SCANNED}
    assert dict(zip(now.stacks["image"].tolist(), now.live_count.tolist(), strict=True)) == {0: 1, 64: 2, 65: 3}


def test_the_last_look_at_a_process_is_all_of_its_last_snapshot() -> None:
    """What happens after it changes nothing, and what others hold is no part of it."""
    tables = two_images()
    made = reader(tables)
    looked = made.capture(64)
    tables.put(3, 1, 2, born=50, image=64)
    last = made.snapshot(keep_blocks=True, image=64, scanned=[looked])
    assert last.taken_ns == looked.taken_ns and last.counters["allocated_count"].tolist() == [2]
    assert last.blocks is not None and sorted(last.blocks.sizes.tolist()) == [100, 101]


def test_stacks_that_came_late() -> None:
    """One that was on its way when it was copied is shown as it is known now."""
    tables = two_images()
    tables.stacks["ended"][3] = StackEnd.PENDING
    made = reader(tables)
    looked = made.capture(64)
    tables.put(3, 8, 9, born=2, image=64)
    last = made.snapshot(keep_blocks=True, image=64, scanned=[looked])
    assert last.stacks["addresses"][0, :2].tolist() == [8, 9] and last.stacks["ended"].tolist() == [StackEnd.COMPLETE]


def test_blocks_of_a_site_that_is_not_there() -> None:
    """A block whose site came after the sites were copied is left out, with what is known of how it is reached."""
    tables = two_images()
    made = reader(tables)
    then = made.capture(64)
    part = Capture(then.taken_ns, 64, then.used[:0], then.counters[:0], then.stacks[:0], then.keys, then.values,
                   np.array([1, 2, 3], np.uint8))
    now = made.snapshot(keep_blocks=True, scanned=[part])
    assert now.blocks is not None and now.blocks.kinds is not None
    assert sorted(zip(now.blocks.sizes.tolist(), now.blocks.kinds.tolist(), strict=True)) == [
        (102, NOT_SCANNED), (103, NOT_SCANNED), (104, 3)]


def test_series() -> None:
    """What each site holds, by a key that is its own in the whole run, and the same as in snapshots."""
    tables = two_images()
    tables.sites["first_ns"][[3, 5]] = 1000, 2000
    made = reader(tables)
    keys, held, count = made.series()
    assert (held.tolist(), count.tolist()) == ([100, 200, 200], [1, 2, 2]) and held.dtype == np.int64
    assert len(set(keys.tolist())) == 3 and keys.dtype == np.uint64
    now = made.snapshot()
    assert now.members is not None and now.members.keys.tolist() == keys.tolist()
    assert now.live_count[now.members.rows].tolist() == [1, 2, 2]


def test_a_site_that_is_used_again_has_another_key() -> None:
    """Its place is another stack's from then on; while it has one stack, its key stays."""
    tables = Tables()
    tables.put(3, 1)
    tables.sites["first_ns"][3] = 1000
    made = reader(tables)
    first = made.series()[0].tolist()
    tables.put(3, 1, born=9)
    assert made.series()[0].tolist() == first
    tables.sites["first_ns"][3] = 1001
    assert made.series()[0].tolist() != first


def test_members_are_those_of_each_stack() -> None:
    """Two sites of one stack are members of its row; what was given back has no series."""
    tables = Tables()
    for index, addresses in ((2, (1, 2)), (4, (9,)), (6, (1, 2))):
        tables.put(index, *addresses, born=index)
    tables.put(7, 3, born=1, freed=1)
    made = reader(tables)
    made.note_provisional(7)
    now = made.snapshot()
    assert tables.released == [7] and now.members is not None and len(now.members.keys) == 3
    assert now.live_count[now.members.rows].tolist() == [8, 4, 8]


@pytest.mark.parametrize("index", range(len(LOSSES)))
def test_losses_that_hide_bytes(index: int) -> None:
    """Of each loss it is known whether blocks are missing for it, whichever side counted it."""
    tables = Tables()
    assert not reader(tables).hides_bytes()
    ours = reader(tables)
    ours.count_loss(index)
    assert ours.hides_bytes() == LOSSES[index].hides_bytes
    tables.losses["count"][index] = 1
    assert reader(tables).hides_bytes() == LOSSES[index].hides_bytes
