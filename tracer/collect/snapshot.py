"""Everything outstanding at one time, as immutable arrays; and the difference of two."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np

from tracer import records

#: In Blocks.kinds: nobody looked.
NOT_SCANNED = 255
#: Odd multipliers, one per frame: a stack's identity is the sum of its addresses times these (multilinear hashing).
_MULTIPLIERS = np.random.default_rng(0x1EAC).integers(1, 1 << 63, 130, np.uint64) * np.uint64(2) + np.uint64(1)


@dataclass(frozen=True, slots=True)
class LossCount:
    """One way events were lost: how often, and how many bytes of the program's memory it concerns."""

    name: str
    count: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """Live blocks, one row each, all arrays of shape (n,): address, size in bytes, age in ns, weight, site row.

    kinds: how each is reached, u8, NOT_SCANNED where nobody looked; None where nobody looked at any.
    """

    addresses: np.ndarray
    sizes: np.ndarray
    ages: np.ndarray
    weights: np.ndarray
    rows: np.ndarray
    kinds: np.ndarray | None = None

    def chosen(self, which: np.ndarray) -> Blocks:
        """Return the blocks at which is true."""
        kinds = self.kinds[which] if self.kinds is not None else None
        return Blocks(self.addresses[which], self.sizes[which], self.ages[which], self.weights[which], self.rows[which],
                      kinds)


