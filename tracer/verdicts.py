"""Watches how every site develops, and puts together the facts that the verdicts rest on."""

from __future__ import annotations

import time
from typing import Protocol

import numpy as np

from tracer.collect.history import History
from tracer.collect.snapshot import Snapshot
from tracer.holdings import Sites
from tracer.judge import survival
from tracer.judge.growth import grow
from tracer.judge.reachability import Kind
from tracer.judge.verdict import Facts, Verdicts, judge
from tracer.records import LIFETIME_BUCKETS

SECOND = 1_000_000_000
#: Seconds between looks at first, and as a part of the time that has passed: as often as a series has room for.
FIRST_PERIOD, LATER_PERIOD = 0.5, 1 / 48


class HasSeries(Protocol):
    """What tells what every site holds now."""

    def series(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return of every site its key, u64 (n,), and what it holds: bytes and blocks, i64 (n,)."""


class Watch:
    """The series of one session."""

    def __init__(self, reader: HasSeries, start_ns: int) -> None:
        self._reader, self._start = reader, start_ns
        self._history = History()
        self.due = start_ns

    def look(self, *, now: bool = False) -> None:
        """Note what every site holds now, if that is due; now: in any case."""
        at = time.monotonic_ns()
        if at < self.due and not now:
            return
        elapsed = (at - self._start) / SECOND
        keys, held, count = self._reader.series()
        if len(keys):
            # Without: nothing is there yet, or no more, and how that went shall not change.
            self._history.add(elapsed, keys, held, count)
        self.due = at + int(max(FIRST_PERIOD, elapsed * LATER_PERIOD) * SECOND)

    def judge(self, sites: Sites, *, over: bool = False) -> Verdicts:
        """Return the verdicts on the sites of a report, whose snapshot has all its blocks.

        over: the one process of the trace has ended, so that its series are whole.
        """
        snapshot = sites.snapshot
        count, elapsed = len(snapshot), (snapshot.taken_ns - self._start) / SECOND
        first = np.maximum(snapshot.counters["first_ns"].astype(np.int64), self._start)
        age_s = np.maximum(snapshot.taken_ns - first, 0) / SECOND
        allocated = snapshot.counters["allocated_count"]
        blocks = snapshot.blocks
        ages = np.zeros((count, LIFETIME_BUCKETS), np.uint64)
        if blocks is not None:
            ages = survival.histogram(blocks.rows, blocks.ages.astype(np.uint64), blocks.weights, count)
        survived = survival.survive(snapshot.counters["lifetimes"], ages, allocated,
                                    snapshot.live_bytes / np.maximum(snapshot.live_count, 1), elapsed)
        kinds = sites.kinds
        lost = kinds[:, Kind.DEFINITELY] + kinds[:, Kind.INDIRECTLY]
        return judge(Facts(
            elapsed_s=elapsed,
            bytes=snapshot.live_bytes,
            count=snapshot.live_count,
            allocated=allocated,
            freed=snapshot.counters["freed_count"],
            age_s=age_s,
            oldest_s=np.maximum(snapshot.oldest_ns, 0) / SECOND,
            growth=grow(*self._series(snapshot)),
            survival=survived,
            scanned=kinds[:, :, 1].sum(axis=1),
            definitely=kinds[:, Kind.DEFINITELY, 1],
            lost=lost[:, 1],
            lost_bytes=lost[:, 0],
            possibly=kinds[:, Kind.POSSIBLY, 1],
            ended=np.zeros_like(sites.gone) if over else sites.gone,
            over=over,
        ))

    def _series(self, snapshot: Snapshot) -> tuple[np.ndarray, np.ndarray]:
        """Return the times, f64 (t,), and the live bytes of every row at each, f64 (n, t)."""
        members = snapshot.members
        keys = members.keys if members is not None else np.zeros(0, np.uint64)
        times, held, _ = self._history.series(keys)
        rows = np.zeros((len(snapshot), len(times)))
        if members is not None:
            np.add.at(rows, members.rows, held)
        return times, rows

