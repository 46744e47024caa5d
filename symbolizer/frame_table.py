"""The functions of one `.eh_frame` or `.debug_frame`: which one covers an address, and the rule at that address.

Formats: Linux Standard Base Core, chapter 10.6, and DWARF 5 section 6.4.1.
"""

import struct
from array import array
from bisect import bisect_right
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from mmap import mmap
from typing import Final

from symbolizer.cfa_program import GARBAGE, CommonEntry, Machine
from symbolizer.encoded_numbers import OMIT, read_pointer, read_sleb, read_uleb
from symbolizer.unwind_rule import UNSUPPORTED, UnwindRule

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_LONGEST_CIE = 1024  # bytes of the program that all functions share; compilers make some ten
_MAX_CIES: Final = 4096  # linkers merge equal CIEs, a large library has tens; garbage may have one per function
_MAX_AUGMENTATION: Final = 16  # letters; known ones are z R P L S B


@dataclass(frozen=True, slots=True)
class Region:
    """A stretch of call frame information: data[start:end], mapped at `vaddr`."""

    data: bytes | mmap
    start: int
    end: int
    vaddr: int
    is_eh: bool  # the format of .eh_frame rather than .debug_frame


@dataclass(frozen=True, slots=True)
class Function:
    """An FDE: the function's addresses, and where in the data its program is."""

    start: int
    end: int
    entry: CommonEntry
    program_start: int
    program_end: int


@dataclass(frozen=True, slots=True)
class Column:
    """Every second number of a table, read where it stands.

    Not a memoryview: while one lives, the caller cannot close the mapping.
    """

    data: bytes | mmap
    at: int
    number: struct.Struct
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        value: int = self.number.unpack_from(self.data, self.at + 2 * self.number.size * index)[0]
        return value


_Numbers = Sequence[int] | Column


