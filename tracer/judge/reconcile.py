"""Where the memory went: resident memory as a sum of parts, which of them grows, and when a limit is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tracer.judge.trend import theil_sen

#: Header of a glibc chunk, what its size is a multiple of, and the smallest there is, in bytes (malloc/malloc.c).
_HEADER, _ALIGNMENT, _SMALLEST = 8, 16, 32
#: Moments a series keeps; a full one is thinned out to every second, so that it spans the whole trace.
MOST_MOMENTS = 60
#: A trend is judged from so many moments on, so that three equal steps by chance (1 in 24 orders) are the least.
FEWEST_MOMENTS = 4
#: Of all pairs of moments, so many rise in what is said to grow: a sawtooth has about half.
_RISING = 0.75
#: The later half of the series has to gain this part of what the slope says.
_LATER = 0.3
#: Growth below this is noise: pages come and go by tens. Bytes, and as a share of resident memory.
_LEAST_GAIN, _LEAST_SHARE = 256 << 10, 0.005
#: A part explains growth if it makes up half of it.
_MAJOR = 0.5
#: The heap is called fragmented if this share of it is free between blocks, and it is more than these bytes.
_FRAGMENTED, _FRAGMENTED_BYTES = 0.4, 4 << 20


class Part(StrEnum):
    """What resident memory is made of."""

    OUTSTANDING = "outstanding"
    BEFORE = "before"
    """In use, but allocated before the trace began, or otherwise not seen by it."""
    OVERHEAD = "overhead"
    FREE = "free"
    """Free chunks between blocks that are in use."""
    TOP = "top"
    """The unused end of the heap."""
    ALLOCATOR = "allocator"
    """All that is anonymous, where it cannot be told what an allocator does with it."""
    STACKS = "stacks"
    DATA = "data"
    ANONYMOUS = "anonymous"
    FILES = "files"
    SHARED = "shared"
    REMAINDER = "remainder"


@dataclass(frozen=True, slots=True)
class Resident:
    """Resident bytes of one moment by the kind of their mapping. heap: those that the allocator is known to hold."""

    rss: int
    heap: int
    stacks: int
    data: int
    anonymous: int
    files: int
    shared: int


@dataclass(frozen=True, slots=True)
class Heap:
    """What an allocator says of itself, in bytes. lent: held from the system and not free, resident or not.

    free, top: resident bytes of free chunks, and of the unused end. complete: all free chunks were counted.
    """

    lent: int
    free: int
    top: int
    complete: bool


@dataclass(frozen=True, slots=True)
class Held:
    """Traced blocks that live: bytes as asked for, their number, and the bytes the allocator needs for them."""

    bytes: int
    count: int
    chunk_bytes: int


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one moment, none negative; with the remainder they add up to rss.

    absent: bytes of outstanding blocks that are not resident: never touched, or swapped out. complete: BEFORE is in
    use; where not, some of it may be free.
    """

    rss: int
    sizes: tuple[tuple[Part, int], ...]
    absent: int
    complete: bool

    def of(self, part: Part) -> int:
        """Return the bytes of a part, 0 if it has none."""
        return dict(self.sizes).get(part, 0)


