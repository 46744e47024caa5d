"""Reads the tables of a kernel trace: sites with what is said of them, and blocks with who they were made for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from tracer.attach.kernel_program import KernelProgram
from tracer.collect.kernel_records import SIZE_MASK, SOURCE_SHIFT, Source
from tracer.collect.outstanding import read_blocks
from tracer.collect.sites import site_keys
from tracer.collect.snapshot import Blocks, LossCount, Members, Snapshot, sum_counters, with_blocks
from tracer.losses import LOSSES, loss_index

#: Bits of a block's key that are its address: of pages, the number of the first one (the order lies above); of vmalloc
#: all but the upper 4, which are ones as in any address of the kernel.
_ADDRESS, _PAGE, _UPPER = (np.uint64(bits) for bits in ((1 << 60) - 1, (1 << 48) - 1, 15 << 60))


@dataclass(frozen=True, slots=True)
class KernelSnapshot:
    """A snapshot with one row per group of sites, and beside it what only the kernel has; row i is the same in all.

    about: KERNEL_SITE (n,), of the site of the group that holds most; its wasted_bytes and unseen_frees are sums.
    processes: of the blocks in snapshot.blocks, u32 (m,): for whom each was allocated.
    """

    snapshot: Snapshot
    about: np.ndarray
    processes: np.ndarray


class KernelReader:
    """Takes snapshots of one running kernel trace."""

    def __init__(self, program: KernelProgram) -> None:
        self._program = program

    def series(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return of every site now its key, u64 (n,), and what it holds: bytes and blocks, i64 (n,)."""
        used = np.flatnonzero(self._program.sites["allocated_count"])
        counters = self._program.sites[used]
        return (site_keys(counters, used), (counters["allocated_bytes"] - counters["freed_bytes"]).astype(np.int64),
                (counters["allocated_count"] - counters["freed_count"]).astype(np.int64))

    def losses(self) -> tuple[LossCount, ...]:
        """Return the counters of lost events that are not zero."""
        counts = self._program.losses.copy()
        counts["count"][loss_index("nested")] += self._program.missed()
        return tuple(LossCount(loss.name, int(row["count"]), int(row["bytes"]))
                     for loss, row in zip(LOSSES, counts, strict=True) if row["count"])

    def snapshot(self, older_ns: int, group: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> KernelSnapshot:
        """Return what is outstanding now, of blocks that are at least so old.

        group: gives for stacks (n,) and about (n,), copies of the kernel side's, who belongs together, u64 (n,).
        """
        taken = time.monotonic_ns()
        used = np.flatnonzero(self._program.sites["allocated_count"])
        counters, stacks, about = self._program.sites[used], self._program.stacks[used], self._program.about[used]
        live = int((counters["allocated_count"] - counters["freed_count"]).sum())
        keys, values = read_blocks(self._program, max(live, 0))
        identity, rows = np.unique(group(stacks, about), return_inverse=True)
        merged, shown = _merged(taken, identity, rows, counters, stacks)
        row_of_site = np.full(self._program.max_sites, -1, np.int64)
        row_of_site[used] = rows
        blocks, processes = _blocks(taken, keys, values, row_of_site)
        if older_ns:
            processes = processes[blocks.ages >= older_ns]
        snapshot = with_blocks(merged, blocks, older_ns, keep=True)
        described = about[shown]
        for name in ("wasted_bytes", "unseen_frees"):
            described[name] = 0
            np.add.at(described[name], rows, about[name])
        members = Members(site_keys(counters, used), rows)
        return KernelSnapshot(replace(snapshot, losses=self.losses(), members=members), described, processes)


def _merged(taken: int, identity: np.ndarray, rows: np.ndarray, counters: np.ndarray,
            stacks: np.ndarray) -> tuple[Snapshot, np.ndarray]:
    """Return a snapshot of groups, and for each the place of the site that stands for it, i64 (n,)."""
    count = len(identity)
    held = (counters["allocated_bytes"] - counters["freed_bytes"]).astype(np.int64)
    order = np.lexsort((counters["first_ns"], held))
    shown = np.zeros(count, np.int64)
    # The last assignment wins: that of the site that holds most.
    shown[rows[order]] = order
    merged = sum_counters(counters, rows, count)
    live_bytes = (merged["allocated_bytes"] - merged["freed_bytes"]).astype(np.int64)
    live_count = (merged["allocated_count"] - merged["freed_count"]).astype(np.int64)
    return Snapshot(taken, identity, merged, stacks[shown], live_bytes, live_count, np.full(count, -1, np.int64),
                    np.zeros(count)), shown


def _blocks(taken: int, keys: np.ndarray, values: np.ndarray, row_of_site: np.ndarray) -> tuple[Blocks, np.ndarray]:
    rows = row_of_site[values["site"]]
    # A block of a site that came after the sites were read.
    known = rows >= 0
    keys, values, rows = keys[known], values[known], rows[known]
    source = keys >> np.uint64(SOURCE_SHIFT)
    addresses = np.select([source == Source.SLAB, source == Source.PAGES, source == Source.VMALLOC],
                          [keys ^ _ADDRESS, keys & _PAGE, keys | _UPPER], keys & _ADDRESS)
    sizes = values["packed"] & np.uint64(SIZE_MASK)
    ages = np.maximum(taken - values["born_ns"].astype(np.int64), 0)
    # Of a kernel's block nothing is estimated; the place of a weight says who it was made for.
    return Blocks(addresses, sizes, ages, np.ones(len(rows), np.uint64), rows), values["weight"]


def totals_by_source(snapshot: Snapshot, about: np.ndarray) -> dict[int, tuple[int, int]]:
    """Return live bytes and blocks by source (Source)."""
    found = {}
    for source in np.unique(about["source"]).tolist():
        mine = about["source"] == source
        found[source] = (int(snapshot.live_bytes[mine].sum()), int(snapshot.live_count[mine].sum()))
    return found
