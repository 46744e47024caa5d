"""Columns of figures as a recording keeps them: what differs from what was to be expected, in few bytes.

A site that allocates blocks of one size has, from one moment to the next, two free figures: how often it allocated, and
how often it freed. The others follow from them, or nearly; what is stored is by how much they do not. How often it will
allocate is expected from how often it did. All arithmetic is of integers modulo 2**64, so that nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np

from tracer.ages import coarse, fine

#: The most bytes of a figure.
_WIDEST = 8
#: In the column of births: as it was; not known; others are the code of an age, higher by this.
_SAME, _UNKNOWN, _FIRST = 0, 1, 2
#: Of a share: so many bits behind the point.
_SHARE_BITS = 16


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """What is known of n sites at one moment, each i64 (n,).

    born_ms: when the oldest living block was allocated, in ms since the trace began, -1 where that is not known; of
    a site that holds nothing, as it was. verdict: a place in site_table.VERDICTS. expected_loss: in bytes/s, as
    ages.coarse() has it.
    """

    allocated_count: np.ndarray
    freed_count: np.ndarray
    count: np.ndarray
    allocated_bytes: np.ndarray
    bytes: np.ndarray
    born_ms: np.ndarray
    verdict: np.ndarray
    expected_loss: np.ndarray

    @classmethod
    def zero(cls, sites: int) -> Figures:
        """Return the figures of sites that nothing is known of."""
        return cls(*(np.full(sites, -1 if name == "born_ms" else 0, np.int64) for name in COLUMNS))

    def extended(self, sites: int) -> Figures:
        """Return these with nothing known of the sites that have come."""
        return self if sites == len(self.count) else Figures(*(
            np.concatenate(pair) for pair in zip(self.columns(), Figures.zero(sites - len(self.count)).columns(),
                                                 strict=True)))

    def columns(self) -> list[np.ndarray]:
        """Return all columns, in their order."""
        return [getattr(self, name) for name in COLUMNS]


#: The names of the columns, in the order in which they are stored.
COLUMNS = tuple(field.name for field in fields(Figures))


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """Figures, and what is expected to come: the latest allocations i64 (n,), and four times their usual number."""

    figures: Figures
    latest: np.ndarray
    usual: np.ndarray

    @classmethod
    def start(cls) -> State:
        """Return the state before the first moment."""
        return cls(Figures.zero(0), np.zeros(0, np.int64), np.zeros(0, np.int64))

    def extended(self, sites: int) -> State:
        """Return this with room for the sites that have come."""
        return State(self.figures.extended(sites), _longer(self.latest, sites), _longer(self.usual, sites))

    def encode(self, now: Figures, clock_ms: int) -> tuple[bytes, State]:
        """Return what leads from here to the figures of a moment, which has all sites of this; and the state then.

        clock_ms: when ages were taken, in ms since the trace began. The births in the state are those that will be
        decoded: those that have changed are kept coarsely.
        """
        before = self.extended(len(now.count))
        was = before.figures.born_ms
        ages = np.where(now.born_ms < 0, _UNKNOWN, coarse(np.maximum(clock_ms - now.born_ms, 0)) + _FIRST)
        found = {"born_ms": np.where(now.born_ms == was, _SAME, ages)}

        def difference(name: str, expected: np.ndarray | int) -> np.ndarray:
            change: np.ndarray = getattr(now, name) - getattr(before.figures, name)
            found[name] = change - expected
            return change

        before._walk(difference)
        kept = replace(now, born_ms=_born(was, found["born_ms"], clock_ms))
        return pack([found[name] for name in COLUMNS]), before._after(kept)

    def decode(self, content: bytes, sites: int, clock_ms: int) -> State:
        """Return the state that encode() did. Raises ValueError where it cannot have been stored so."""
        before = self.extended(sites)
        stored = dict(zip(COLUMNS, unpack(content, len(COLUMNS), sites), strict=True))
        now = {"born_ms": _born(before.figures.born_ms, stored["born_ms"], clock_ms)}

        def change(name: str, expected: np.ndarray | int) -> np.ndarray:
            by = stored[name] + expected
            now[name] = getattr(before.figures, name) + by
            return by

        before._walk(change)
        return before._after(Figures(**now))

    def _walk(self, change: Callable[[str, np.ndarray | int], np.ndarray]) -> None:
        """Go through the columns; change: of a column and by how much it is expected to change, how much it does."""
        was = self.figures
        # One that did not allocate will mostly not do so now.
        allocated = change("allocated_count", np.where(self.latest == 0, 0, self.usual >> 2))
        share = (was.freed_count << _SHARE_BITS) // np.maximum(was.allocated_count, 1)
        freed = change("freed_count", (allocated * share) >> _SHARE_BITS)
        count = change("count", allocated - freed)
        size = was.allocated_bytes // np.maximum(was.allocated_count, 1)
        allocated_bytes = change("allocated_bytes", allocated * size)
        held = np.where(was.count > 0, was.bytes // np.maximum(was.count, 1), size)
        change("bytes", np.where(freed == 0, allocated_bytes, count * held))
        for name in ("verdict", "expected_loss"):
            change(name, 0)

    def _after(self, now: Figures) -> State:
        latest = now.allocated_count - self.figures.allocated_count
        return replace(self, figures=now, latest=latest, usual=self.usual + latest - (self.usual >> 2))


def _born(before: np.ndarray, ages: np.ndarray, clock_ms: int) -> np.ndarray:
    """Return when the oldest blocks were allocated, from codes of their ages."""
    born = np.maximum(clock_ms - fine(ages - _FIRST), 0)
    return np.where(ages == _SAME, before, np.where(ages == _UNKNOWN, -1, born))


def pack(columns: list[np.ndarray]) -> bytes:
    """Return columns, i64 (n,), one after the other: how many bytes a figure of each has, then of each all low bytes,
    all next ones, and so on. Each column has as few as its largest figure needs, 0 to 8."""
    widths, planes = bytearray(), []
    for column in columns:
        # Small negative figures become small, too: 0, -1, 1, -2 are 0, 1, 2, 3.
        folded = ((column << 1) ^ (column >> 63)).view(np.uint64)
        width = (int(folded.max(initial=0)).bit_length() + 7) // 8
        widths.append(width)
        planes += [plane.tobytes() for plane in folded.astype("<u8").view(np.uint8).reshape(-1, _WIDEST).T[:width]]
    return bytes(widths) + b"".join(planes)


def unpack(content: bytes, columns: int, sites: int) -> list[np.ndarray]:
    """Return the columns, each i64 (sites,), that pack() was given. Raises ValueError."""
    widths = list(content[:columns])
    if len(widths) < columns or max(widths) > _WIDEST or len(content) != columns + sum(widths) * sites:
        raise ValueError("its columns have another length than they should")
    found, at = [], columns
    for width in widths:
        wide = np.zeros((sites, _WIDEST), np.uint8)
        wide[:, :width] = np.frombuffer(content, np.uint8, width * sites, at).reshape(width, sites).T
        folded = wide.view("<u8").reshape(sites).astype(np.uint64, copy=False)
        found.append((folded >> np.uint64(1)).view(np.int64) ^ -(folded & np.uint64(1)).view(np.int64))
        at += width * sites
    return found


def _longer(column: np.ndarray, sites: int) -> np.ndarray:
    return column if sites == len(column) else np.concatenate([column, np.zeros(sites - len(column), np.int64)])
