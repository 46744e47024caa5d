"""Every instruction at which a function returns, through tail calls too: where to probe one that may throw."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import capstone
from capstone import x86_const as x86

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.unwind_info import UnwindInfo

#: A function with more parts than this is not one that hands out memory.
MAX_FUNCTIONS = 64
MAX_EXITS = 256
#: DT_JMPREL and DT_RELA entries of these kinds hold a function's address (x86-64 psABI, table 4.9).
R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT = 6, 7


@dataclass(slots=True)
class _Search:
    elf: Elf
    unwind: UnwindInfo
    imported: Callable[[int], int | None]
    decoder: capstone.Cs
    exits: set[int] = field(default_factory=set)
    seen: set[int] = field(default_factory=set)
    waiting: list[int] = field(default_factory=list)


def find_exits(elf: Elf, unwind: UnwindInfo, vaddr: int) -> tuple[int, ...] | None:
    """Return the virtual addresses of all return instructions that end a call of the function at vaddr.

    None where one cannot be found for sure: a jump through a register, or to another file.
    """
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    search = _Search(elf, unwind, _imports(elf), decoder, waiting=[vaddr])
    while search.waiting:
        start = search.waiting.pop()
        if start in search.seen:
            continue
        search.seen.add(start)
        if len(search.seen) > MAX_FUNCTIONS or len(search.exits) > MAX_EXITS or not _read_part(search, start):
            return None
    return tuple(sorted(search.exits)) or None


def _read_part(search: _Search, start: int) -> bool:
    """Add the exits of the function (or the cold part of one) at start; False if it leads somewhere unknown."""
    bounds = search.unwind.function_bounds(start)
    offset = search.elf.vaddr_to_file_offset(start)
    if offset is None:
        return False
    if bounds is None:
        return _follow_stub(search, start, offset)
    first, end = bounds
    if first != start and first not in search.seen:
        # A jump into the middle, to a part that lies elsewhere: all of that part's exits count.
        search.waiting.append(first)
        return True
    code = bytes(search.elf.data[offset : offset + end - start])
    at = start
    for instruction in search.decoder.disasm(code, start):
        at = instruction.address + instruction.size
        if instruction.group(capstone.CS_GRP_RET):
            search.exits.add(instruction.address)
        elif instruction.group(capstone.CS_GRP_JUMP):
            target = _target(search, instruction)
            if target is None:
                return False
            if not first <= target < end:
                search.waiting.append(target)
    # Data between the code stops the decoder: what lies behind it is not known.
    return at >= end


def _follow_stub(search: _Search, start: int, offset: int) -> bool:
    """Follow a jump of the procedure linkage table, which has no call frame information of its own in some files."""
    for instruction in search.decoder.disasm(bytes(search.elf.data[offset : offset + 16]), start):
        if instruction.group(capstone.CS_GRP_JUMP):
            target = _target(search, instruction)
            if target is not None:
                search.waiting.append(target)
            return target is not None
    return False


def _target(search: _Search, jump: capstone.CsInsn) -> int | None:
    operand = jump.operands[0]
    if operand.type == x86.X86_OP_IMM:
        # The linkage table's entries have frame information as one function; take the one entry.
        return _through_stub(search, operand.imm)
    if operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP:
        return search.imported(jump.address + jump.size + operand.mem.disp)
    return None


def _through_stub(search: _Search, target: int) -> int | None:
    offset = search.elf.vaddr_to_file_offset(target)
    if offset is None:
        return None
    for count, instruction in enumerate(
        search.decoder.disasm(bytes(search.elf.data[offset : offset + 16]), target)
    ):
        if instruction.mnemonic == "endbr64" and count == 0:
            continue
        if instruction.mnemonic in ("jmp", "bnd jmp") and instruction.operands[0].type == x86.X86_OP_MEM:
            return _target(search, instruction)
        break
    return target


def _imports(elf: Elf) -> Callable[[int], int | None]:
    """Return a look-up from an address in the global offset table to the function of this file that it will hold."""
    slots: dict[int, int] = {}
    try:
        symbols = elf.section(".dynsym")
        for name in (".rela.plt", ".rela.dyn"):
            section = elf.section(name)
            if section is None or symbols is None:
                continue
            data, table = section.data, symbols.data
            for at in range(0, len(data) - 23, 24):
                info = int.from_bytes(data[at + 8 : at + 16], "little")
                entry = (info >> 32) * 24
                if info & 0xFFFFFFFF in (R_X86_64_GLOB_DAT, R_X86_64_JUMP_SLOT) and entry + 24 <= len(table):
                    defined = int.from_bytes(table[entry + 6 : entry + 8], "little") != 0
                    if defined:
                        value = int.from_bytes(table[entry + 8 : entry + 16], "little")
                        slots[int.from_bytes(data[at : at + 8], "little")] = value
    except ElfError:
        return lambda _: None
    return slots.get
