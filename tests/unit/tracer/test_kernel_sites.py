"""The tables of a kernel trace become snapshots: sites that belong together are one, and blocks are whose they were."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tracer import records
from tracer.attach.kernel_program import KernelProgram
from tracer.collect.kernel_records import KERNEL_SITE, SIZE_BITS, Source
from tracer.collect.kernel_sites import KernelReader, totals_by_source
from tracer.losses import LOSSES, loss_index

DEPTH, SITES = 4, 16
NOW = 1_000_000_000_000
SLAB, PAGES = 0xFFFF_8880_0000_1000, Source.PAGES << 60 | 3 << 48 | 0x1234


class FakeProgram:
    """Tables as the kernel side would leave them."""

    def __init__(self) -> None:
        self.max_sites = SITES
        self.sites = np.zeros(SITES, records.SITE)
        self.stacks = np.zeros(SITES, records.stack_dtype(DEPTH))
        self.about = np.zeros(SITES, KERNEL_SITE)
        self.charged: np.ndarray | None = None
        self.losses = np.zeros(len(LOSSES), records.LOSS_COUNT)
        self.blocks = np.zeros(4, records.BLOCK_BUCKET)
        self.overflow_fd = -1
        self.skipped = 0
        self._blocks = 0

    def missed(self) -> int:
        return self.skipped

    def site(self, index: int, sizes: tuple[int, ...] = (), freed: int = 0, *, first_ns: int = 5, **about: Any) -> None:
        """Say what a site has allocated, in bytes, and how many of the last of these it has freed."""
        self.sites[index]["allocated_count"], self.sites[index]["allocated_bytes"] = len(sizes), sum(sizes)
        self.sites[index]["freed_count"] = freed
        self.sites[index]["freed_bytes"] = sum(sizes[len(sizes) - freed :])
        self.sites[index]["first_ns"] = first_ns
        self.stacks[index]["depth"], self.stacks[index]["addresses"][0] = 1, index
        self.about[index]["source"] = Source.SLAB
        for name, value in about.items():
            self.about[index][name] = value

    def block(self, key: int, site: int, size: int, *, extra: int = 0, process: int = 7, age_ns: int = 100) -> None:
        """Put a block into the table."""
        bucket, place = divmod(self._blocks, 7)
        self._blocks += 1
        self.blocks["keys"][bucket, place] = key
        self.blocks["records"][bucket, place] = (NOW - age_ns, size | extra << SIZE_BITS, site, process)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> FakeProgram:
    monkeypatch.setattr("tracer.collect.kernel_sites.time", SimpleNamespace(monotonic_ns=lambda: NOW))
    return FakeProgram()


@pytest.fixture
def reader(program: FakeProgram) -> KernelReader:
    return KernelReader(cast(KernelProgram, program))


def each_alone(stacks: np.ndarray, _about: np.ndarray) -> np.ndarray:
    return np.asarray(stacks["addresses"][:, 0], np.uint64)


def all_together(stacks: np.ndarray, _about: np.ndarray) -> np.ndarray:
    return np.full(len(stacks), 9, np.uint64)


def test_nothing_yet(reader: KernelReader) -> None:
    """Without any site there is an empty snapshot, and no series."""
    taken = reader.snapshot(0, each_alone)
    assert len(taken.snapshot) == len(taken.about) == len(taken.processes) == 0
    assert [len(each) for each in reader.series()] == [0, 0, 0]


def test_live_figures_are_those_of_blocks(program: FakeProgram, reader: KernelReader) -> None:
    """A site has what its blocks say: bytes that they take, without what stands beside their size."""
    program.site(3, (100, 50), 1)
    program.block(SLAB, 3, 100, extra=28)
    snapshot = reader.snapshot(0, each_alone).snapshot
    assert (snapshot.live_bytes.tolist(), snapshot.live_count.tolist(), snapshot.oldest_ns.tolist()) == ([100], [1], [100])
    assert snapshot.counters["freed_bytes"].tolist() == [50]


def test_sites_that_belong_together_are_one(program: FakeProgram, reader: KernelReader) -> None:
    """Counters, waste and unseen frees are sums; stack and description are those of the site that holds most."""
    program.site(2, (10,), first_ns=3, wasted_bytes=4, unseen_frees=1, node=2, gfp=2)
    program.site(5, (10, 10), first_ns=9, wasted_bytes=-1, unseen_frees=2, node=5, gfp=5)
    for key, site in ((SLAB, 2), (SLAB + 64, 5), (SLAB + 128, 5)):
        program.block(key, site, 10)
    taken = reader.snapshot(0, all_together)
    assert taken.snapshot.identity.tolist() == [9] and taken.snapshot.live_count.tolist() == [3]
    assert taken.snapshot.counters["first_ns"].tolist() == [3]
    assert (taken.snapshot.stacks["addresses"][0, 0], taken.about["node"][0]) == (5, 5)
    assert (taken.about["wasted_bytes"][0], taken.about["unseen_frees"][0]) == (3, 3)


def test_of_equal_sites_the_younger_stands_for_both(program: FakeProgram, reader: KernelReader) -> None:
    """Chance does not choose: what stands for a group stays the same while nothing changes."""
    program.site(2, (10,), first_ns=8)
    program.site(5, (10,), first_ns=4)
    assert reader.snapshot(0, all_together).snapshot.stacks["addresses"][0, 0] == 2


def test_the_kernels_tables_are_left_alone(program: FakeProgram, reader: KernelReader) -> None:
    """A snapshot changes nothing of what the kernel side counts on with."""
    program.site(2, (10,), wasted_bytes=4, unseen_frees=1)
    program.site(5, (10,), wasted_bytes=4, unseen_frees=1)
    before = (program.sites.copy(), program.about.copy(), program.stacks.copy())
    reader.snapshot(0, all_together)
    assert all((one == other).all() for one, other in zip(before, (program.sites, program.about, program.stacks), strict=True))


def test_blocks_know_for_whom_they_were_made(program: FakeProgram, reader: KernelReader) -> None:
    """Processes stand beside blocks, in their order, also where only the older ones are kept."""
    program.site(2, (10, 20, 30))
    for key, size, process, age in ((SLAB, 10, 1, 5), (SLAB + 64, 20, 2, 500), (SLAB + 128, 30, 3, 50)):
        program.block(key, 2, size, process=process, age_ns=age)
    for older, expected in ((0, {10: 1, 20: 2, 30: 3}), (50, {20: 2, 30: 3}), (51, {20: 2}), (501, {})):
        taken = reader.snapshot(older, each_alone)
        blocks = taken.snapshot.blocks
        assert blocks is not None
        assert dict(zip(blocks.sizes.tolist(), taken.processes.tolist(), strict=True)) == expected
        assert taken.snapshot.live_bytes.tolist() == [sum(expected)]


def test_addresses_are_made_of_keys(program: FakeProgram, reader: KernelReader) -> None:
    """A slab object's key is its address bit by bit reversed below the source; an area's lacks the upper bits; of pages
    it is the number of the first one.
    """
    program.site(2, (10, 4096, 8192, 64))
    for key in (SLAB ^ (1 << 60) - 1, PAGES, Source.VMALLOC << 60 | 0x0FFF_C900_0004_0000, Source.PERCPU << 60 | 0x6000_1234):
        program.block(key, 2, 10)
    blocks = reader.snapshot(0, each_alone).snapshot.blocks
    assert blocks is not None and blocks.addresses.tolist() == [SLAB, 0x1234, 0xFFFF_C900_0004_0000, 0x6000_1234]
    assert blocks.weights.tolist() == [1] * 4


def test_blocks_of_sites_that_came_meanwhile_are_left_out(program: FakeProgram, reader: KernelReader) -> None:
    """A block whose site was not there when sites were read is one of the next snapshot."""
    program.site(2, (10,))
    program.block(SLAB, 2, 10)
    program.block(SLAB + 64, 3, 20, process=9)
    taken = reader.snapshot(0, each_alone)
    assert taken.snapshot.live_bytes.tolist() == [10] and taken.processes.tolist() == [7]


def test_what_a_clock_says_never_is_an_age_below_zero(program: FakeProgram, reader: KernelReader) -> None:
    """A block that was born after the time was taken is new."""
    program.site(2, (10,))
    program.block(SLAB, 2, 10, age_ns=-50)
    assert reader.snapshot(0, each_alone).snapshot.oldest_ns.tolist() == [0]


def test_series(program: FakeProgram, reader: KernelReader) -> None:
    """Each site that was used has its key and what it holds by its counters; its key is its own, and lasts."""
    program.site(2, (10, 20), 1, first_ns=3)
    program.site(5, (7,), 1, first_ns=3)
    keys, held, count = reader.series()
    assert (held.tolist(), count.tolist()) == ([10, 0], [1, 0]) and len(set(keys.tolist())) == 2
    program.site(2, (10, 20, 5), 1, first_ns=3)
    assert reader.series()[0].tolist() == keys.tolist()
    members = reader.snapshot(0, all_together).snapshot.members
    assert members is not None and members.keys.tolist() == keys.tolist() and members.rows.tolist() == [0, 0]


def test_losses(program: FakeProgram, reader: KernelReader) -> None:
    """Counters that are not zero, and to events that interrupted others those that the kernel skipped."""
    assert reader.losses() == ()
    program.losses[loss_index("sites_full")] = (2, 64)
    program.losses[loss_index("nested")] = (1, 8)
    program.skipped = 5
    assert {loss.name: (loss.count, loss.bytes) for loss in reader.losses()} == {"sites_full": (2, 64), "nested": (6, 8)}
    assert program.losses["count"][loss_index("nested")] == 1, "the kernel side's own counter stays"
    assert reader.snapshot(0, each_alone).snapshot.losses == reader.losses()


def test_sums_by_source(program: FakeProgram, reader: KernelReader) -> None:
    """What each source holds, all its sites together."""
    program.site(2, (10,))
    program.site(3, (20,))
    program.site(4, (4096,), source=Source.PAGES)
    for key, site, size in ((SLAB, 2, 10), (SLAB + 64, 3, 20), (PAGES, 4, 4096)):
        program.block(key, site, size)
    taken = reader.snapshot(0, each_alone)
    assert totals_by_source(taken.snapshot, taken.about) == {Source.SLAB: (30, 2), Source.PAGES: (4096, 1)}
