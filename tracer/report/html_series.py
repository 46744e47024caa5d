"""How sites developed, small enough for a page: fewer moments, and numbers as what they differ by."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

#: Moments that a curve is drawn from at most.
POINTS = 300
#: Sites whose curves are kept exactly, however many sites there are.
EXACT = 500
#: Compressed bytes that the curves of a report may take.
ROOM = 1_500_000
#: Rounded, a curve keeps so many bits of its highest value: no screen shows more.
_BITS = 8


class Series(Protocol):
    """How sites developed: times in s, f64 (t,); bytes and blocks of each site, i64 (n, t)."""

    @property
    def times(self) -> np.ndarray:
        """Return when each report was made, in seconds since the trace began."""

    @property
    def bytes(self) -> np.ndarray:
        """Return the outstanding bytes of each site at each time."""

    @property
    def count(self) -> np.ndarray:
        """Return the outstanding blocks of each site at each time."""


@dataclass(frozen=True, slots=True)
class Curves:
    """What the page draws. packed: the numbers of all sites (pack), compressed; facts: how to read them, for JSON."""

    packed: bytes
    facts: dict[str, Any]


def curves(series: Series, rows: np.ndarray, number: int) -> Curves:
    """Return the curves of some rows of a series, in their order; number: a moment that is kept in any case."""
    kept = chosen(len(series.times), POINTS, number)
    held = series.bytes[rows][:, kept] if len(rows) else np.zeros((0, len(kept)), np.int64)
    exact, rest = held[:EXACT], held[EXACT:]
    for points, rounded in ((POINTS, False), (POINTS, True), (POINTS // 3, True), (POINTS // 8, True)):
        fewer = chosen(len(kept), points, int(np.searchsorted(kept, number)))
        shifts = _shifts(rest) if rounded else np.zeros(len(rest), np.int64)
        (first, lengths), (others, more) = pack(exact), pack(rest[:, fewer] >> shifts[:, None])
        packed = zlib.compress(first + others)
        if len(packed) <= ROOM:
            break
    return Curves(packed, {
        "reports": len(series.times),
        "number": int(np.searchsorted(kept, number)),
        "times": np.round(series.times[kept], 3).tolist(),
        "bytes": series.bytes[:, kept].sum(0).tolist(),
        "count": series.count[:, kept].sum(0).tolist(),
        "exact": len(exact),
        "fewer": fewer.tolist(),
        "shifts": shifts.tolist(),
        "lengths": [*lengths.tolist(), *more.tolist()],
    })


def chosen(count: int, most: int, number: int) -> np.ndarray:
    """Return which of count moments are kept, at most most of them: evenly, the first, the last and one more."""
    if count <= most:
        return np.arange(count)
    even = np.linspace(0, count - 1, most).round().astype(np.int64)
    place = int(np.clip(np.searchsorted(even, number), 1, most - 2))
    if 0 < number < count - 1:
        even[place] = number
    return np.unique(even)


def pack(values: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return each row (n, t) of whole numbers as bytes, and how many bytes each row has.

    Each number is what it differs by from the one before it in its row: doubled, of negative ones one less than doubled
    without the sign, in groups of seven bits, the lowest first, with the eighth bit where more follow.
    """
    if not values.size:
        return b"", np.zeros(len(values), np.int64)
    steps = np.diff(values, axis=1, prepend=0)
    folded = ((steps << 1) ^ (steps >> 63)).astype(np.uint64)
    groups = [(folded >> np.uint64(7 * group)) & np.uint64(0x7F) for group in range(10)]
    lengths = np.ones(folded.shape, np.int64)
    for group in range(1, 10):
        lengths += folded >= np.uint64(1) << np.uint64(7 * group)
    out = np.zeros((*folded.shape, int(lengths.max())), np.uint8)
    for group in range(out.shape[2]):
        out[:, :, group] = groups[group] | np.where(lengths > group + 1, 0x80, 0).astype(np.uint64)
    used = np.arange(out.shape[2]) < lengths[:, :, None]
    return out[used].tobytes(), lengths.sum(1)


def _shifts(values: np.ndarray) -> np.ndarray:
    """Return by how many bits each row can be made smaller so that its highest value keeps some bits."""
    highest = values.max(1, initial=0).astype(float)
    shifts: np.ndarray = np.maximum(np.ceil(np.log2(highest + 1)) - _BITS, 0).astype(np.int64)
    return shifts
