"""Which bytes of a span are resident: from what smaps says of its mapping, or page by page from /proc/PID/pagemap."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from symbolizer.mappings import Mapping
from tracer.attach.resident_pages import PAGE

#: Reads /proc/PID/pagemap: (first page, number of pages) → 8 bytes a page, fewer where that is not allowed.
ReadPages = Callable[[int, int], bytes]
#: Pages of a mapping that are looked at one by one: 2 GB, 4 MB of pagemap. Of a larger one the average is taken.
MOST_PAGES = 1 << 19
#: Documentation/admin-guide/mm/pagemap.rst: bit 63 says that the page is in memory.
_PRESENT = np.uint64(1 << 63)


def resident_bytes(spans: np.ndarray, mappings: Sequence[Mapping], rss: np.ndarray, read: ReadPages) -> int:
    """Return how many bytes of spans, [start, end) u64 (n, 2), are resident; rss: i64 of each mapping, in bytes."""
    if not len(spans):
        return 0
    total = 0.0
    starts, ends = spans[:, 0], spans[:, 1]
    for mapping, resident in zip(mappings, rss.tolist(), strict=True):
        low, high = np.uint64(mapping.start), np.uint64(mapping.end)
        inside = (ends > low) & (starts < high)
        if resident and inside.any():
            total += _in_mapping(np.maximum(starts[inside], low), np.minimum(ends[inside], high), mapping, resident,
                                 read)
    return int(total)


def _in_mapping(starts: np.ndarray, ends: np.ndarray, mapping: Mapping, resident: int, read: ReadPages) -> float:
    size = mapping.end - mapping.start
    wanted = float((ends - starts).sum())
    if resident >= size:
        return wanted
    first = int(starts.min()) // PAGE
    pages = -(-int(ends.max()) // PAGE) - first
    data = read(first, pages) if pages <= MOST_PAGES else b""
    if len(data) < pages * 8:
        # A mapping's average is wrong where its unused part is less resident than the rest, but never out of bounds.
        return min(wanted * resident / size, resident)
    present = (np.frombuffer(data, np.uint64, pages) & _PRESENT) != 0
    before = np.concatenate([[0], np.cumsum(present)])
    return float((_up_to(ends, first, before, present) - _up_to(starts, first, before, present)).sum())


def _up_to(addresses: np.ndarray, first: int, before: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Return the resident bytes between the first page and each address."""
    offsets = (addresses - np.uint64(first * PAGE)).astype(np.int64)
    pages, rest = offsets // PAGE, offsets % PAGE
    return before[pages] * PAGE + np.where(present[np.minimum(pages, len(present) - 1)], rest, 0)