@dataclass(frozen=True, slots=True)
class Members:
    """The kernel side's sites behind a snapshot: a key that no other site of the run has, u64 (k,), and its row."""

    keys: np.ndarray
    rows: np.ndarray


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Counters of every call site at one moment; row i of all arrays is the same stack.

    identity: u64 (n,), equal for equal stacks of one process image, in every snapshot of a run.
    counters: SITE (n,), in blocks and bytes as asked for by the program.
    stacks: struct stack (n,), addresses innermost first, zero beyond depth.
    live_bytes, live_count: i64 (n,), of the blocks the report is about (with --older, of those only).
    oldest_ns: i64 (n,), age of the oldest of these, -1 where it was not looked at.
    variance: f64 (n,), of live_bytes where it is an estimate, in square bytes; else 0.
    members: the sites whose series of figures are those of a row, where they were asked for.
    """

    taken_ns: int
    identity: np.ndarray
    counters: np.ndarray
    stacks: np.ndarray
    live_bytes: np.ndarray
    live_count: np.ndarray
    oldest_ns: np.ndarray
    variance: np.ndarray
    losses: tuple[LossCount, ...] = ()
    blocks: Blocks | None = None
    members: Members | None = None

    def __len__(self) -> int:
        return len(self.identity)


@dataclass(slots=True)
class Retired:
    """Counters of sites that were given back to the kernel side: one block each, dead, its stack known."""

    rows: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def add(self, identity: int, counters: np.ndarray, stack: np.ndarray) -> None:
        """Keep counters (one SITE) for the stack of that identity."""
        if identity in self.rows:
            add_counters(self.rows[identity][0], counters)
        else:
            self.rows[identity] = (counters.copy(), stack.copy())

    def of_image(self, image: int | None) -> Retired:
        """Return what belongs to one process image, None for all."""
        if image is None:
            return self
        return Retired({key: row for key, row in self.rows.items() if int(row[1]["image"]) == image})

    def forget_images(self, images: set[int]) -> None:
        """Drop what belongs to process images that exec has replaced."""
        for identity in [key for key, (_, stack) in self.rows.items() if int(stack["image"]) in images]:
            del self.rows[identity]


def add_counters(into: np.ndarray, more: np.ndarray) -> None:
    """Add one SITE row to another in place; the earlier first_ns stays."""
    for name in records.SITE.names or ():
        if name != "first_ns":
            into[name] += more[name]
    into["first_ns"] = min(into["first_ns"], more["first_ns"])


def identify(stacks: np.ndarray) -> np.ndarray:
    """Return what every stack is known by, u64 (n,): its image, code, end, addresses. Clears what is beyond depth."""
    addresses = stacks["addresses"]
    beyond = np.arange(addresses.shape[1])[None, :] >= stacks["depth"][:, None]
    addresses[beyond] = 0
    with np.errstate(over="ignore"):
        mixed = addresses ^ (addresses >> np.uint64(17))
        identity = (mixed * _MULTIPLIERS[: addresses.shape[1]]).sum(axis=1, dtype=np.uint64)
        identity += stacks["image"].astype(np.uint64) * _MULTIPLIERS[128]
        identity += (stacks["code"].astype(np.uint64) << np.uint64(8) | stacks["ended"].astype(np.uint64)) * (
            _MULTIPLIERS[129]
        )
    return np.asarray(identity, np.uint64)


def merge_sites(
    taken_ns: int, counters: np.ndarray, stacks: np.ndarray, retired: Retired
) -> tuple[Snapshot, np.ndarray]:
    """Return a snapshot with one row per distinct stack, and for each given site its row, shape (len(counters),).

    counters SITE (n,) and stacks (n,) are copies of the kernel side's; sites with the same stack become one.
    """
    if retired.rows:
        counters = np.concatenate([counters, np.array([row[0] for row in retired.rows.values()], records.SITE)])
        stacks = np.concatenate([stacks, np.array([row[1] for row in retired.rows.values()], stacks.dtype)])
    identity, first, rows = np.unique(identify(stacks), return_index=True, return_inverse=True)
    merged = sum_counters(counters, rows, len(identity))
    snapshot = Snapshot(
        taken_ns,
        identity,
        merged,
        stacks[first],
        (merged["allocated_bytes"] - merged["freed_bytes"]).astype(np.int64),
        (merged["allocated_count"] - merged["freed_count"]).astype(np.int64),
        np.full(len(identity), -1, np.int64),
        # Read while it changes, a sum may be below 0 for a moment.
        np.maximum(merged["variance"] + merged["large_variance"] * records.LARGE_VARIANCE, 0.0),
    )
    return snapshot, rows


def sum_counters(counters: np.ndarray, rows: np.ndarray, count: int) -> np.ndarray:
    """Return SITE (count,): the sums of the counters, SITE (n,), whose rows (n,) are the same."""
    merged = np.zeros(count, records.SITE)
    for name in records.SITE.names or ():
        if name == "first_ns":
            merged[name] = np.iinfo(np.uint64).max
            np.minimum.at(merged[name], rows, counters[name])
        else:
            np.add.at(merged[name], rows, counters[name])
    return merged


def merge_groups(snapshot: Snapshot, groups: np.ndarray) -> tuple[Snapshot, np.ndarray]:
    """Return a snapshot with one row per group, and for each the row of snapshot that stands for it, i64 (n,).

    groups: u64 (len(snapshot),), equal for rows that become one; it is the identity of the new row.
    """
    identity, rows = np.unique(groups, return_inverse=True)
    count = len(identity)
    # The last of equal rows wins an assignment: sorted by what they hold, that is the largest; of equal ones the
    # deepest, so that chance does not choose, and recursion that was folded shows.
    depth = snapshot.stacks["depth"]
    order = np.lexsort((snapshot.identity, depth, snapshot.live_count, snapshot.live_bytes))
    largest = np.zeros(count, np.int64)
    largest[rows[order]] = order
    live_bytes, live_count, variance = np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count)
    np.add.at(live_bytes, rows, snapshot.live_bytes)
    np.add.at(live_count, rows, snapshot.live_count)
    np.add.at(variance, rows, snapshot.variance)
    oldest = np.full(count, -1, np.int64)
    np.maximum.at(oldest, rows, snapshot.oldest_ns)
    blocks, members = snapshot.blocks, snapshot.members
    merged = Snapshot(
        snapshot.taken_ns,
        identity,
        sum_counters(snapshot.counters, rows, count),
        snapshot.stacks[largest],
        live_bytes,
        live_count,
        oldest,
        variance,
        snapshot.losses,
        replace(blocks, rows=rows[blocks.rows]) if blocks is not None else None,
        Members(members.keys, rows[members.rows]) if members is not None else None,
    )
    return merged, largest


def with_blocks(snapshot: Snapshot, blocks: Blocks, older_ns: int, *, keep: bool) -> Snapshot:
    """Return the snapshot with live figures counted from the blocks that are at least older_ns old.

    keep leaves these blocks in the result, for a report that lists them.
    """
    old = blocks.ages >= older_ns
    chosen = blocks if old.all() else blocks.chosen(old)
    count = len(snapshot)
    bytes_ = np.zeros(count, np.int64)
    np.add.at(bytes_, chosen.rows, (chosen.sizes * chosen.weights).astype(np.int64))
    blocks_ = np.zeros(count, np.int64)
    np.add.at(blocks_, chosen.rows, chosen.weights.astype(np.int64))
    oldest = np.full(count, -1, np.int64)
    np.maximum.at(oldest, chosen.rows, chosen.ages)
    variance = np.zeros(count)
    weights = chosen.weights.astype(np.float64)
    np.add.at(variance, chosen.rows, (weights - 1) * weights * chosen.sizes.astype(np.float64) ** 2)
    return replace(snapshot, live_bytes=bytes_, live_count=blocks_, oldest_ns=oldest, variance=variance,
                   blocks=chosen if keep else None)


def gained(earlier: Snapshot | None, later: Snapshot, of: Callable[[Snapshot], np.ndarray]) -> np.ndarray:
    """Return how much a figure of every row of later grew since earlier, i64 (len(later),); all of it where new."""
    now = of(later).astype(np.int64)
    if earlier is None or not len(earlier):
        return now
    # identity is sorted, as np.unique returns it.
    at = np.searchsorted(earlier.identity, later.identity)
    at = np.minimum(at, len(earlier) - 1)
    found = earlier.identity[at] == later.identity
    return now - np.where(found, of(earlier).astype(np.int64)[at], 0)
