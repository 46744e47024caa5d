"""The functions of one ELF file, sorted by address: numpy columns, and names read only when asked for."""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from mmap import mmap
from typing import Self

import numpy as np
from elftools.elf.constants import SHN_INDICES
from elftools.elf.enums import ENUM_ST_INFO_BIND, ENUM_ST_INFO_TYPE

# Elf64_Sym, System V ABI, chapter 4.
SYMBOL = np.dtype(
    [("name", "<u4"), ("info", "u1"), ("other", "u1"), ("section", "<u2"), ("value", "<u8"), ("size", "<u8")]
)
_FUNCTIONS = (ENUM_ST_INFO_TYPE["STT_FUNC"], ENUM_ST_INFO_TYPE["STT_LOOS"])  # STT_GNU_IFUNC is STT_LOOS on Linux
_LABEL = ENUM_ST_INFO_TYPE["STT_NOTYPE"]

# Bits of a row's rank: the lower the rank, the better the row.
_HIDDEN_VERSION, _IS_LABEL, _IS_LOCAL = 1, 2, 4
_ALIASES = 64  # how many names of one address are compared
_LONG_NAME = 1 << 16
_MANY_SEGMENTS = 64  # a linked file has one or two with code
_LAST = 2**64 - 1


def c_string(data: bytes | mmap, start: int, end: int, longest: int = _LONG_NAME) -> bytes:
    """Return the bytes from start to the first NUL before end, at most `longest` of them."""
    end = min(end, start + longest)
    nul = data.find(b"\0", start, end)
    return data[start : end if nul < 0 else nul]


@dataclass(frozen=True, slots=True)
class StringTable:
    """Where in the file's bytes a string table lies; offset and size in bytes, within the file."""

    data: bytes | mmap
    offset: int
    size: int

    def name(self, position: int, longest: int = _LONG_NAME) -> bytes:
        """Return the name at a position in the table, at most `longest` bytes; empty if the position lies outside."""
        if position >= self.size:
            return b""
        return c_string(self.data, self.offset + position, self.offset + self.size, longest)

    def eight_bytes(self, positions: np.ndarray) -> np.ndarray:
        """Return the 8 bytes at each position as one little-endian number, zeros after the table's end; shape (n,)."""
        tail = bytes(memoryview(self.data)[self.offset + max(0, self.size - 8) : self.offset + self.size])
        text = np.frombuffer(tail.ljust(8, b"\0") + bytes(8), np.uint8)
        last = max(0, self.size - 8)
        # A window of 8 bytes starts at every byte: one view without a copy.
        ends: np.ndarray = np.ndarray((9,), "<u8", text, strides=(1,))[np.clip(positions - last, 0, 8)]
        if self.size < 8:
            return ends
        windows: np.ndarray = np.ndarray((last + 1,), "<u8", self.data, self.offset, (1,))
        return np.where(positions <= last, windows[np.minimum(positions, last)], ends)


@dataclass(frozen=True, slots=True)
class Symbols:
    """One symbol section: rows of SYMBOL, their names, and for dynamic ones which are not the default version."""

    rows: np.ndarray
    strings: StringTable
    hidden: np.ndarray | None


