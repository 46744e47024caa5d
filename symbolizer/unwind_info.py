"""Finds the unwind rule of one address in the bytes of an ELF object for x86-64, decoding nothing else.

An object with an `.eh_frame_hdr` carries a table of its functions, sorted for binary search, and is found through the
program headers, so stripped objects work. Others (`.eh_frame` alone, or only `.debug_frame`) are indexed at the first
question. Formats: Linux Standard Base Core, chapter 10.6 and 10.7, and DWARF 5 section 6.4.1.
"""

import struct
import zlib
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from mmap import mmap
from typing import Final

from symbolizer.cfa_program import (
    GARBAGE,
    UNKNOWN,
    UNSUPPORTED,
    BpKind,
    CommonEntry,
    Machine,
    RuleKind,
    UnwindRule,
    read_pointer,
    read_sleb,
    read_uleb,
)

__all__ = ["BpKind", "RuleKind", "UnwindInfo", "UnwindRule"]

LIMIT: Final = 1 << 20  # a whole browser has about so many functions, and no function so long a program

_U32: Final = struct.Struct("<I")
_U64: Final = struct.Struct("<Q")
_PROGRAM_HEADER: Final = struct.Struct("<IIQQQQQQ")
_SECTION_HEADER: Final = struct.Struct("<IIQQQQIIQQ")
_COMPRESSION_HEADER: Final = struct.Struct("<IIQQ")

_ELF_X86_64: Final = (b"\x7fELF\x02\x01", 62)  # 64 bits, little endian; EM_X86_64
_PT_LOAD: Final = 1
_PT_GNU_EH_FRAME: Final = 0x6474E550
_SHT_NOBITS: Final = 8  # in a file of debug information only: the section's bytes are in the other file
_SHF_COMPRESSED: Final = 0x800
_ELFCOMPRESS_ZLIB: Final = 1

_OMIT: Final = 0xFF  # DW_EH_PE_omit
_I32: Final = struct.Struct("<i")
_I64: Final = struct.Struct("<q")
_TABLE_NUMBERS: Final = {0x0: _U64, 0x3: _U32, 0x4: _U64, 0xB: _I32, 0xC: _I64}  # by DW_EH_PE_*
_LONGEST_CIE = 1024  # bytes of the program that all functions share; compilers make some ten
_MAX_CIES: Final = 4096  # linkers merge equal CIEs, a large library has tens; garbage may have one per function
_MAX_DECOMPRESSED: Final = 1 << 26  # bytes of .debug_frame: a thousand times what a small Go program has
_MAX_AUGMENTATION: Final = 16  # letters; known ones are z R P L S B


@dataclass(frozen=True, slots=True)
class _Region:
    """A stretch of call frame information: data[start:end], mapped at `vaddr`."""

    data: bytes | mmap
    start: int
    end: int
    vaddr: int
    is_eh: bool  # the format of .eh_frame rather than .debug_frame


@dataclass(frozen=True, slots=True)
class _Function:
    """An FDE: the function's addresses, and where in the data its program is."""

    start: int
    end: int
    entry: CommonEntry
    program_start: int
    program_end: int


@dataclass(frozen=True, slots=True)
class _Column:
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


_Numbers = Sequence[int] | _Column


class _FunctionTable:
    """The functions of one region: `starts` (+ `base`) ascending, and `entries` (+ `displacement`), the FDEs."""

    __slots__ = ("base", "cies", "displacement", "entries", "limit", "region", "starts")

    def __init__(self, region: _Region, limit: int) -> None:
        self.region = region
        self.limit = limit
        self.starts: _Numbers = ()
        self.entries: _Numbers = ()
        self.base = 0
        self.displacement = 0
        self.cies: dict[int, CommonEntry] = {}

    @classmethod
    def scanned(cls, region: _Region, limit: int) -> "_FunctionTable":
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

    def find(self, vaddr: int) -> _Function | None:
        """Return the function that covers `vaddr`."""
        index = bisect_right(self.starts, vaddr - self.base) - 1
        if index < 0:
            return None
        function = self._function(self.entries[index] + self.displacement)
        return function if function.start <= vaddr < function.end else None

    def rule(self, function: _Function, vaddr: int) -> UnwindRule:
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

    def _function(self, at: int) -> _Function:
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
        return _Function(start, start + size, entry, at, end)

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
            _, at = read_pointer(data, at + 1, kind & 0x0F, 0) if kind != _OMIT else (0, at + 1)
        elif letter not in b"SB":
            raise ValueError("unknown augmentation")
    return encoding, end


