"""Which bytes of spans are resident."""

from __future__ import annotations

import numpy as np

from symbolizer.mappings import Mapping, parse_maps
from tracer.attach.residency import resident_bytes
from tracer.attach.resident_pages import PAGE

MAPPING: tuple[Mapping, ...] = parse_maps(b"10000-20000 rw-p 00000000 00:00 0 [heap]\n")


def unreadable(first: int, count: int) -> bytes:
    raise AssertionError("pages are read without need")


SPANS = np.array([[0x10800, 0x12800], [0x13000, 0x14000]], np.uint64)


def pages(first: int, count: int) -> bytes:
    """Every page but the third of the mapping is in memory."""
    return b"".join((0 if page == 0x12 else 1 << 63).to_bytes(8, "little") for page in range(first, first + count))


def test_absent_pages_are_left_out() -> None:
    """Of a span, what lies on a page that is not in memory does not count."""
    assert resident_bytes(SPANS, MAPPING, np.array([15 * PAGE]), pages) == 0x800 + 0x1000 + 0x1000


def test_a_full_mapping_needs_no_look() -> None:
    """Where all of a mapping is resident, pages are not read."""
    assert resident_bytes(SPANS, MAPPING, np.array([16 * PAGE]), unreadable) == 0x3000


def test_without_pages_the_average_is_taken() -> None:
    """Where pages may not be read, a span is as resident as its mapping."""
    assert resident_bytes(SPANS, MAPPING, np.array([8 * PAGE]), lambda *_: b"") == 0x1800
    assert resident_bytes(np.empty((0, 2), np.uint64), MAPPING, np.array([8 * PAGE]), pages) == 0
