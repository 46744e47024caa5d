"""One ELF file, x86-64, as it lies on disk or in memory: headers, notes, the dynamic section, symbols.

The parser takes bytes, and the caller opens files. Every offset and count is checked against the size of the
file, so damaged files end in `ElfError` and cost no more than a whole one of their size. The layouts are those
of the System V ABI, chapters 4 and 5; they are read with numpy and not with pyelftools, because that raises
many kinds of exception on damaged files and needs seconds for a large symbol table.
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from mmap import mmap
from typing import Any, Self

import numpy as np
from elftools.elf.constants import P_FLAGS, SH_FLAGS, SHN_INDICES
from elftools.elf.enums import ENUM_D_TAG, ENUM_E_MACHINE, ENUM_P_TYPE_BASE, ENUM_SH_TYPE_BASE

from symbolizer.elf_error import ElfError, ElfUnsupported
from symbolizer.elf_notes import build_id_in_notes
from symbolizer.elf_section import Section
from symbolizer.symbol_table import SYMBOL, StringTable, Symbols, SymbolTable, c_string

_SECTION_TYPE = ENUM_SH_TYPE_BASE
PAGE = 4096

_PROGRAM_HEADER = np.dtype(
    {
        "names": ["type", "flags", "offset", "vaddr", "paddr", "filesz", "memsz", "align"],
        "formats": ["<u4", "<u4", "<u8", "<u8", "<u8", "<u8", "<u8", "<u8"],
    }
)
_SECTION_HEADER = np.dtype(
    {
        "names": ["name", "type", "flags", "vaddr", "offset", "size", "link", "info", "align", "entsize"],
        "formats": ["<u4", "<u4", "<u8", "<u8", "<u8", "<u8", "<u4", "<u4", "<u8", "<u8"],
    }
)
_DYNAMIC = np.dtype([("tag", "<u8"), ("value", "<u8")])
_EXTENDED_COUNT = 0xFFFF  # the true number of program headers is in section header 0
_MANY_SECTIONS = 1 << 17  # a linked file has under a hundred
_LONG_CHAIN = 1 << 16  # symbols in one hash bucket; usual are two or three
_LONG_NOTES = 1 << 16  # all notes of a file have a few hundred bytes
_LONG_SECTION_NAME = 256
_MANY_SEGMENTS = 1024  # a linked file has four or five
_MANY_NEEDED = 1024


@dataclass(frozen=True, slots=True)
class Segment:
    """One PT_LOAD program header; offset and sizes in bytes, flags as PF_R, PF_W, PF_X."""

    offset: int
    vaddr: int
    filesz: int
    memsz: int
    flags: int

    @property
    def executable(self) -> bool:
        """Return whether code may run in it."""
        return bool(self.flags & P_FLAGS.PF_X)


class Elf:
    """A parsed file; it keeps the bytes it was given, and reads the larger tables from them when asked."""

    def __init__(self, data: bytes | mmap | memoryview) -> None:
        """Parse the headers; `parse()` says the same and is what callers use."""
        self.data: bytes | mmap = bytes(data) if isinstance(data, memoryview) else data
        self._view = memoryview(self.data)
        self._read_identification()
        fields = struct.unpack("<HHIQQQIHHHHHH", self._bytes(16, 48, "ELF header"))
        self.type, self.machine, _, self.entry, phoff, shoff, _, _, phentsize, phnum, shentsize, shnum, shstrndx = (
            fields
        )
        self.is_64bit = True
        if self.machine != ENUM_E_MACHINE["EM_X86_64"]:
            raise ElfUnsupported(f"the file is for machine {self.machine}, not for x86-64", self.machine)
        if self.type not in (2, 3):
            raise ElfUnsupported("the file is neither an executable nor a shared library", self.machine)
        self._section_offset = shoff
        self._sections = self._section_headers(shoff, shentsize, shnum)
        if phnum == _EXTENDED_COUNT and len(self._sections):
            phnum = int(self._sections["info"][0])
        if shstrndx == SHN_INDICES.SHN_XINDEX and len(self._sections):
            shstrndx = int(self._sections["link"][0])
        self._names_section = shstrndx
        if phnum and phentsize != _PROGRAM_HEADER.itemsize:
            raise ElfError(f"program headers of {phentsize} bytes")
        self._headers = self._array(phoff, phnum, _PROGRAM_HEADER, "program headers")
        self.segments = self._load_segments()

    @classmethod
    def parse(cls, data: bytes | mmap | memoryview) -> Self:
        """Return the file in these bytes; raises ElfError if damaged, ElfUnsupported if for another machine."""
        return cls(data)

    def _read_identification(self) -> None:
        if len(self._view) < 64 or bytes(self._view[:4]) != b"\x7fELF":
            raise ElfError("not an ELF file")
        if self._view[4] == 1:
            machine = int.from_bytes(self._view[18:20], "little")
            raise ElfUnsupported("a 32-bit file", machine, is_64bit=False)
        if self._view[4] != 2 or self._view[5] not in (1, 2):
            raise ElfError("neither a 32-bit nor a 64-bit ELF file")
        if self._view[5] == 2:
            raise ElfUnsupported("a big-endian file")

    def _bytes(self, offset: int, size: int, what: str) -> memoryview:
        if offset < 0 or size < 0 or offset + size > len(self._view):
            raise ElfError(f"{what}: the file ends before it")
        return self._view[offset : offset + size]

    def _array(self, offset: int, count: int, dtype: np.dtype[Any], what: str) -> np.ndarray:
        if count == 0:
            return np.empty(0, dtype)
        return np.frombuffer(self._bytes(offset, count * dtype.itemsize, what), dtype)

    def _section_headers(self, offset: int, entsize: int, count: int) -> np.ndarray:
        if offset == 0:
            return np.empty(0, _SECTION_HEADER)
        if entsize != _SECTION_HEADER.itemsize:
            raise ElfError(f"section headers of {entsize} bytes")
        if count == 0:
            count = int(self._array(offset, 1, _SECTION_HEADER, "section headers")["size"][0])
        if count > _MANY_SECTIONS:
            raise ElfError(f"{count} section headers")
        return self._array(offset, count, _SECTION_HEADER, "section headers")

    def _load_segments(self) -> tuple[Segment, ...]:
        rows = self._headers[self._headers["type"] == ENUM_P_TYPE_BASE["PT_LOAD"]]
        if len(rows) > _MANY_SEGMENTS:
            raise ElfError(f"{len(rows)} segments")
        return tuple(Segment(*row) for row in rows[["offset", "vaddr", "filesz", "memsz", "flags"]].tolist())

    @property
    def load_address(self) -> int:
        """Return the vaddr of the lowest PT_LOAD segment, from which symbolic counts; 0 without segments."""
        return min((segment.vaddr for segment in self.segments), default=0)

    @property
    def image_base(self) -> int:
        """Return the vaddr at which the file's first page is mapped, rounded down to a page."""
        return self.load_address & -PAGE

    def file_offset_to_vaddr(self, offset: int) -> int | None:
        """Return the vaddr of a byte of the file, in an executable segment if it lies in several; None if in none."""
        for start, end, difference in self._in_file:
            if start <= offset < end:
                return offset + difference
        return None

    @cached_property
    def _in_file(self) -> tuple[tuple[int, int, int], ...]:
        """Return (start, end, vaddr - offset) of the segments in the file, executable ones first."""
        parts = sorted(self.segments, key=lambda part: not part.executable)
        return tuple((part.offset, part.offset + part.filesz, part.vaddr - part.offset) for part in parts)

    def vaddr_to_file_offset(self, vaddr: int) -> int | None:
        """Return where in the file the byte at the vaddr lies; None if it is in no segment or not in the file."""
        for part in self.segments:
            if part.vaddr <= vaddr < part.vaddr + part.filesz:
                return vaddr - part.vaddr + part.offset
        return None

    @cached_property
    def _section_index(self) -> dict[bytes, int]:
        """Return section name → index in the section headers; the first of equal names."""
        if self._names_section == 0 or self._names_section >= len(self._sections):
            return {}
        table = self._strings(self._names_section)
        names = [table.name(offset, _LONG_SECTION_NAME) for offset in self._sections["name"].tolist()]
        return {name: index for index, name in reversed(list(enumerate(names)))}

    def section(self, name: str) -> Section | None:
        """Return the section of that name, None if there is none; raises ElfError if it lies outside the file."""
        index = self._section_index.get(name.encode())
        if index is None:
            return None
        kind, flags, vaddr, offset, size = self._sections[["type", "flags", "vaddr", "offset", "size"]][index].tolist()
        in_file = 0 if kind == _SECTION_TYPE["SHT_NOBITS"] else size
        return Section(name, kind, flags, vaddr, offset, size, self._bytes(offset if in_file else 0, in_file, name))

    def symbol_table_types(self) -> list[int]:
        """Return the file offsets of the types in the headers of its symbol tables, for who reads the file without."""
        kinds = [_SECTION_TYPE["SHT_SYMTAB"], _SECTION_TYPE["SHT_DYNSYM"]]
        rows = np.flatnonzero(np.isin(self._sections["type"], kinds))
        return [self._section_offset + row * _SECTION_HEADER.itemsize + 4 for row in rows.tolist()]

    def _strings(self, index: int) -> StringTable:
        if index >= len(self._sections) or self._sections["type"][index] != _SECTION_TYPE["SHT_STRTAB"]:
            raise ElfError(f"section {index} is no string table")
        offset, size = self._sections[["offset", "size"]][index].tolist()
        self._bytes(offset, size, "string table")
        return StringTable(self.data, offset, size)

    @cached_property
    def build_id(self) -> str | None:
        """Return the GNU build id in hex, None if the file has none."""
        segments = self._headers[self._headers["type"] == ENUM_P_TYPE_BASE["PT_NOTE"]][["offset", "filesz", "align"]]
        sections = self._sections[self._sections["type"] == _SECTION_TYPE["SHT_NOTE"]][["offset", "size", "align"]]
        budget = _LONG_NOTES
        for offset, size, align in segments.tolist() + sections.tolist():
            budget -= min(size, budget)
            if budget and offset + size <= len(self._view):
                found = build_id_in_notes(self._view[offset : offset + size], 8 if align == 8 else 4)
                if found is not None:
                    return found
        return None

    @cached_property
    def _dynamic(self) -> np.ndarray:
        """Return the entries of the dynamic section before DT_NULL."""
        rows = self._headers[self._headers["type"] == ENUM_P_TYPE_BASE["PT_DYNAMIC"]]
        if not len(rows):
            return np.empty(0, _DYNAMIC)
        offset, size = rows[["offset", "filesz"]][0].tolist()
        entries = self._array(offset, size // _DYNAMIC.itemsize, _DYNAMIC, "dynamic section")
        end = np.flatnonzero(entries["tag"] == 0)
        return entries[: end[0]] if len(end) else entries

    def _dynamic_values(self, tag: str) -> list[int]:
        values: list[int] = self._dynamic["value"][self._dynamic["tag"] == ENUM_D_TAG[tag]][:_MANY_NEEDED].tolist()
        return values

    def _dynamic_offset(self, tag: str) -> int:
        values = self._dynamic_values(tag)
        offset = self.vaddr_to_file_offset(values[0]) if values else None
        if offset is None:
            raise ElfError(f"dynamic section: {tag} is missing or points outside the file")
        return offset

    @cached_property
    def _dynamic_strings(self) -> StringTable:
        offset, size = self._dynamic_offset("DT_STRTAB"), sum(self._dynamic_values("DT_STRSZ")[:1])
        self._bytes(offset, size, "dynamic strings")
        return StringTable(self.data, offset, size)

    def _dynamic_names(self, tag: str) -> tuple[str, ...]:
        return tuple(
            self._dynamic_strings.name(offset).decode("utf-8", "surrogateescape")
            for offset in self._dynamic_values(tag)
        )

    @property
    def soname(self) -> str | None:
        """Return DT_SONAME, None if there is none; raises ElfError if the dynamic section is damaged."""
        return next(iter(self._dynamic_names("DT_SONAME")), None)

    @property
    def needed(self) -> tuple[str, ...]:
        """Return the names of the libraries it is linked with; raises ElfError if the dynamic section is damaged."""
        return self._dynamic_names("DT_NEEDED")

    @property
    def interpreter(self) -> str | None:
        """Return the path of its dynamic loader, None for a static program or a library."""
        rows = self._headers[self._headers["type"] == ENUM_P_TYPE_BASE["PT_INTERP"]]
        if not len(rows):
            return None
        offset, size = rows[["offset", "filesz"]][0].tolist()
        self._bytes(offset, size, "interpreter")
        return c_string(self.data, offset, offset + size).decode("utf-8", "surrogateescape")

    @property
    def has_dwarf(self) -> bool:
        """Return whether the file carries debugging information; raises ElfError if its section names are damaged."""
        return b".debug_info" in self._section_index or b".zdebug_info" in self._section_index

    @cached_property
    def has_symtab(self) -> bool:
        """Return whether it has a symbol table of all functions, not only of those it exports or needs."""
        return bool((self._sections["type"] == _SECTION_TYPE["SHT_SYMTAB"]).any())

    def symbols(self) -> SymbolTable:
        """Return the functions of .symtab and .dynsym, made once; raises ElfError if a table is damaged."""
        return self._symbols

    @cached_property
    def _symbols(self) -> SymbolTable:
        if not len(self._sections):
            tables = [self._dynamic_symbols()] if self._dynamic_values("DT_SYMTAB") else []
        else:
            tables = [
                self._section_symbols(int(rows[0]))
                for kind in ("SHT_SYMTAB", "SHT_DYNSYM")
                if len(rows := np.flatnonzero(self._sections["type"] == _SECTION_TYPE[kind]))
            ]
        sections = self._sections[:0xFF00]
        ends = sections["vaddr"] + sections["size"]
        executable = (sections["flags"] & SH_FLAGS.SHF_EXECINSTR) != 0
        segments = [(part.vaddr, part.vaddr + part.memsz) for part in self.segments if part.executable]
        return SymbolTable.build(tables, ends, executable, segments)

    def _section_symbols(self, index: int) -> Symbols:
        offset, size, link = self._sections[["offset", "size", "link"]][index].tolist()
        rows = self._array(offset, size // SYMBOL.itemsize, SYMBOL, "symbol table")
        hidden = None
        versions = np.flatnonzero(self._sections["type"] == _SECTION_TYPE["SHT_GNU_versym"])
        if self._sections["type"][index] == _SECTION_TYPE["SHT_DYNSYM"] and len(versions):
            start, length = self._sections[["offset", "size"]][versions[0]].tolist()
            if length == 2 * len(rows):
                hidden = self._array(start, len(rows), np.dtype("<u2"), "symbol versions") >= 0x8000
        return Symbols(rows, self._strings(link), hidden)

    def _dynamic_symbols(self) -> Symbols:
        """Return the dynamic symbols of a file without section headers; their number follows from the hash table."""
        offset = self._dynamic_offset("DT_SYMTAB")
        if self._dynamic_values("DT_HASH"):
            count = struct.unpack_from("<4xI", self._bytes(self._dynamic_offset("DT_HASH"), 8, "hash table"))[0]
        else:
            count = self._gnu_hash_count(self._dynamic_offset("DT_GNU_HASH"))
        return Symbols(self._array(offset, count, SYMBOL, "dynamic symbols"), self._dynamic_strings, None)

    def _gnu_hash_count(self, offset: int) -> int:
        buckets, first, blooms, _ = struct.unpack("<IIII", self._bytes(offset, 16, "hash table"))
        start = offset + 16 + 8 * blooms
        last = int(self._array(start, buckets, np.dtype("<u4"), "hash table").max(initial=0))
        if last < first:
            return int(first)
        # The chain of the last bucket ends with an odd value.
        chain = start + 4 * buckets + 4 * (last - first)
        length = max(0, min(_LONG_CHAIN, (len(self._view) - chain) // 4))
        ends = np.flatnonzero(self._array(chain, length, np.dtype("<u4"), "hash table") & 1)
        if not len(ends):
            raise ElfError("hash table: its last chain has no end")
        return last + int(ends[0]) + 1
