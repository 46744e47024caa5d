"""Names variables by address: globals, statics and thread-local ones, and the section where there is no symbol."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
from elftools.elf.constants import SH_FLAGS
from elftools.elf.enums import ENUM_P_TYPE_BASE, ENUM_ST_INFO_TYPE

from symbolizer.choices import Style
from symbolizer.demangle import demangle
from symbolizer.elf import PAGE, Elf
from symbolizer.elf_error import ElfError
from symbolizer.object_file import ObjectFile
from symbolizer.symbol_table import SYMBOL, StringTable, Symbols, SymbolTable

_FUNCTION: Final = ENUM_ST_INFO_TYPE["STT_FUNC"]
_VARIABLE, _THREAD_LOCAL = ENUM_ST_INFO_TYPE["STT_OBJECT"], ENUM_ST_INFO_TYPE["STT_TLS"]
_TABLES: Final = ((".symtab", ".strtab"), (".dynsym", ".dynstr"))
#: Where linkers put variables, by name: the ones of C and C++, those relocated at start, and those that Go adds.
_SECTIONS: Final = (
    ".data", ".bss", ".data.rel.ro", ".data.rel.ro.local", ".ldata", ".lbss", ".got", ".got.plt", ".dynamic",
    ".init_array", ".fini_array", ".preinit_array", ".rodata", ".noptrdata", ".noptrbss",
)  # fmt: skip
_TLS_SECTIONS: Final = (".tdata", ".tbss")
_PROGRAM_HEADER: Final = struct.Struct("<II6Q")
_HEADER_TABLE, _HEADER_COUNT = 32, 56  # e_phoff and e_phnum in the ELF header


@dataclass(frozen=True, slots=True)
class DataPlace:
    """A byte of a variable, or of a section where no symbol covers it.

    name: as in the source, or the section's, and safe to print. offset: in bytes from its start.
    """

    name: str
    offset: int
    is_symbol: bool = True

    def words(self) -> str:
        """Return the name, with the offset if there is one: `table+0x18`."""
        return f"{self.name}+{self.offset:#x}" if self.offset else self.name


@dataclass(frozen=True, slots=True)
class TlsSegment:
    """The PT_TLS segment: what each thread gets a copy of; vaddr, size and alignment in bytes."""

    vaddr: int
    size: int
    align: int

    @property
    def below_thread_pointer(self) -> int:
        """Return how far below the thread pointer an executable's copy begins.

        ELF Handling for Thread-Local Storage, section 3.4.6: x86-64 has variant II, in which the executable's block
        ends at the thread pointer, moved down until its start is aligned as the segment is.
        """
        skew = -self.vaddr % self.align
        return (self.size - skew + self.align - 1) // self.align * self.align + skew


@dataclass(frozen=True, slots=True)
class _Area:
    name: str
    start: int
    end: int


class DataSymbols:
    """The variables of one object, from all files that have some of its symbols."""

    def __init__(
        self,
        elf: Elf,
        others: Iterable[Elf] = (),
        style: Style = Style.FULL,
        is_whole: Callable[[], bool] = lambda: True,
    ) -> None:
        """elf: the object that is mapped. others: files with more of its symbols. Damaged tables count as empty.

        is_whole: whether the object still has the bytes that it was parsed from; nothing is read where it has not.
        """
        self._elf = elf
        self._files = (elf, *others)
        self._style = style
        self._is_whole = is_whole

    @classmethod
    def of(cls, target: ObjectFile, style: Style = Style.FULL) -> DataSymbols | None:
        """Return the variables of an object and of its debug file; None where the object cannot be read."""
        if target.why is not None or not target.is_whole() or target.elf is None:
            return None
        # With a .symtab of its own it names everything; looking for more may be a download.
        debug = None if target.elf.has_symtab else target.debug_file
        return cls(target.elf, () if debug is None else (debug.elf,), style, target.is_whole)

    def at(self, vaddr: int) -> DataPlace | None:
        """Return the innermost variable that covers the vaddr, else its section, else None."""
        if not self._is_whole():
            return None
        return self._find(self._variables, vaddr) or _section_at(self._sections, vaddr)

    def thread_local(self, offset: int) -> DataPlace | None:
        """Return the thread-local variable at an offset in the TLS segment, else .tdata or .tbss, else None."""
        if not self._is_whole():
            return None
        found = self._find(self._thread_locals, offset)
        if found is not None or self.tls is None:
            return found
        return _section_at(self._tls_sections, self.tls.vaddr + offset)

    def _find(self, table: SymbolTable, value: int) -> DataPlace | None:
        found = table.find(value)
        return DataPlace(demangle(found[0], self._style), found[1]) if found is not None else None

    @cached_property
    def tls(self) -> TlsSegment | None:
        """Return the object's TLS segment, None if it has no thread-local variables."""
        data = self._elf.data
        start = int.from_bytes(data[_HEADER_TABLE : _HEADER_TABLE + 8], "little")
        count = int.from_bytes(data[_HEADER_COUNT : _HEADER_COUNT + 2], "little")
        for position in range(start, start + count * _PROGRAM_HEADER.size, _PROGRAM_HEADER.size):
            if position + _PROGRAM_HEADER.size > len(data):
                break
            kind, _, _, vaddr, _, _, size, align = _PROGRAM_HEADER.unpack_from(data, position)
            if kind == ENUM_P_TYPE_BASE["PT_TLS"] and size:
                return TlsSegment(vaddr, size, max(1, align))
        return None

    @cached_property
    def _variables(self) -> SymbolTable:
        return self._table(_VARIABLE)

    @cached_property
    def _thread_locals(self) -> SymbolTable:
        return self._table(_THREAD_LOCAL)

    def _table(self, kind: int) -> SymbolTable:
        """Return the symbols of that type which say how large they are, as a table to search."""
        tables = [_of_type(rows, strings, kind) for rows, strings in self._raw_tables]
        # Sections do not matter: they end only what has no size.
        return SymbolTable.build(tables, np.empty(0, np.uint64), np.empty(0, bool), [])

    @cached_property
    def _raw_tables(self) -> tuple[tuple[np.ndarray, StringTable], ...]:
        return tuple(table for elf in self._files for names in _TABLES if (table := _raw_table(elf, *names)))

    @cached_property
    def _sections(self) -> tuple[_Area, ...]:
        return _areas(self._elf, _SECTIONS)

    @cached_property
    def _tls_sections(self) -> tuple[_Area, ...]:
        return _areas(self._elf, _TLS_SECTIONS)


