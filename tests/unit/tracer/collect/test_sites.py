"""SiteReader on made-up tables: what it reads, what it gives back, and that nothing is lost by that."""

from __future__ import annotations

import time
from typing import cast

import numpy as np
import pytest

from tracer import records
from tracer.attach.program import Program
from tracer.collect.sites import ANY_VERSION, MANY, STILL_TO_COME_NS, SiteReader
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

    def forget_stacks(self, numbers: np.ndarray) -> None:
        self.forgotten += numbers.tolist()

    def release_sites(self, indexes: np.ndarray) -> None:
        self.sites[indexes] = np.zeros((), records.SITE)
        self.released += indexes.tolist()

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