class FunctionTable:
    """The functions of one region: `starts` (+ `base`) ascending, and `entries` (+ `displacement`), the FDEs."""

    __slots__ = ("base", "cies", "displacement", "entries", "limit", "region", "starts")

    def __init__(self, region: Region, limit: int) -> None:
        self.region = region
        self.limit = limit
        self.starts: _Numbers = ()
        self.entries: _Numbers = ()
        self.base = 0
        self.displacement = 0
        self.cies: dict[int, CommonEntry] = {}

    @classmethod
    def scanned(cls, region: Region, limit: int) -> "FunctionTable":
        """Return a table made by reading a region from its beginning, up to its terminator or what cannot be read."""
        table = cls(region, limit)
        found: list[tuple[int, int]] = []
        at = region.start
        for _ in range(limit):
            try:
                _, end = table._extent(at)
            except GARBAGE:
                break
            with suppress(*GARBAGE):  # a CIE, or one entry that cannot be read
                function = table._function(at)
                if function.start:  # 0: the linker dropped the function
                    found.append((function.start, at))
            at = end
        found.sort()
        table.starts = array("Q", (start for start, _ in found))
        table.entries = array("Q", (position for _, position in found))
        return table

    def find(self, vaddr: int) -> Function | None:
        """Return the function that covers `vaddr`."""
        index = bisect_right(self.starts, vaddr - self.base) - 1
        if index < 0:
            return None
        function = self._function(self.entries[index] + self.displacement)
        return function if function.start <= vaddr < function.end else None

    def rule(self, function: Function, vaddr: int) -> UnwindRule:
        """Run the function's program up to `vaddr`."""
        start, end = function.program_start, function.program_end
        if end - start > self.limit:
            return UNSUPPORTED
        machine = Machine(function.entry, function.start)
        machine.run(self.region.data[start:end], vaddr, self._vaddr(start))
        return machine.rule()

    def _vaddr(self, at: int) -> int:
        return at - self.region.start + self.region.vaddr

    def _extent(self, at: int) -> tuple[int, int]:
        """Return where the entry at `at` goes on after its length, and where it ends."""
        region = self.region
        if not region.start <= at < region.end:
            raise ValueError("entry outside of its region")
        size = _U32.unpack_from(region.data, at)[0]
        body = at + 4
        if size == 0xFFFFFFFF:
            size = _U64.unpack_from(region.data, body)[0]
            body += 8
        if not 4 <= size <= region.end - body:
            raise ValueError("terminator, or entry past the end")
        return body, body + size

    def _identity(self, at: int, body: int) -> tuple[int | None, int]:
        """Return the position of the CIE that an FDE names, None in a CIE, and the position after that field."""
        region = self.region
        if region.is_eh:  # four bytes even after a 64-bit length, and counted back from the field
            distance = _U32.unpack_from(region.data, body)[0]
            return (body - distance if distance else None), body + 4
        wide = body - at > 4
        offset = (_U64 if wide else _U32).unpack_from(region.data, body)[0]
        is_cie = offset == (0xFFFFFFFFFFFFFFFF if wide else 0xFFFFFFFF)
        return (None if is_cie else region.start + offset), body + (8 if wide else 4)

    def _function(self, at: int) -> Function:
        data = self.region.data
        body, end = self._extent(at)
        cie_at, at = self._identity(at, body)
        if cie_at is None:
            raise ValueError("a CIE, not an FDE")
        entry = self.cies.get(cie_at) or self._cie(cie_at)
        start, at = read_pointer(data, at, entry.pointer_encoding, self._vaddr(at))
        size, at = read_pointer(data, at, entry.pointer_encoding & 0x0F, 0)
        if entry.has_augmentation_data:
            skipped, at = read_uleb(data, at)
            at += skipped
        if at > end:
            raise ValueError("FDE past its end")
        return Function(start, start + size, entry, at, end)

    def _cie(self, cie_at: int) -> CommonEntry:
        """Parse and keep the CIE at a position."""
        data = self.region.data
        body, end = self._extent(cie_at)
        named, at = self._identity(cie_at, body)
        version = data[at]
        if named is not None or version not in (1, 3, 4):
            raise ValueError("not a CIE of a known version")
        letters = data[at + 1 : at + 2 + _MAX_AUGMENTATION].split(b"\0", 1)[0]
        at += len(letters) + 2
        if version == 4:
            if data[at : at + 2] != b"\x08\x00":
                raise ValueError("addresses that are not 8 bytes, or segments")
            at += 2
        code_alignment, at = read_uleb(data, at)
        data_alignment, at = read_sleb(data, at)
        return_column, at = (data[at], at + 1) if version == 1 else read_uleb(data, at)
        encoding = 0
        if letters:
            encoding, at = _augmentation(data, at, letters, self._vaddr)
        if not at <= end <= at + _LONGEST_CIE:
            raise ValueError("CIE past its end, or too long")
        entry = CommonEntry(
            code_alignment, data_alignment, return_column, encoding, bool(letters), b"S" in letters, (-1, 0), {}
        )
        machine = Machine(entry, 0)
        machine.run(data[at:end], 0, self._vaddr(at))
        if len(self.cies) == _MAX_CIES:
            self.cies.clear()
        self.cies[cie_at] = entry = replace(entry, cfa=machine.cfa, rules=machine.rules)
        return entry


def _augmentation(data: bytes | mmap, at: int, letters: bytes, vaddr: Callable[[int], int]) -> tuple[int, int]:
    """Return the encoding of code addresses in a CIE's augmentation data at `at`, and the position after the data."""
    if letters[0] != ord("z"):
        raise ValueError("augmentation without a size")
    size, at = read_uleb(data, at)
    encoding, end = 0, at + size
    for letter in letters[1:]:
        if letter == ord("R"):
            encoding, at = data[at], at + 1
        elif letter == ord("L"):
            at += 1
        elif letter == ord("P"):
            kind = data[at]
            _, at = read_pointer(data, at + 1, kind & 0x0F, 0) if kind != OMIT else (0, at + 1)
        elif letter not in b"SB":
            raise ValueError("unknown augmentation")
    return encoding, end
