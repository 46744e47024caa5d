"""Finds the words in a library's memory from which it learns, at run time, where its thread-local variables are.

The dynamic loader writes them when it relocates the library (System V ABI, x86-64 supplement, table 4.10); read back
from the process, one of them tells where each thread has its copy of the library's TLS segment.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from elftools.elf.constants import SHN_INDICES
from elftools.elf.enums import ENUM_RELOC_TYPE_x64

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.symbol_table import SYMBOL

# Elf64_Rela, System V ABI, chapter 4; info is split into its halves.
_RELOCATION = np.dtype([("vaddr", "<u8"), ("type", "<u4"), ("symbol", "<u4"), ("addend", "<i8")])


class SlotKind(IntEnum):
    """What a word holds."""

    MODULE = ENUM_RELOC_TYPE_x64["R_X86_64_DTPMOD64"]
    """The number of the library's TLS module, an index of each thread's dynamic thread vector."""
    OFFSET = ENUM_RELOC_TYPE_x64["R_X86_64_TPOFF64"]
    """Where a variable of the library is, seen from the thread pointer (signed)."""


@dataclass(frozen=True, slots=True)
class TlsSlot:
    """A word at a vaddr of the library; variable: the offset in the TLS segment of the one that it is about."""

    kind: SlotKind
    vaddr: int
    variable: int


def tls_slots(elf: Elf) -> tuple[TlsSlot, ...]:
    """Return one word of each kind that the file has, OFFSET first; damaged tables count as empty."""
    rows, symbols = _table(elf, ".rela.dyn", _RELOCATION), _table(elf, ".dynsym", SYMBOL)
    found = []
    for kind in (SlotKind.OFFSET, SlotKind.MODULE):
        mine = rows[rows["type"] == kind]
        # Without a symbol it is about a static variable. Another library's variable tells nothing about this one's.
        local = mine[mine["symbol"] == 0]
        named = mine[(mine["symbol"] > 0) & (mine["symbol"] < len(symbols))]
        named = named[symbols["section"][named["symbol"]] != SHN_INDICES.SHN_UNDEF]
        if len(local):
            found.append(TlsSlot(kind, int(local["vaddr"][0]), int(local["addend"][0])))
        elif len(named):
            value = int(symbols["value"][named["symbol"][0]])
            found.append(TlsSlot(kind, int(named["vaddr"][0]), value + int(named["addend"][0])))
    return tuple(found)


def _table(elf: Elf, name: str, dtype: np.dtype[np.void]) -> np.ndarray:
    try:
        section = elf.section(name)
    except ElfError:
        section = None
    if section is None or section.is_compressed:
        return np.empty(0, dtype)
    return np.frombuffer(section.raw, dtype, len(section.raw) // dtype.itemsize)
