"""Which compilation unit describes which addresses, so that of a large file only those that are asked for are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

#: Section 6.1.2 of DWARF 5: unit_length, version, debug_info_offset, address_size, segment_selector_size.
_ARANGES_HEADER = 12
_ADDRESS_PAIR = np.dtype([("start", "<u8"), ("size", "<u8")])
#: unit_length from here on means 64-bit DWARF (section 7.4), which no compiler makes unless asked.
_RESERVED = 0xFFFFFFF0
#: Units in one file; Chromium has some 30,000.
_MANY_UNITS = 1 << 20


def unit_starts(info: memoryview) -> list[int]:
    """Return where in .debug_info each unit starts, in bytes; stops where the section is damaged or 64-bit DWARF."""
    starts, at = [], 0
    while at + 4 <= len(info) and len(starts) < _MANY_UNITS:
        length = int.from_bytes(info[at : at + 4], "little")
        if length >= _RESERVED or length == 0 or at + 4 + length > len(info):
            break
        starts.append(at)
        at += 4 + length
    return starts


@dataclass(frozen=True, slots=True, eq=False)
class UnitRanges:
    """Address ranges [start, end) with the unit of each, as its offset in .debug_info; sorted by start, shape (n,)."""

    start: np.ndarray
    end: np.ndarray
    unit: np.ndarray

    @classmethod
    def of(cls, rows: Iterable[tuple[int, int, int]]) -> Self:
        """Return the ranges (start, end, unit), which may come in any order."""
        table = np.array(sorted(rows), np.uint64).reshape(-1, 3)
        return cls(table[:, 0], table[:, 1], table[:, 2])

    @classmethod
    def parse_aranges(cls, data: memoryview) -> Self:
        """Return the ranges in .debug_aranges (DWARF 5, section 6.1.2); sets that cannot be read are left out."""
        rows: list[tuple[int, int, int]] = []
        at = 0
        while at + _ARANGES_HEADER <= len(data):
            length = int.from_bytes(data[at : at + 4], "little")
            end = at + 4 + length
            if length >= _RESERVED or length < 8 or end > len(data):
                break
            version, unit = int.from_bytes(data[at + 4 : at + 6], "little"), int.from_bytes(data[at + 6 : at + 10], "little")
            if version == 2 and data[at + 10] == 8 and data[at + 11] == 0:
                # The pairs are aligned to their size, counted from the set's start.
                first = at + 16
                pairs = np.frombuffer(data[first : first + (end - first) // 16 * 16], _ADDRESS_PAIR)
                rows += [(start, start + size, unit) for start, size in pairs.tolist() if start and size]
            at = end
        return cls.of(row for row in rows if row[1] < 1 << 64)

    def unit_of(self, vaddr: int) -> int | None:
        """Return the unit that describes the vaddr, None if none does."""
        row = int(np.searchsorted(self.start, np.uint64(vaddr), "right")) - 1
        if row < 0 or vaddr >= int(self.end[row]):
            return None
        return int(self.unit[row])

    def units(self) -> set[int]:
        """Return the units that have ranges here."""
        return set(np.unique(self.unit).tolist())


def pieces(starts: Sequence[int], size: int, piece_bytes: int) -> list[tuple[int, int]]:
    """Return the units in pieces of about piece_bytes, each as [start, end) in .debug_info of that size."""
    found: list[tuple[int, int]] = []
    begin = 0
    for start in starts[1:]:
        if start - begin >= piece_bytes:
            found.append((begin, start))
            begin = start
    return [*found, (begin, size)]
