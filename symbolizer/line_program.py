"""Runs a line number program (DWARF 5, section 6.2.5): which file and line each address is of.

pyelftools does that too, some fifty times slower: seconds for one unit of C++.
"""

from __future__ import annotations

from dataclasses import dataclass

# Opcodes, section 6.2.5.2 and 6.2.5.3.
_EXTENDED, _COPY, _ADVANCE_PC, _ADVANCE_LINE, _SET_FILE = 0, 1, 2, 3, 4
_CONST_ADD_PC, _FIXED_ADVANCE_PC = 8, 9
_END_SEQUENCE, _SET_ADDRESS = 1, 2
#: The operands of these are skipped, as those of unknown opcodes are: set_column, prologue_end and the like.
_MASK = (1 << 64) - 1

#: Address, file number, line; file 0 and line 0 behind a sequence.
Row = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Parameters:
    """What the header of a program says of its opcodes; `lengths` are the numbers of operands of opcodes 1 and up."""

    line_base: int
    line_range: int
    opcode_base: int
    instruction_length: int
    lengths: tuple[int, ...]


def run(data: bytes, header: Parameters) -> list[Row]:
    """Return the rows of the program in these bytes, in their order; a damaged one ends early.

    An address is of the last row at or before it. Raises IndexError where the bytes end within an instruction.
    """
    rows: list[Row] = []
    address, file, line = 0, 1, 1
    at, end = 0, len(data)
    base, range_, first, step = header.opcode_base, header.line_range or 1, header.line_base, header.instruction_length
    constant = (255 - base) // range_ * step
    while at < end:
        opcode = data[at]
        at += 1
        if opcode >= base:
            opcode -= base
            address += opcode // range_ * step
            line += first + opcode % range_
            rows.append((address, file, line))
        elif opcode == _EXTENDED:
            length, at = _unsigned(data, at)
            kind = data[at] if length else 0
            if kind == _END_SEQUENCE:
                rows.append((address, 0, 0))
                address, file, line = 0, 1, 1
            elif kind == _SET_ADDRESS:
                address = int.from_bytes(data[at + 1 : at + length], "little")
            at += length
        elif opcode == _COPY:
            rows.append((address, file, line))
        elif opcode == _ADVANCE_PC:
            value, at = _unsigned(data, at)
            address = address + value * step & _MASK
        elif opcode == _ADVANCE_LINE:
            value, at = _signed(data, at)
            line += value
        elif opcode == _SET_FILE:
            file, at = _unsigned(data, at)
        elif opcode == _CONST_ADD_PC:
            address += constant
        elif opcode == _FIXED_ADVANCE_PC:
            address += int.from_bytes(data[at : at + 2], "little")
            at += 2
        else:
            for _ in range(header.lengths[opcode - 1]):
                _, at = _unsigned(data, at)
    return rows


def _unsigned(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7


def _signed(data: bytes, at: int) -> tuple[int, int]:
    value, after = _unsigned(data, at)
    bits = 7 * (after - at)
    return (value - (1 << bits) if value >> bits - 1 else value), after
