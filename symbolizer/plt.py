"""Names of the entries of procedure linkage tables, through which code calls what other files define: malloc@plt.

An entry has no symbol. It jumps to where a slot of the global offset table points, and a relocation says whose
address the loader writes into that slot (psABI for x86-64, section 5.2). So an entry is decoded and its slot looked
up among the relocations, which holds for every linker and every layout that ends in such a jump.
"""

from contextlib import suppress
from typing import Any, Final

import numpy as np

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.symbol_table import SYMBOL, StringTable

_RELOCATION: Final = np.dtype([("slot", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<u8")])
_GLOB_DAT, _JUMP_SLOT, _IRELATIVE = 6, 7, 37
_RELOCATIONS: Final = (".rela.plt", ".rela.dyn")
#: Section → bytes from one entry to the next. In .plt.got they are 16 where each begins with endbr64.
_TABLES: Final = {".plt": 16, ".plt.sec": 16, ".plt.bnd": 16, ".plt.got": 8, ".iplt": 16}
_ENDBR64: Final = b"\xf3\x0f\x1e\xfa"
#: How an entry begins, up to the 4 bytes that say how far behind the jump its slot is.
_JUMPS: Final = (b"\xff\x25", b"\xf2\xff\x25", _ENDBR64 + b"\xff\x25", _ENDBR64 + b"\xf2\xff\x25")
_LAST: Final = 2**64 - 1
_NOTHING: Final = (np.empty(0, np.uint64), np.empty(0, np.uint64), np.empty(0, _RELOCATION))


class PltNames:
    """The entries of one file whose slot has a relocation, sorted by vaddr; columns have shape (n,)."""

    __slots__ = ("_elf", "_relocation", "_size", "_start", "_strings", "_symbols")

    def __init__(self, elf: Elf) -> None:
        """Decode the file's tables; of a file in which one is damaged, nothing is known."""
        self._elf = elf
        self._symbols, self._strings = np.empty(0, SYMBOL), StringTable(b"", 0, 0)
        self._start, self._size, self._relocation = _NOTHING
        with suppress(ElfError):
            self._symbols = _rows(elf, ".dynsym", SYMBOL)
            if (strings := elf.section(".dynstr")) is not None:
                self._strings = StringTable(elf.data, strings.offset, len(strings.raw))
            self._start, self._size, self._relocation = _named_entries(elf)

    def __len__(self) -> int:
        """Return the number of entries."""
        return len(self._start)

    def find(self, vaddr: int) -> tuple[str, int] | None:
        """Return the name of the entry at the vaddr, such as "malloc@plt", and the offset in it in bytes; else None."""
        if not 0 <= vaddr <= _LAST:
            return None
        row = int(np.searchsorted(self._start, np.uint64(vaddr), "right")) - 1
        if row < 0 or vaddr - int(self._start[row]) >= int(self._size[row]):
            return None
        name = self._name(row)
        return (f"{name}@plt", vaddr - int(self._start[row])) if name else None

    def _name(self, row: int) -> str | None:
        _, kind, symbol, addend = self._relocation[row].tolist()
        if kind == _IRELATIVE:
            return self._resolved_by(addend)
        if not 0 < symbol < len(self._symbols):
            return None
        return self._strings.name(int(self._symbols["name"][symbol])).decode("utf-8", "backslashreplace")

    def _resolved_by(self, resolver: int) -> str | None:
        """Return the name of the function whose code is chosen by the one at that vaddr; both have the same."""
        try:
            found = self._elf.symbols().find(resolver)
        except ElfError:
            return None
        return found[0] if found is not None and found[1] == 0 else None


def plt_names(elf: Elf) -> PltNames:
    """Return the names of the file's entries; none where its tables are damaged or missing."""
    return PltNames(elf)


def _rows(elf: Elf, section: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Return the whole rows of a section, none if there is no such section."""
    found = elf.section(section)
    data = found.data if found is not None else b""
    count = len(data) // dtype.itemsize
    return np.frombuffer(data, dtype, count) if count else np.empty(0, dtype)


def _named_entries(elf: Elf) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vaddr, size in bytes, and relocation of every entry that has one, sorted by vaddr."""
    relocations = _slot_relocations(elf)
    if not len(relocations):
        return _NOTHING
    start, size, slot = _entries(elf)
    row = np.minimum(np.searchsorted(relocations["slot"], slot), len(relocations) - 1)
    known = np.flatnonzero(relocations["slot"][row] == slot)
    known = known[np.argsort(start[known], kind="stable")]
    return start[known], size[known], relocations[row[known]]


def _slot_relocations(elf: Elf) -> np.ndarray:
    """Return the relocations that fill a slot with a function's address, sorted by slot."""
    parts = []
    for section in _RELOCATIONS:
        rows = _rows(elf, section, _RELOCATION)
        kind = rows["type"]
        parts.append(rows[(kind == _JUMP_SLOT) | (kind == _GLOB_DAT) | (kind == _IRELATIVE)])
    found = np.concatenate(parts)
    return found[np.argsort(found["slot"], kind="stable")]


def _entries(elf: Elf) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return vaddr, size in bytes, and slot of every entry that ends in a jump through a slot."""
    parts = [_table_entries(elf, section, step) for section, step in _TABLES.items()]
    start, size, slot = (np.concatenate(column) for column in zip(*parts, strict=True))
    return start, size, slot


def _table_entries(elf: Elf, section: str, step: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    found = elf.section(section)
    code = bytes(found.data) if found is not None else b""
    if code.startswith(_ENDBR64):
        step = 16
    at = np.arange(0, len(code) - len(code) % step, step)
    entries = np.frombuffer(code, np.uint8, len(at) * step).reshape(-1, step)
    distance, after = np.zeros(len(at), np.int64), np.zeros(len(at), np.uint64)
    for jump in _JUMPS:
        end = len(jump) + 4
        if end > step:
            continue
        rows = np.flatnonzero((entries[:, : len(jump)] == np.frombuffer(jump, np.uint8)).all(axis=1))
        distance[rows] = np.ascontiguousarray(entries[rows, len(jump) : end]).view("<i4").ravel()
        after[rows] = end
    jumps = np.flatnonzero(after)
    start = at[jumps].astype(np.uint64) + np.uint64(found.vaddr if found is not None else 0)
    # Addresses wrap around as they do in the processor.
    return start, np.full(len(jumps), step, np.uint64), start + after[jumps] + distance[jumps].view(np.uint64)
