"""One series per site: what it held at the times of earlier reports."""

from __future__ import annotations

import numpy as np

#: Points of a series. Enough for a trend; more would cost the judgement of each report as much as they add.
MAX_POINTS = 64
#: Columns made at first; they double when they are used up.
FIRST_COLUMNS = 256


class History:
    """Live bytes and blocks of every site over the whole trace, at most MAX_POINTS points, about evenly spaced.

    When all are used every other point is dropped, and from then on of twice as many reports one is kept. The latest
    report is always the last point. Sites are known by their identity; those that hold nothing in any point
    are dropped when points or columns are used up. Memory: 1 KB a site, twice that at most.
    """

    __slots__ = ("_bytes", "_columns", "_counts", "_identity", "_kept", "_seen", "_stride", "_times", "_used")

    def __init__(self) -> None:
        self._times = np.zeros(MAX_POINTS)
        # A row is a point, so that adding one writes to one place; a column is a site.
        self._bytes, self._counts = np.zeros((MAX_POINTS, FIRST_COLUMNS)), np.zeros((MAX_POINTS, FIRST_COLUMNS))
        # Sorted identities, and the column of each.
        self._identity, self._columns = np.empty(0, np.uint64), np.empty(0, np.int64)
        self._kept = 0  # points that stay; one more is the latest, if that is none of them
        self._used = 0
        self._seen = 0
        self._stride = 1

    def __len__(self) -> int:
        """Return how many sites are known."""
        return len(self._identity)

    def add(self, time_s: float, identity: np.ndarray, live_bytes: np.ndarray, live_count: np.ndarray) -> None:
        """Add what each site holds at a time, later than those before; known sites that are not named hold nothing.

        identity: u64 (n,), each once, in any order. live_bytes, live_count: i64 (n,).
        """
        if self._kept == MAX_POINTS:
            self._thin()
        point = self._kept
        columns = self._columns_of(np.asarray(identity, np.uint64))
        self._times[point] = time_s
        self._bytes[point], self._counts[point] = 0.0, 0.0
        self._bytes[point, columns], self._counts[point, columns] = live_bytes, live_count
        self._used = point + 1
        if self._seen % self._stride == 0:
            self._kept = self._used
        self._seen += 1

    def series(self, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return times f64 (t,), and for identity u64 (n,) bytes f64 (n, t) and counts f64 (n, t); 0 where unknown."""
        identity = np.asarray(identity, np.uint64)
        at, known = self._find(identity)
        found = self._columns[at[known]]
        made = []
        for table in (self._bytes, self._counts):
            rows = np.zeros((len(identity), self._used))
            rows[known] = table[: self._used, found].T
            made.append(rows)
        return self._times[: self._used].copy(), made[0], made[1]

    def forget(self, identity: np.ndarray) -> None:
        """Drop the series of these sites, u64 (n,); what is not known is passed over."""
        at, known = self._find(np.asarray(identity, np.uint64))
        stays = np.ones(len(self._identity), bool)
        stays[at[known]] = False
        if not stays.all():
            self._keep(stays)

    def _find(self, identity: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the place of each among the known, and which of them are known."""
        if not len(self._identity):
            return np.zeros(len(identity), np.int64), np.zeros(len(identity), bool)
        at = np.minimum(np.searchsorted(self._identity, identity), len(self._identity) - 1)
        return at, self._identity[at] == identity

    def _columns_of(self, identity: np.ndarray) -> np.ndarray:
        """Return the column of each site, with new ones for those that are new."""
        at, known = self._find(identity)
        if not known.all():
            new = np.sort(identity[~known])
            self._make_room(len(new))
            first = len(self._identity)
            places = np.searchsorted(self._identity, new)
            self._identity = np.insert(self._identity, places, new)
            self._columns = np.insert(self._columns, places, np.arange(first, first + len(new)))
            at, _ = self._find(identity)
        return np.asarray(self._columns[at])

    def _make_room(self, new: int) -> None:
        if len(self._identity) + new <= self._bytes.shape[1]:
            return
        self._sweep()
        room, needed = self._bytes.shape[1], len(self._identity) + new
        # With half of it free again, the next sweep is not due at once.
        if needed > room // 2:
            more = ((0, 0), (0, max(2 * needed, FIRST_COLUMNS) - room))
            self._bytes, self._counts = np.pad(self._bytes, more), np.pad(self._counts, more)

    def _sweep(self) -> None:
        """Drop the sites that hold nothing in any point."""
        columns = (self._bytes[: self._used] != 0).any(axis=0) | (self._counts[: self._used] != 0).any(axis=0)
        holds = columns[self._columns]
        if not holds.all():
            self._keep(holds)

    def _thin(self) -> None:
        """Drop every other point, and the sites that hold nothing in those left."""
        half = MAX_POINTS // 2
        for table in (self._times, self._bytes, self._counts):
            table[:half] = table[::2].copy()
        self._kept = self._used = half
        self._stride *= 2
        self._sweep()

    def _keep(self, stays: np.ndarray) -> None:
        """Keep these of the known sites, bool (n,), in columns that follow each other."""
        columns = self._columns[stays]
        for name in ("_bytes", "_counts"):
            table = np.zeros((MAX_POINTS, max(FIRST_COLUMNS, len(columns))))
            table[: self._used, : len(columns)] = getattr(self, name)[: self._used, columns]
            setattr(self, name, table)
        self._identity, self._columns = self._identity[stays], np.arange(len(columns))
