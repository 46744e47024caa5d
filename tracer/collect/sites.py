"""Reads the kernel side's tables into snapshots, and gives its sites back when they are done with."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from tracer import records
from tracer.attach.program import Program
from tracer.collect.capture import Capture, joined
from tracer.collect.outstanding import forget_blocks, read_blocks
from tracer.collect.snapshot import (
    Blocks,
    LossCount,
    Members,
    Retired,
    Snapshot,
    identify,
    merge_sites,
    with_blocks,
)
from tracer.limits import MAX_SLOTS
from tracer.losses import LOSSES

#: Between a stack's site and its block's birth lie some instructions, and perhaps a lost processor.
STILL_TO_COME_NS = 10_000_000_000


#: Images whose blocks are forgotten together: it takes a walk over all blocks.
MANY = 16
#: And before they take more than this part of the room for blocks.
ROOM_FOR_GONE = 16
#: Sites of missed stacks between looks for those that can be given back.
LOOK_AGAIN = 4096
#: Odd, so that no two times become one.
_SPREAD = np.uint64(0x9E3779B97F4A7C15)
#: In place of a stack's version of the code: it is the same in all.
ANY_VERSION = (1 << 32) - 1


class SiteReader:
    """Takes snapshots of one running program."""

    def __init__(self, program: Program, volatile: Callable[[int], np.ndarray]) -> None:
        """volatile: of a slot, the address ranges whose code changed while it was traced, u64 (n, 2)."""
        self._program = program
        self._volatile = volatile
        self._gone: set[int] = set()
        self._gone_blocks = 0
        self._retired = Retired()
        self._provisional: set[int] = set()
        self._look_at = LOOK_AGAIN
        self._own_losses = np.zeros(len(LOSSES), np.uint64)

    def note_provisional(self, site: int) -> None:
        """Remember a site that one missed stack has for itself: it is given back when its block is freed."""
        if site:
            self._provisional.add(site)
            if len(self._provisional) >= self._look_at:
                # Without a report for long, they would take the place of others.
                self._retire()
                self._look_at = len(self._provisional) + LOOK_AGAIN

    def count_loss(self, index: int) -> None:
        """Count a loss that happened on this side; the map's own counters only the kernel side may change."""
        self._own_losses[index] += 1

    def capture(self, image: int | None = None, *, blocks: bool = True) -> Capture:
        """Copy the tables as they are now, or what there is of one process image, which may stand still meanwhile."""
        self._retire()
        taken = time.monotonic_ns()
        used = self._used()
        stacks = self._program.stacks[used]
        if image is not None:
            mine = stacks["image"] == image
            used, stacks = used[mine], stacks[mine]
        counters = self._program.sites[used]
        if not blocks:
            return Capture(taken, image, used, counters, stacks)
        live = int((counters["allocated_count"] - counters["freed_count"]).sum())
        keys, values = read_blocks(self._program, live)
        if image is not None:
            mine = keys >> np.uint64(records.ADDRESS_BITS) == np.uint64(image & records.IMAGE_MASK)
            keys, values = keys[mine], values[mine]
        return Capture(taken, image, used, counters, stacks, keys, values)

    def snapshot(
        self, *, older_ns: int | None = None, keep_blocks: bool = False, image: int | None = None,
        scanned: Sequence[Capture] = (),
    ) -> Snapshot:
        """Return what is outstanding now; older_ns (also 0) reads every block, None only the counters per site.

        image: of this process image only, which is about to go. scanned: what some processes had when they were looked
        at, which stands for what they have now.
        """
        with_each = older_ns is not None or keep_blocks
        is_all = len(scanned) == 1 and scanned[0].image == image
        captured = scanned[0] if is_all else joined(self.capture(image, blocks=with_each), scanned)
        stacks = self._comparable(self._completed(captured))
        snapshot, rows = merge_sites(captured.taken_ns, captured.counters, stacks, self._retired.of_image(image))
        used = captured.used
        if with_each:
            row_of_site = np.full(self._program.max_sites, -1, np.int64)
            row_of_site[used] = rows[: len(used)]
            snapshot = with_blocks(snapshot, self._blocks(captured, row_of_site), older_ns or 0, keep=keep_blocks)
        members = Members(site_keys(captured.counters, used), rows[: len(used)])
        return replace(snapshot, losses=self.losses(), members=members)

    def series(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return of every site now its key, u64 (n,), and what it holds: bytes and blocks, i64 (n,)."""
        used = self._used()
        counters = self._program.sites[used]
        return (site_keys(counters, used), (counters["allocated_bytes"] - counters["freed_bytes"]).astype(np.int64),
                (counters["allocated_count"] - counters["freed_count"]).astype(np.int64))

    def losses(self) -> tuple[LossCount, ...]:
        """Return the counters of lost events that are not zero."""
        counts = self._program.losses.copy()
        counts["count"] += self._own_losses
        return tuple(
            LossCount(loss.name, int(row["count"]), int(row["bytes"]))
            for loss, row in zip(LOSSES, counts, strict=True)
            if row["count"]
        )

    def hides_bytes(self) -> bool:
        """Return whether some of what was allocated or freed is not on record."""
        hiding = {loss.name for loss in LOSSES if loss.hides_bytes}
        return any(loss.name in hiding for loss in self.losses())

    def drop_image(self, image: int) -> tuple[int, int]:
        """Forget all blocks and sites of a process image that exec has replaced; return their live bytes and count."""
        program = self._program
        # Also those of stacks that only freed (--check-frees).
        used = np.flatnonzero(program.sites["allocated_count"] | program.sites["first_ns"])
        mine = used[program.stacks["image"][used] == image]
        # Site 0 belongs to no image; its blocks go when they are found among the outstanding.
        mine = mine[mine != 0]
        live = self._live(mine)
        self._gone.add(image)
        self._gone_blocks += live[1]
        if len(self._gone) >= MANY or self._gone_blocks > program.settings.max_outstanding // ROOM_FOR_GONE:
            self.forget_gone()
        program.forget_stacks(program.stacks["id"][mine])
        program.release_sites(mine)
        self._provisional -= set(mine.tolist())
        self._retired.forget_images({image})
        return live

    def forget_gone(self) -> None:
        """Remove the blocks of images that are gone: their keys come again after some thousand others."""
        if self._gone:
            forget_blocks(self._program, self._gone)
            self._gone.clear()
            self._gone_blocks = 0

    def live_of(self, image: int) -> tuple[int, int]:
        """Return the live bytes and count of a process image."""
        used = self._used()
        return self._live(used[self._program.stacks["image"][used] == image])

    def _live(self, sites: np.ndarray) -> tuple[int, int]:
        counters = self._program.sites[sites]
        return (int((counters["allocated_bytes"] - counters["freed_bytes"]).sum()),
                int((counters["allocated_count"] - counters["freed_count"]).sum()))

    def _used(self) -> np.ndarray:
        return np.flatnonzero(self._program.sites["allocated_count"])

    def _completed(self, captured: Capture) -> np.ndarray:
        """Return the stacks, those that were on their way when they were copied as they are known now."""
        stacks = captured.stacks.copy()
        late = stacks["ended"] == records.StackEnd.PENDING
        stacks[late] = self._program.stacks[captured.used[late]]
        return stacks

    def _comparable(self, stacks: np.ndarray) -> np.ndarray:
        """Clear the version of stacks whose code was the same in all versions: they are the same stack in each."""
        volatile = np.zeros(len(stacks), bool)
        slots = stacks["image"] % MAX_SLOTS
        beyond = np.arange(stacks["addresses"].shape[1])[None, :] >= stacks["depth"][:, None]
        for slot in np.unique(slots).tolist():
            ranges = self._volatile(slot)
            mine = np.flatnonzero(slots == slot)
            addresses = stacks["addresses"][mine] & np.uint64(records.ADDRESS_MASK)
            for start, end in ranges.tolist():
                inside = (addresses >= start) & (addresses <= end) & ~beyond[mine]
                volatile[mine] |= inside.any(axis=1)
        stacks["code"][~volatile] = ANY_VERSION
        return stacks

    def _blocks(self, captured: Capture, row_of_site: np.ndarray) -> Blocks:
        keys, values, kinds = captured.keys, captured.values, captured.kinds
        rows = row_of_site[values["site"]]
        # A block of a site that came after the sites were read.
        known = rows >= 0
        if self._gone:
            # Or of an image that is gone, with its site another's by now.
            images = self._program.stacks["image"][values["site"]] & np.uint32(records.IMAGE_MASK)
            known &= (values["site"] == 0) | (keys >> np.uint64(records.ADDRESS_BITS) == images)
        if not known.all():
            keys, values, rows = keys[known], values[known], rows[known]
            kinds = kinds[known] if kinds is not None else None
        return Blocks(
            keys & np.uint64(records.ADDRESS_MASK),
            values["packed"] & np.uint64(records.SIZE_MASK),
            np.maximum(captured.taken_ns - values["born_ns"].astype(np.int64), 0),
            values["weight"].astype(np.uint64),
            rows,
            kinds,
        )

    def _retire(self) -> None:
        """Fold the sites of missed stacks whose one block is dead, and let the kernel side use them again."""
        if not self._provisional:
            return
        sites = np.fromiter(self._provisional, np.int64, len(self._provisional))
        counters, stacks = self._program.sites[sites], self._comparable(self._program.stacks[sites])
        dead = counters["allocated_count"] == counters["freed_count"]
        # Without a birth it is still to come, or was taken back (unbirth() in bpf/ledger.c).
        fresh = counters["first_ns"] + np.uint64(STILL_TO_COME_NS) > np.uint64(time.monotonic_ns())
        dead &= (counters["allocated_count"] > 0) | ~fresh
        identities = identify(stacks)
        for index in np.flatnonzero(dead).tolist():
            if counters["allocated_count"][index]:
                self._retired.add(int(identities[index]), counters[index], stacks[index])
        self._program.release_sites(sites[dead])
        self._provisional -= set(sites[dead].tolist())


def site_keys(counters: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Return what each site is known by through a run, u64 (n,): its place, and since when it has had it."""
    with np.errstate(over="ignore"):
        return counters["first_ns"] * _SPREAD + used.astype(np.uint64)
