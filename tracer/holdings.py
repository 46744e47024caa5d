"""What every process of a trace holds, by site: those that run as of now, those that have ended as of their end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from symbolizer.frame import Frame
from tracer import records
from tracer.collect.snapshot import NOT_SCANNED, Members, Snapshot, merge_groups
from tracer.judge.reachability import Kind
from tracer.naming import BATCH, StackNamer
from tracer.report.model import Totals
from tracer.stack_pool import Mapped, StackPool

#: How a block may be reached.
KINDS = len(Kind)
#: What is left of a struct stack once the stack is in the pool, whose number is the identity then.
POOLED = np.dtype([("depth", "u4")])


@dataclass(frozen=True, slots=True)
class Shares:
    """What each process holds at each site, all arrays (n,): process, row of the site, live bytes, live blocks."""

    uid: np.ndarray
    row: np.ndarray
    bytes: np.ndarray
    count: np.ndarray


@dataclass(frozen=True, slots=True)
class Sites:
    """A snapshot with one row per site; stacks: how many different stacks each row has, i64 (n,).

    frames names the frames of a row, innermost first, inlined ones included. totals: of each process, by its number.
    kinds: i64 (n, 4, 2), bytes and blocks of each row by how they are reached (judge.reachability.Kind), as far as
    somebody looked. gone: i64 (n,), live blocks of processes that have ended. placed: addresses, u64 (m,), and rows,
    i64 (m,), of blocks: of processes that run, and of those that were looked at when they ended.
    """

    snapshot: Snapshot
    stacks: np.ndarray
    frames: Callable[[int], tuple[Frame, ...]]
    shares: Shares
    totals: dict[int, Totals]
    kinds: np.ndarray
    gone: np.ndarray
    placed: tuple[np.ndarray, np.ndarray] = (np.zeros(0, np.uint64), np.zeros(0, np.int64))


@dataclass(frozen=True, slots=True)
class _Ended:
    uid: int
    numbers: np.ndarray
    bytes: np.ndarray
    count: np.ndarray
    totals: Totals


class Holdings:
    """All sites of all processes of one session."""

    def __init__(self, pool: StackPool, namer: StackNamer, tracee_of: Callable[[int], Mapped]) -> None:
        """tracee_of: the process with an image number."""
        self._pool = pool
        self._namer = namer
        self._tracee_of = tracee_of
        self._ended: list[_Ended] = []
        self._running = 0
        #: Of all that ended together, by stack.
        self._sums: dict[str, np.ndarray] = {}
        self._kinds = np.zeros((0, KINDS, 2), np.int64)
        #: Blocks of those that were looked at when they ended: addresses and stacks.
        self._places: list[tuple[np.ndarray, np.ndarray]] = []
        #: Sites of those that have ended: keys and stacks.
        self._members: list[tuple[np.ndarray, np.ndarray]] = []

    def end(self, uid: int, last: Snapshot) -> None:
        """Keep the last snapshot of a process that is ending."""
        numbers = self._pool.intern_last(last.stacks)
        self._add_up(numbers, last)
        if last.members is not None:
            self._members.append((last.members.keys, numbers[last.members.rows]))
        if last.blocks is not None:
            self._places.append((last.blocks.addresses, numbers[last.blocks.rows]))
        live = last.live_count > 0
        self._ended.append(_Ended(uid, numbers[live], last.live_bytes[live], last.live_count[live], totals_of(last)))

    def forget_ended(self) -> set[int]:
        """Drop what ended processes held; return their numbers."""
        gone = {each.uid for each in self._ended}
        self._ended.clear()
        self._sums.clear()
        self._places.clear()
        self._members.clear()
        self._trim(self._running)
        return gone

    def _trim(self, running: int) -> None:
        """Begin with a new pool where most of it has not been seen for long; running: stacks of what runs."""
        self._running = running
        if len(self._pool) > 2 * running + BATCH:
            self._pool.clear()
            self._namer.clear()

    def _add_up(self, numbers: np.ndarray, last: Snapshot) -> None:
        sums = self._sums
        if not sums:
            sums |= {"counters": np.zeros(0, records.SITE), "live_bytes": np.zeros(0, np.int64),
                     "live_count": np.zeros(0, np.int64), "oldest_ns": np.zeros(0, np.int64), "variance": np.zeros(0)}
            self._kinds = np.zeros((0, KINDS, 2), np.int64)
        short = len(self._pool) - len(sums["live_bytes"])
        if short > 0:
            for name, array in sums.items():
                more = np.zeros(short + len(array) // 2, array.dtype)
                sums[name] = np.concatenate([array, more - 1 if name == "oldest_ns" else more])
            more = np.zeros((short + len(self._kinds) // 2, KINDS, 2), np.int64)
            self._kinds = np.concatenate([self._kinds, more])
        np.add.at(self._kinds, numbers, kinds_of(last))
        for name in records.SITE.names or ():
            if name != "first_ns":
                np.add.at(sums["counters"][name], numbers, last.counters[name])
        for name in ("live_bytes", "live_count", "variance"):
            np.add.at(sums[name], numbers, getattr(last, name))
        np.maximum.at(sums["oldest_ns"], numbers, last.oldest_ns)

    def sites(self, snapshot: Snapshot) -> Sites:
        """Return the sites of a snapshot of what runs, which has one row per stack, and of what has ended."""
        of_image = {image: self._tracee_of(image).uid for image in np.unique(snapshot.stacks["image"]).tolist()}
        uids = np.array([of_image[image] for image in snapshot.stacks["image"].tolist()], np.int64)
        if not self._ended:
            self._trim(len(snapshot))
        numbers = self._pool.intern(snapshot.identity, snapshot.stacks)
        both = self._with_ended(snapshot, numbers)
        groups = self._namer.groups(both.identity)
        merged, largest = merge_groups(both, groups)
        rows = np.searchsorted(merged.identity, groups)
        kinds, gone = np.zeros((len(merged), KINDS, 2), np.int64), np.zeros(len(merged), np.int64)
        np.add.at(kinds, rows[: len(snapshot)], kinds_of(snapshot))
        if self._ended:
            used = np.flatnonzero(self._sums["counters"]["allocated_count"])
            np.add.at(kinds, rows[len(snapshot) :], self._kinds[used])
            np.add.at(gone, rows[len(snapshot) :], self._sums["live_count"][used])
        shown = both.identity[largest]
        every, first = np.unique(both.identity, return_index=True)
        stacks = np.unique(groups[first], return_counts=True)[1]
        group_of = dict(zip(every.tolist(), groups[first].tolist(), strict=True))
        merged = replace(merged, members=self._all_members(merged, group_of))
        return Sites(
            merged, stacks, lambda row: self._namer.frames(int(shown[row])),
            self._shares(snapshot, uids, merged.identity, group_of, numbers),
            {uid: totals_of(snapshot, uids == uid) for uid in np.unique(uids).tolist()}
            | {each.uid: each.totals for each in self._ended},
            kinds, gone, self._placed(merged, group_of))

    def _all_members(self, merged: Snapshot, group_of: dict[int, int]) -> Members:
        """Return the members of what runs and of what has ended."""
        keys = [merged.members.keys] if merged.members is not None else []
        rows = [merged.members.rows] if merged.members is not None else []
        for some, numbers in self._members:
            keys.append(some)
            rows.append(_rows(merged, numbers, group_of))
        if not keys:
            return Members(np.zeros(0, np.uint64), np.zeros(0, np.int64))
        return Members(np.concatenate(keys), np.concatenate(rows))

    def _placed(self, merged: Snapshot, group_of: dict[int, int]) -> tuple[np.ndarray, np.ndarray]:
        blocks = merged.blocks
        if blocks is not None and not self._places:
            # As they are: of a million, a copy is 16 MB in each report.
            return blocks.addresses, blocks.rows
        addresses = [blocks.addresses] if blocks is not None else []
        rows = [blocks.rows] if blocks is not None else []
        for where, numbers in self._places:
            addresses.append(where)
            rows.append(_rows(merged, numbers, group_of))
        if not addresses:
            return np.zeros(0, np.uint64), np.zeros(0, np.int64)
        return np.concatenate(addresses), np.concatenate(rows)

    def _with_ended(self, snapshot: Snapshot, numbers: np.ndarray) -> Snapshot:
        """Return the snapshot with pooled stacks, and a row more for each stack of those that have ended."""
        stacks = np.zeros(len(snapshot), POOLED)
        stacks["depth"] = snapshot.stacks["depth"]
        if not self._ended:
            return replace(snapshot, stacks=stacks, identity=numbers.astype(np.uint64))
        used = np.flatnonzero(self._sums["counters"]["allocated_count"])
        more = np.zeros(len(used), POOLED)
        more["depth"] = [len(self._pool.stacks[number].places) for number in used.tolist()]
        both = {name: np.concatenate([getattr(snapshot, name), sums[used]]) for name, sums in self._sums.items()}
        return replace(
            snapshot, stacks=np.concatenate([stacks, more]),
            identity=np.concatenate([numbers, used]).astype(np.uint64), counters=both["counters"],
            live_bytes=both["live_bytes"], live_count=both["live_count"], oldest_ns=both["oldest_ns"],
            variance=both["variance"])

    def _shares(self, snapshot: Snapshot, uids: np.ndarray, identity: np.ndarray, group_of: dict[int, int],
                numbers: np.ndarray) -> Shares:
        """Return who holds what; identity: of the sites, u64, sorted."""
        live = np.flatnonzero(snapshot.live_count > 0)
        uid = np.concatenate([uids[live], *(np.full(len(each.numbers), each.uid) for each in self._ended)])
        number = np.concatenate([numbers[live], *(each.numbers for each in self._ended)])
        sizes = np.concatenate([snapshot.live_bytes[live], *(each.bytes for each in self._ended)])
        counts = np.concatenate([snapshot.live_count[live], *(each.count for each in self._ended)])
        groups = np.array([group_of[each] for each in number.tolist()], np.uint64)
        row = np.searchsorted(identity, groups)
        pairs, at = np.unique(np.stack([uid, row]), axis=1, return_inverse=True)
        at = at.reshape(-1)
        total_bytes, total_count = np.zeros(pairs.shape[1], np.int64), np.zeros(pairs.shape[1], np.int64)
        np.add.at(total_bytes, at, sizes)
        np.add.at(total_count, at, counts)
        return Shares(pairs[0], pairs[1], total_bytes, total_count)


def _rows(merged: Snapshot, numbers: np.ndarray, group_of: dict[int, int]) -> np.ndarray:
    """Return the rows of stacks by their numbers in the pool, i64 (n,)."""
    groups = np.array([group_of[number] for number in numbers.tolist()], np.uint64)
    return np.searchsorted(merged.identity, groups)


def kinds_of(snapshot: Snapshot) -> np.ndarray:
    """Return bytes and blocks of each row by how they are reached, i64 (n, KINDS, 2); 0 where nobody looked."""
    made = np.zeros((len(snapshot), KINDS, 2), np.int64)
    blocks = snapshot.blocks
    if blocks is None or blocks.kinds is None:
        return made
    seen = np.flatnonzero(blocks.kinds != NOT_SCANNED)
    sizes, weights, kinds = blocks.sizes[seen], blocks.weights[seen], blocks.kinds[seen].astype(np.int64)
    for column, figures in enumerate((sizes * weights, weights)):
        np.add.at(made[:, :, column], (blocks.rows[seen], kinds), figures.astype(np.int64))
    return made


def totals_of(snapshot: Snapshot, rows: np.ndarray | slice = slice(None)) -> Totals:
    """Return the sums over rows of a snapshot."""
    counters = snapshot.counters[rows]
    return Totals(
        live_bytes=int(snapshot.live_bytes[rows].sum()),
        live_count=int(snapshot.live_count[rows].sum()),
        allocated_bytes=int(counters["allocated_bytes"].sum()),
        allocated_count=int(counters["allocated_count"].sum()),
        freed_count=int(counters["freed_count"].sum()),
    )
