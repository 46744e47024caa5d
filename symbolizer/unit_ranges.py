"""Which compilation unit describes which addresses, so that of a large file only those that are asked for are read."""

from __future__ import annotations

import struct
from array import array
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

Row = tuple[int, int, int]
#: Section 6.1.2 of DWARF 5: unit_length, version, debug_info_offset, address_size, segment_selector_size.
_ARANGES_HEADER = struct.Struct("<IHIBB")
_ADDRESS_PAIR = struct.Struct("<QQ")
_ROW = struct.Struct("<QQQ")
_TOO_LARGE = 1 << 64
#: Bytes of a header behind unit_length (section 7.5.1): version, offset of the declarations, address size.
_SHORTEST_UNIT = 7
#: unit_length from here on means 64-bit DWARF (section 7.4), which no compiler makes unless asked.
_RESERVED = 0xFFFFFFF0
#: Units in one file; Chromium has some 30,000.
_MANY_UNITS = 1 << 20


def unit_starts(info: memoryview) -> list[int]:
    """Return where in .debug_info each unit starts, in bytes; stops where the section is damaged or 64-bit DWARF."""
    starts: list[int] = []
    at = 0
    while at + 4 <= len(info) and len(starts) < _MANY_UNITS:
        length = int.from_bytes(info[at : at + 4], "little")
        if length >= _RESERVED or length < _SHORTEST_UNIT or at + 4 + length > len(info):
            break
        starts.append(at)
        at += 4 + length
    return starts


@dataclass(frozen=True, slots=True, eq=False)
class UnitRanges:
    """Address ranges [start, end) with the unit of each, as its offset in .debug_info; sorted by start."""

    start: Sequence[int]
    end: Sequence[int]
    unit: Sequence[int]

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Self:
        """Return the ranges (start, end, unit), which may come in any order."""
        start, end, unit = array("Q"), array("Q"), array("Q")
        for row in sorted(rows):
            if max(row) < _TOO_LARGE:
                start.append(row[0])
                end.append(row[1])
                unit.append(row[2])
        return cls(start, end, unit)

    @classmethod
    def parse_aranges(cls, data: memoryview) -> Self:
        """Return the ranges in .debug_aranges (DWARF 5, section 6.1.2); sets that cannot be read are left out."""
        rows: list[Row] = []
        at = 0
        while at + _ARANGES_HEADER.size <= len(data):
            length, version, unit, address_size, segment_size = _ARANGES_HEADER.unpack_from(data, at)
            end = at + 4 + length
            if length >= _RESERVED or length < 8 or end > len(data):
                break
            if version == 2 and address_size == 8 and segment_size == 0:
                # The pairs are aligned to their size, counted from the set's start.
                first = at + 16
                pairs = _ADDRESS_PAIR.iter_unpack(data[first : first + max(0, end - first) // 16 * 16])
                rows += [(start, start + size, unit) for start, size in pairs if start and size]
            at = end
        return cls.of(rows)

    @classmethod
    def from_bytes(cls, content: bytes) -> Self:
        """Return the ranges that to_bytes() wrote."""
        return cls.of(_ROW.iter_unpack(content[: len(content) // _ROW.size * _ROW.size]))

    def to_bytes(self) -> bytes:
        """Return the ranges as rows of three 64-bit numbers."""
        return b"".join(_ROW.pack(*row) for row in self.rows())

    def rows(self) -> list[Row]:
        """Return (start, end, unit) of each range."""
        return list(zip(self.start, self.end, self.unit, strict=True))

    def unit_of(self, vaddr: int) -> int | None:
        """Return the unit that describes the vaddr, None if none does."""
        row = bisect_right(self.start, vaddr) - 1
        return self.unit[row] if row >= 0 and vaddr < self.end[row] else None

    def units(self) -> set[int]:
        """Return the units that have ranges here."""
        return set(self.unit)


def pieces(starts: Sequence[int], size: int, piece_bytes: int) -> list[tuple[int, int]]:
    """Return the units in pieces of about piece_bytes, each as [start, end) in .debug_info of that size."""
    found: list[tuple[int, int]] = []
    begin = 0
    for start in starts[1:]:
        if start - begin >= piece_bytes:
            found.append((begin, start))
            begin = start
    return [*found, (begin, size)]