@dataclass(frozen=True, eq=False)
class SymbolTable:
    """The functions of a file, sorted by value; all columns have shape (n,).

    `value` and `end` are vaddrs (equal where the size is unknown), `limit` is where the section or segment ends,
    `name` a position in `strings[origin]`, `rank` is lower for what is rather shown. A function that is in both
    .symtab and .dynsym has two rows with one name, and the answers are as if it had one.
    """

    value: np.ndarray
    end: np.ndarray
    limit: np.ndarray
    name: np.ndarray
    origin: np.ndarray
    rank: np.ndarray
    strings: tuple[StringTable, ...]
    _reach: np.ndarray = field(repr=False)  # the highest end among the rows up to this one

    @classmethod
    def build(
        cls,
        tables: Sequence[Symbols],
        section_ends: np.ndarray,
        section_executable: np.ndarray,
        segments: Sequence[tuple[int, int]],
    ) -> Self:
        """Return the functions of the tables, and the labels that lie in executable sections.

        `section_ends` and `section_executable` are indexed by section number; `segments` are the executable
        ones as [start, end), for symbols whose section is not known.
        """
        executable = np.zeros(0x10000, bool)
        executable[: len(section_executable)] = section_executable
        ends = np.zeros(0x10000, np.uint64)
        ends[: len(section_ends)] = section_ends
        kept = [_kept(table, executable) for table in tables]
        parts = [table.rows[keep] for table, (keep, _) in zip(tables, kept, strict=True)]
        rows = np.concatenate([np.empty(0, SYMBOL), *parts])
        rank = np.concatenate([np.empty(0, np.uint8), *(ranks for _, ranks in kept)])
        origin = np.repeat(np.arange(len(tables), dtype=np.uint8), [len(ranks) for _, ranks in kept])
        order = np.lexsort((rank, rows["value"]))
        rows, rank, origin = rows[order], rank[order], origin[order]
        value = np.ascontiguousarray(rows["value"])
        limit = ends[rows["section"]]
        unknown = np.flatnonzero(limit == 0)
        for start, stop in segments[:_MANY_SEGMENTS]:
            inside = unknown[(value[unknown] >= start) & (value[unknown] < min(stop, _LAST))]
            limit[inside] = min(stop, _LAST)
        end = value + np.minimum(rows["size"], np.uint64(_LAST) - value)
        reach = np.maximum.accumulate(end) if len(end) else end
        name = np.ascontiguousarray(rows["name"])
        return cls(value, end, limit, name, origin, rank, tuple(table.strings for table in tables), reach)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.value)

    @property
    def size(self) -> np.ndarray:
        """Return the size of each symbol in bytes, 0 where the file does not say it; shape (n,)."""
        sizes: np.ndarray = self.end - self.value
        return sizes

    def name_of(self, row: int) -> str:
        """Return a row's name; bytes that are no UTF-8 are written as \\xNN."""
        name = self.strings[int(self.origin[row])].name(int(self.name[row]))
        return name.decode("utf-8", "backslashreplace")

    def find(self, vaddr: int) -> tuple[str, int] | None:
        """Return the linker name of the function that covers the vaddr, and the vaddr's offset in it in bytes.

        A symbol with a size covers just that; one without covers up to the next symbol or its section's end, where
        none with a size does. Of several names, an exported one, one without underscores before it, and a short
        one are preferred. None where nothing covers the vaddr.
        """
        if not 0 <= vaddr < _LAST:
            return None
        starts, ends = self._as_numbers
        after = bisect_right(starts, vaddr)
        if after == 0:
            return None
        row = after - 1
        if ends[row] > vaddr and (row == 0 or starts[row - 1] != starts[row]):
            # Nearly all are as simple as that.
            return self.name_of(row), vaddr - starts[row]
        rows = self._sized(vaddr, after) if self._reach[after - 1] > vaddr else self._unsized(vaddr, after)
        if not rows:
            return None
        name = min(self._preference(row) for row in rows)[-1]
        return name, vaddr - int(self.value[rows[0]])

    @cached_property
    def _as_numbers(self) -> tuple[memoryview, memoryview]:
        """Return value and end for reading one by one: numpy takes some ten times longer to give a number."""
        return self.value.data, self.end.data

    def _preference(self, row: int) -> tuple[int, bool, int, str]:
        name = self.name_of(row)
        return int(self.rank[row]) & (_IS_LOCAL | _IS_LABEL), name.startswith("_"), len(name), name

    def _sized(self, vaddr: int, after: int) -> list[int]:
        """Return the rows that begin last among those whose size covers the vaddr."""
        row = after - 1
        if self.end[row] <= vaddr:
            row = int(np.flatnonzero(self.end[:after] > vaddr)[-1])
        first = int(np.searchsorted(self.value, self.value[row], "left"))
        return [other for other in range(first, min(row + 1, first + _ALIASES)) if self.end[other] > vaddr] or [row]

    def _unsized(self, vaddr: int, after: int) -> list[int]:
        """Return the rows just before the vaddr, if none of them has a size."""
        first = int(np.searchsorted(self.value, self.value[after - 1], "left"))
        if vaddr >= self.limit[after - 1] or np.any(self.end[first:after] > self.value[first:after]):
            return []
        return list(range(first, min(after, first + _ALIASES)))

    @cached_property
    def _prefixes(self) -> np.ndarray:
        """Return the first 8 bytes of every name as one number, shape (n,)."""
        return self._bytes_of_names(np.arange(len(self)), 0)

    def _bytes_of_names(self, rows: np.ndarray, skip: int) -> np.ndarray:
        """Return 8 bytes of the rows' names from byte `skip` on, each as one number, shape (len(rows),)."""
        found = np.zeros(len(rows), np.uint64)
        positions, origin = self.name[rows].astype(np.int64) + skip, self.origin[rows]
        for index, strings in enumerate(self.strings):
            mine = origin == index
            found[mine] = strings.eight_bytes(positions[mine])
        return found

    def defined(self, names: Iterable[str | bytes]) -> dict[str, int]:
        """Return name → vaddr of those names that the file defines as functions, whatever their symbol version.

        An exported function is preferred to a local one of the same name, the default version to an older one.
        """
        found: dict[str, int] = {}
        for name in names:
            raw = name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name
            rows = [row for row in self._named(raw) if not self.rank[row] & _IS_LABEL]
            if rows:
                best = min(rows, key=lambda row: (int(self.rank[row]), row))
                found[raw.decode("utf-8", "backslashreplace")] = int(self.value[best])
        return found

    def _named(self, name: bytes) -> list[int]:
        """Return the rows with that name, with or without a version after it."""
        if not name or b"\0" in name or len(name) >= _LONG_NAME:
            return []
        found: list[int] = []
        for whole in (name + b"\0", name + b"@"):
            start = int.from_bytes(whole[:8], "little")
            mask = (1 << 8 * min(8, len(whole))) - 1
            rows = np.flatnonzero((self._prefixes & np.uint64(mask)) == np.uint64(start))
            if len(whole) > 8:
                last = np.uint64(int.from_bytes(whole[-8:], "little"))
                rows = rows[self._bytes_of_names(rows, len(whole) - 8) == last]
            found += [row for row in rows.tolist() if self._raw_name(row).partition(b"@")[0] == name]
        return found

    def _raw_name(self, row: int) -> bytes:
        return self.strings[int(self.origin[row])].name(int(self.name[row]))


def _kept(table: Symbols, executable: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the numbers of the rows that name code, and the rank of each."""
    rows = table.rows
    kind, binding = rows["info"] & 15, rows["info"] >> 4
    function = (kind == _FUNCTIONS[0]) | (kind == _FUNCTIONS[1])
    code = function | ((kind == _LABEL) & executable[rows["section"]])
    named = (rows["name"] != 0) & (rows["name"] < table.strings.size)
    keep = np.flatnonzero(code & named & (rows["section"] != SHN_INDICES.SHN_UNDEF))
    rank = np.where(function[keep], 0, _IS_LABEL) | np.where(
        binding[keep] == ENUM_ST_INFO_BIND["STB_LOCAL"], _IS_LOCAL, 0
    )
    if table.hidden is not None:
        rank |= np.where(table.hidden[keep], _HIDDEN_VERSION, 0)
    return keep, rank.astype(np.uint8)