class UnwindInfo:
    """The call frame information of one ELF object, which is never decoded as a whole.

    `data` is the object's file; it must stay as it is, a mapping open, while this object is in use. `limit` bounds the
    bytes of a call frame program, and the functions in an index that has to be made. Broken data raises nothing.
    """

    def __init__(self, data: bytes | mmap, limit: int = LIMIT) -> None:
        self._data = data
        self._limit = limit
        self._loads: list[tuple[int, int, int]] = []  # vaddr, position, size
        self._header: tuple[int, int, int] | None = None  # the same of .eh_frame_hdr
        self._tables: list[_FunctionTable] = []
        self._sources: Iterator[_FunctionTable] = iter(())
        if (data[:6], int.from_bytes(data[18:20], "little")) == _ELF_X86_64:
            with suppress(*GARBAGE):
                self._read_program_headers()
            self._sources = self._find_tables()

    def rule_at(self, vaddr: int) -> UnwindRule:
        """Return how to unwind from the instruction at `vaddr`, an address as in the ELF file.

        For a return address ask for the byte before it: a call that never returns may end its function.
        """
        found = self._find(vaddr)
        if found is None:
            return UNKNOWN
        table, function = found
        try:
            return table.rule(function, vaddr)
        except GARBAGE:
            return UNSUPPORTED

    def function_bounds(self, vaddr: int) -> tuple[int, int] | None:
        """Return the first address of the function (or part of one) that covers `vaddr`, and the one after its last."""
        found = self._find(vaddr)
        return (found[1].start, found[1].end) if found else None

    def _find(self, vaddr: int) -> tuple[_FunctionTable, _Function] | None:
        for table in self._each_table():
            try:
                function = table.find(vaddr)
            except GARBAGE:
                continue
            if function:
                return table, function
        return None

    def _each_table(self) -> Iterator[_FunctionTable]:
        """Yield the tables found so far, then look for more: a `.debug_frame` is not read before it is needed."""
        yield from self._tables
        for table in self._sources:
            self._tables.append(table)
            yield table

    def _read_program_headers(self) -> None:
        start = _U64.unpack_from(self._data, 32)[0]
        size, count = struct.unpack_from("<HH", self._data, 54)
        for index in range(count):
            kind, _, position, vaddr, _, length, _, _ = _PROGRAM_HEADER.unpack_from(self._data, start + index * size)
            if kind == _PT_LOAD:
                self._loads.append((vaddr, position, length))
            elif kind == _PT_GNU_EH_FRAME:
                self._header = (vaddr, position, length)

    def _find_tables(self) -> Iterator[_FunctionTable]:
        """Yield the tables of the object, best first."""
        table = None
        with suppress(*GARBAGE):
            table = self._header_table()
        if table:
            yield table
        sections = {}
        with suppress(*GARBAGE, zlib.error):
            sections = dict(self._frame_sections())
        if table is None and ".eh_frame" in sections:
            yield _FunctionTable.scanned(sections[".eh_frame"], self._limit)
        if ".debug_frame" in sections:
            yield _FunctionTable.scanned(sections[".debug_frame"], self._limit)

    def _header_table(self) -> _FunctionTable | None:
        """Return the table of `.eh_frame_hdr`, or one made from the `.eh_frame` that it names."""
        if self._header is None:
            return None
        vaddr, position, length = self._header
        data = self._data
        _, frame_encoding, count_encoding, table_encoding = data[position : position + 4]
        frame, at = read_pointer(data, position + 4, frame_encoding, vaddr + 4, vaddr)
        region = self._segment(frame)
        number, application = _TABLE_NUMBERS.get(table_encoding & 0x0F), table_encoding & 0xF0
        if count_encoding == _OMIT or number is None or application not in (0, 0x30):
            frame_start = frame - region.vaddr + region.start
            return _FunctionTable.scanned(replace(region, start=frame_start, vaddr=frame), self._limit)
        count, at = read_pointer(data, at, count_encoding, vaddr + at - position, vaddr)
        count = max(0, min(count, (min(position + length, len(data)) - at) // (2 * number.size)))
        table = _FunctionTable(region, self._limit)
        table.starts = _Column(data, at, number, count)
        table.entries = _Column(data, at + number.size, number, count)
        table.base = vaddr if application else 0
        table.displacement = table.base - region.vaddr + region.start
        return table

    def _segment(self, vaddr: int) -> _Region:
        for start, position, size in self._loads:
            if start <= vaddr < start + size:
                return _Region(self._data, position, min(position + size, len(self._data)), start, is_eh=True)
        raise ValueError("not in any segment")

    def _frame_sections(self) -> Iterator[tuple[str, _Region]]:
        """Yield `.eh_frame` and `.debug_frame`, as far as there are section headers."""
        data = self._data
        table = _U64.unpack_from(data, 40)[0]
        size, count, names_index = struct.unpack_from("<HHH", data, 58)
        names = _SECTION_HEADER.unpack_from(data, table + names_index * size)[4]
        for index in range(count):
            name_at, kind, flags, vaddr, position, length, *_ = _SECTION_HEADER.unpack_from(data, table + index * size)
            name = data[names + name_at : names + name_at + 13].split(b"\0", 1)[0]
            if name not in (b".eh_frame", b".debug_frame") or kind == _SHT_NOBITS:
                continue
            region = _Region(data, position, min(position + length, len(data)), vaddr, name == b".eh_frame")
            yield name.decode(), _decompressed(region) if flags & _SHF_COMPRESSED else region


def _decompressed(region: _Region) -> _Region:
    """Return a compressed section as it was (ELF gABI, section compression; what Go's linker does by default)."""
    kind, _, size, _ = _COMPRESSION_HEADER.unpack_from(region.data, region.start)
    if kind != _ELFCOMPRESS_ZLIB:
        raise ValueError("unknown compression")
    packed = region.data[region.start + _COMPRESSION_HEADER.size : region.end]
    data = zlib.decompressobj().decompress(packed, min(size, _MAX_DECOMPRESSED) or 1)
    return _Region(data, 0, len(data), region.vaddr, region.is_eh)