def load_biases(elf: Elf, executable: Sequence[tuple[int, int]]) -> tuple[int, ...]:
    """Return what is added to the file's vaddrs where it is mapped as a program or library.

    executable: (start, file offset) of its executable mappings. More than one bias: it is loaded more than once.
    """
    found = {
        start - (part.vaddr & -PAGE)
        for start, offset in executable
        for part in elf.segments
        if part.executable and part.offset & -PAGE == offset
    }
    return tuple(sorted(found))


def _raw_table(elf: Elf, symbols: str, strings: str) -> tuple[np.ndarray, StringTable] | None:
    """Return the rows of a symbol table and where its names are, None where it is missing or damaged."""
    try:
        table, names = elf.section(symbols), elf.section(strings)
    except ElfError:
        return None
    if table is None or names is None or table.is_compressed or names.is_compressed:
        return None
    # Of what strip leaves in a debug file, some tables have a header and no bytes.
    rows = np.frombuffer(table.raw, SYMBOL, len(table.raw) // SYMBOL.itemsize)
    return (rows, StringTable(elf.data, names.offset, len(names.raw))) if len(rows) else None


def _of_type(rows: np.ndarray, strings: StringTable, kind: int) -> Symbols:
    """Return the rows of one type, written as functions: SymbolTable keeps those only, and looks no further."""
    wanted = (rows["info"] & 15 == kind) & (rows["size"] > 0)
    kept = rows[wanted].copy()
    kept["info"] = kept["info"] & 0xF0 | _FUNCTION
    return Symbols(kept, strings, None)


def _areas(elf: Elf, names: Iterable[str]) -> tuple[_Area, ...]:
    found = []
    for name in names:
        try:
            section = elf.section(name)
        except ElfError:
            continue
        if section is not None and section.flags & SH_FLAGS.SHF_ALLOC:
            found.append(_Area(name, section.vaddr, section.vaddr + section.size))
    return tuple(found)


def _section_at(areas: Iterable[_Area], vaddr: int) -> DataPlace | None:
    for area in areas:
        if area.start <= vaddr < area.end:
            return DataPlace(area.name, vaddr - area.start, is_symbol=False)
    return None
