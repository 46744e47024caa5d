"""Finds the unwind rule of one address in the bytes of an ELF object for x86-64, decoding nothing else.

An object with an `.eh_frame_hdr` carries a table of its functions, sorted for binary search, and is found through the
program headers, so stripped objects work. Others (`.eh_frame` alone, or only `.debug_frame`) are indexed at the first
question. Formats: Linux Standard Base Core, chapter 10.6 and 10.7, and DWARF 5 section 6.4.1.
"""

import struct
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from mmap import mmap
from typing import Final

from symbolizer.cfa_program import GARBAGE
from symbolizer.encoded_numbers import OMIT, read_pointer
from symbolizer.frame_table import Column, Function, FunctionTable, Region
from symbolizer.unwind_rule import UNKNOWN, UNSUPPORTED, UnwindRule

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

_I32: Final = struct.Struct("<i")
_I64: Final = struct.Struct("<q")
_TABLE_NUMBERS: Final = {0x0: _U64, 0x3: _U32, 0x4: _U64, 0xB: _I32, 0xC: _I64}  # by DW_EH_PE_*
_MAX_DECOMPRESSED: Final = 1 << 26  # bytes of .debug_frame: a thousand times what a small Go program has


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
        self._tables: list[FunctionTable] = []
        self._sources: Iterator[FunctionTable] = iter(())
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

    def _find(self, vaddr: int) -> tuple[FunctionTable, Function] | None:
        for table in self._each_table():
            try:
                function = table.find(vaddr)
            except GARBAGE:
                continue
            if function:
                return table, function
        return None

    def _each_table(self) -> Iterator[FunctionTable]:
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

    def _find_tables(self) -> Iterator[FunctionTable]:
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
            yield FunctionTable.scanned(sections[".eh_frame"], self._limit)
        if ".debug_frame" in sections:
            yield FunctionTable.scanned(sections[".debug_frame"], self._limit)

    def _header_table(self) -> FunctionTable | None:
        """Return the table of `.eh_frame_hdr`, or one made from the `.eh_frame` that it names."""
        if self._header is None:
            return None
        vaddr, position, length = self._header
        data = self._data
        _, frame_encoding, count_encoding, table_encoding = data[position : position + 4]
        frame, at = read_pointer(data, position + 4, frame_encoding, vaddr + 4, vaddr)
        region = self._segment(frame)
        number, application = _TABLE_NUMBERS.get(table_encoding & 0x0F), table_encoding & 0xF0
        if count_encoding == OMIT or number is None or application not in (0, 0x30):
            frame_start = frame - region.vaddr + region.start
            return FunctionTable.scanned(replace(region, start=frame_start, vaddr=frame), self._limit)
        count, at = read_pointer(data, at, count_encoding, vaddr + at - position, vaddr)
        count = max(0, min(count, (min(position + length, len(data)) - at) // (2 * number.size)))
        table = FunctionTable(region, self._limit)
        table.starts = Column(data, at, number, count)
        table.entries = Column(data, at + number.size, number, count)
        table.base = vaddr if application else 0
        table.displacement = table.base - region.vaddr + region.start
        return table

    def _segment(self, vaddr: int) -> Region:
        for start, position, size in self._loads:
            if start <= vaddr < start + size:
                return Region(self._data, position, min(position + size, len(self._data)), start, is_eh=True)
        raise ValueError("not in any segment")

    def _frame_sections(self) -> Iterator[tuple[str, Region]]:
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
            region = Region(data, position, min(position + length, len(data)), vaddr, name == b".eh_frame")
            yield name.decode(), _decompressed(region) if flags & _SHF_COMPRESSED else region


def _decompressed(region: Region) -> Region:
    """Return a compressed section as it was (ELF gABI, section compression; what Go's linker does by default)."""
    kind, _, size, _ = _COMPRESSION_HEADER.unpack_from(region.data, region.start)
    if kind != _ELFCOMPRESS_ZLIB:
        raise ValueError("unknown compression")
    packed = region.data[region.start + _COMPRESSION_HEADER.size : region.end]
    data = zlib.decompressobj().decompress(packed, min(size, _MAX_DECOMPRESSED) or 1)
    return Region(data, 0, len(data), region.vaddr, region.is_eh)