@dataclass(frozen=True, slots=True)
class Series:
    """The parts over time: seconds, and for each moment the parts' bytes in the order of Part, rss and usage."""

    times: tuple[float, ...] = ()
    rows: tuple[tuple[int, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Trend:
    """How a figure changes: bytes per second (Theil-Sen: the median over all pairs), and whether it surely grows."""

    slope: float
    grows: bool


class Cause(StrEnum):
    """What is to be said of a process's memory."""

    UNDECIDED = "undecided"
    STEADY = "steady"
    FRAGMENTED = "fragmented"
    """It does not grow, but much of the heap is free between blocks."""
    GROWS_BY_BLOCKS = "grows by blocks"
    GROWS_BY_FREE = "grows by free memory"
    """What the allocator holds grows, and blocks that are held do not."""
    GROWS_ELSEWHERE = "grows elsewhere"


@dataclass(frozen=True, slots=True)
class Finding:
    """The cause, the part that it is about, and by how much: bytes per second where it grows, else bytes."""

    cause: Cause
    part: Part | None = None
    amount: float = 0.0


def chunk_bytes(live_bytes: np.ndarray, live_count: np.ndarray) -> int:
    """Return what glibc needs for the blocks of sites, both i64 (n,): exact where a site's blocks are of one size."""
    some = live_count > 0
    if not some.any():
        return 0
    counts = live_count[some]
    average = np.maximum(-(-live_bytes[some] // counts), 0)
    chunks = np.maximum((average + _HEADER + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT, _SMALLEST)
    return int((chunks * counts).sum())


def reconcile(resident: Resident, heap: Heap | None, held: Held) -> Parts:
    """Return resident memory as parts; heap is None where the allocator's books cannot be read from outside.

    Which blocks are resident is not known one by one: of what the allocator lent, each part is taken to be so to the
    same degree. Outstanding bytes beyond what it lent must lie in other mappings.
    """
    wanted = max(held.bytes, 0)
    if heap is None:
        pool = resident.heap + resident.anonymous
        outstanding = min(wanted, pool)
        rest = {Part.OUTSTANDING: outstanding, Part.ALLOCATOR: pool - outstanding}
    else:
        free = min(heap.free, resident.heap)
        top = min(heap.top, resident.heap - free)
        used = resident.heap - free - top
        beyond = min(max(wanted - heap.lent, 0), resident.anonymous)
        chunks = max(held.chunk_bytes, wanted) - beyond
        share = used / max(heap.lent, chunks, used, 1)
        inside = int((wanted - beyond) * share)
        overhead = min(int(max(held.chunk_bytes - wanted, 0) * share), used - inside)
        outstanding = inside + beyond
        rest = {Part.OUTSTANDING: outstanding, Part.BEFORE: used - inside - overhead, Part.OVERHEAD: overhead,
                Part.FREE: free, Part.TOP: top, Part.ANONYMOUS: resident.anonymous - beyond}
    sizes = rest | {Part.STACKS: resident.stacks, Part.DATA: resident.data, Part.FILES: resident.files,
                    Part.SHARED: resident.shared}
    sizes[Part.REMAINDER] = max(resident.rss - sum(sizes.values()), 0)
    return Parts(resident.rss, tuple((part, sizes[part]) for part in Part if part in sizes), wanted - outstanding,
                 heap is None or heap.complete)


def extend(series: Series, time: float, parts: Parts, usage: int = 0) -> Series:
    """Return the series with one more moment, if it is a later one.

    time: seconds; usage: bytes that the control group counts.
    """
    if series.times and time <= series.times[-1]:
        return series
    row = (*(parts.of(part) for part in Part), parts.rss, usage)
    times, rows = (*series.times, time), (*series.rows, row)
    return Series(times, rows) if len(times) <= MOST_MOMENTS else Series(times[::2], rows[::2])


def trend_of(series: Series, *parts: Part) -> Trend:
    """Return how the sum of these parts changes."""
    return trend(series.times, [sum(row[list(Part).index(part)] for part in parts) for row in series.rows],
                 _least_gain(series))


def trend_of_rss(series: Series) -> Trend:
    """Return how resident memory changes."""
    return trend(series.times, [row[-2] for row in series.rows], _least_gain(series))


def trend(times: Sequence[float], values: Sequence[int], least: float = _LEAST_GAIN) -> Trend:
    """Return how values change over times in seconds, which rise; what gains less than least in all does not grow."""
    count = len(times)
    if count < 2:
        return Trend(0.0, grows=False)
    time, value = np.array(times, float), np.array(values, float)
    slope = float(theil_sen(time, value[:, None], np.zeros(1, np.int64))[0][0])
    first, second = np.triu_indices(count, 1)
    rising = float((value[second] > value[first]).mean())
    # What grew at first and then stayed has a slope as well; of what grows, the later half does its share.
    middle = count // 2
    later = value[-1] - value[middle] >= _LATER * slope * (time[-1] - time[middle])
    grows = count >= FEWEST_MOMENTS and rising >= _RISING and later and slope * (time[-1] - time[0]) >= max(least, 1)
    return Trend(slope, bool(grows))


def find_cause(series: Series, parts: Parts) -> Finding:
    """Return what is to be said: why resident memory grows, or that it does not."""
    total = trend_of_rss(series)
    if not total.grows:
        free, heap = parts.of(Part.FREE), sum(parts.of(part) for part in _HEAP)
        if free >= _FRAGMENTED_BYTES and free >= _FRAGMENTED * heap:
            return Finding(Cause.FRAGMENTED, Part.FREE, free)
        return Finding(Cause.STEADY if len(series.times) >= FEWEST_MOMENTS else Cause.UNDECIDED)
    held, unused = trend_of(series, Part.OUTSTANDING, Part.OVERHEAD), trend_of(series, *_UNUSED)
    if held.grows and held.slope >= _MAJOR * total.slope:
        return Finding(Cause.GROWS_BY_BLOCKS, Part.OUTSTANDING, held.slope)
    if unused.grows and unused.slope >= _MAJOR * total.slope:
        return Finding(Cause.GROWS_BY_FREE, _fastest(series, _UNUSED), unused.slope)
    part = _fastest(series, tuple(Part))
    return Finding(Cause.GROWS_ELSEWHERE, part, trend_of(series, part).slope)


def time_left(series: Series, limit: int) -> tuple[float, float] | None:
    """Return the seconds until the control group's usage reaches a limit, and its slope; None if it does not grow."""
    if not series.rows:
        return None
    usage = [row[-1] for row in series.rows]
    found = trend(series.times, usage)
    return (max(limit - usage[-1], 0) / found.slope, found.slope) if found.grows else None


#: What the allocator holds, and what of it no traced block needs: after the start, BEFORE can only grow by what is
#: free and was not counted.
_HEAP = (Part.OUTSTANDING, Part.BEFORE, Part.OVERHEAD, Part.FREE, Part.TOP)
_UNUSED = (Part.FREE, Part.TOP, Part.BEFORE, Part.ALLOCATOR)


def _fastest(series: Series, parts: Sequence[Part]) -> Part:
    return max(parts, key=lambda part: trend_of(series, part).slope)


def _least_gain(series: Series) -> float:
    return max(_LEAST_GAIN, _LEAST_SHARE * series.rows[-1][-2]) if series.rows else _LEAST_GAIN
