"""Runs the call frame program of one function up to one pc, and says how to leave that frame.

The byte code is DWARF 5 section 6.4.2, with the additions of the Linux Standard Base (Core, chapter 10.6)
and of GNU. Register numbers are those of the x86-64 psABI, figure 3.36.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Final

from symbolizer.encoded_numbers import read_pointer, read_sleb, read_uleb
from symbolizer.unwind_rule import END, SIGNAL, UNSUPPORTED, BpKind, RuleKind, UnwindRule

RBP: Final = 6
RSP: Final = 7
RETURN_ADDRESS: Final = 16
TRACKED: Final = frozenset((RBP, RSP, RETURN_ADDRESS))  # all other registers are of no use for a stack of addresses

BREG6: Final = 0x76  # DW_OP_breg6: rbp + a signed LEB128
DEREF: Final = b"\x06"  # DW_OP_deref
SIGNAL_CFA: Final = b"\x77\xa0\x01\x06"  # DW_OP_breg7 160; DW_OP_deref: rsp in the kernel's ucontext, at [rsp]

MAX_REMEMBERED: Final = 256  # compilers nest DW_CFA_remember_state two deep at most; garbage may nest without end

GARBAGE: Final = (ValueError, LookupError, OverflowError, struct.error)  # what reading broken bytes raises


class Unsaved(Enum):
    """Say why a register cannot be read from memory."""

    UNDEFINED = auto()
    """It is lost; for the return address: there is no caller."""
    COMPUTED = auto()
    """It is in another register, or is a value rather than a place."""


RegisterRule = int | bytes | Unsaved  # saved at CFA + int, or where the expression says; no rule: unchanged
CfaRule = tuple[int, int] | bytes  # register + offset, or an expression


@dataclass(frozen=True, slots=True)
class CommonEntry:
    """What the functions of one CIE share."""

    code_alignment: int
    data_alignment: int
    return_column: int
    pointer_encoding: int
    has_augmentation_data: bool
    is_signal_frame: bool
    cfa: CfaRule
    rules: dict[int, RegisterRule]


class Machine:
    """The state of a call frame program; `run` it, then ask for the `rule`."""

    __slots__ = ("cfa", "entry", "location", "remembered", "rules")

    def __init__(self, entry: CommonEntry, location: int) -> None:
        self.entry = entry
        self.location = location
        self.cfa = entry.cfa
        self.rules = dict(entry.rules)
        self.remembered: list[tuple[CfaRule, dict[int, RegisterRule]]] = []

    def run(self, program: bytes, target: int, vaddr: int) -> None:
        """Execute `program`, mapped at `vaddr`, until its next row lies behind `target`; raise GARBAGE."""
        at, end = 0, len(program)
        entry = self.entry
        while at < end and self.location <= target:
            byte = program[at]
            at += 1
            primary, low = byte & 0xC0, byte & 0x3F
            if primary == 0x40:  # DW_CFA_advance_loc
                self.location += low * entry.code_alignment
            elif primary == 0x80:  # DW_CFA_offset
                factored, at = read_uleb(program, at)
                if low in TRACKED:
                    self.rules[low] = factored * entry.data_alignment
            elif primary == 0xC0:
                _restore(self, low)
            elif low == 0x0E:  # DW_CFA_def_cfa_offset, in line because it is the most frequent of the rest
                offset, at = read_uleb(program, at)
                _def_cfa_offset(self, offset)
            elif low == 0x01:  # DW_CFA_set_loc
                self.location, at = read_pointer(program, at, entry.pointer_encoding, vaddr + at)
            else:
                readers, act = _INSTRUCTIONS[low]
                operands = []
                for read in readers:
                    operand, at = read(program, at)
                    operands.append(operand)
                act(self, *operands)

    def rule(self) -> UnwindRule:
        """Return the current row of the table as an unwind rule."""
        if self.entry.return_column != RETURN_ADDRESS:
            return UNSUPPORTED
        saved_at = self.rules.get(RETURN_ADDRESS)
        if saved_at is Unsaved.UNDEFINED:
            return END
        if self.entry.is_signal_frame and self.cfa == SIGNAL_CFA:
            return SIGNAL
        if saved_at != -8 or RSP in self.rules:
            return UNSUPPORTED
        cfa, bp = _cfa_kind(self.cfa), _bp_kind(self.rules.get(RBP))
        if cfa is None or bp is None:
            return UNSUPPORTED
        rule = UnwindRule(*cfa, *bp)
        return rule if rule.fits else UNSUPPORTED

    def set(self, register: int, rule: RegisterRule) -> None:
        """Set the rule of a register, if it is one of the three that matter."""
        if register in TRACKED:
            self.rules[register] = rule


def _cfa_kind(cfa: CfaRule) -> tuple[RuleKind, int] | None:
    if isinstance(cfa, bytes):
        offset = _bp_based(cfa, DEREF)
        return None if offset is None else (RuleKind.CFA_DEREF_BP, offset)
    register, offset = cfa
    if register == RSP:
        return RuleKind.CFA_SP, offset
    return (RuleKind.CFA_BP, offset) if register == RBP else None


def _bp_kind(rule: RegisterRule | None) -> tuple[BpKind, int] | None:
    if rule is None:
        return BpKind.UNCHANGED, 0
    if isinstance(rule, int):
        return BpKind.AT_CFA, rule
    if isinstance(rule, bytes):
        offset = _bp_based(rule, b"")
        return None if offset is None else (BpKind.AT_BP, offset)
    return None


def _bp_based(expression: bytes, then: bytes) -> int | None:
    """Return N if the expression is DW_OP_breg6 N followed by `then`."""
    if not expression or expression[0] != BREG6:
        return None
    offset, after = read_sleb(expression, 1)
    return offset if expression[after:] == then else None


def _def_cfa(machine: Machine, register: int, offset: int) -> None:
    machine.cfa = (register, offset)


def _def_cfa_sf(machine: Machine, register: int, factored: int) -> None:
    machine.cfa = (register, factored * machine.entry.data_alignment)


def _def_cfa_register(machine: Machine, register: int) -> None:
    machine.cfa = (register, _plain(machine.cfa)[1])


def _def_cfa_offset(machine: Machine, offset: int) -> None:
    machine.cfa = (_plain(machine.cfa)[0], offset)


def _def_cfa_offset_sf(machine: Machine, factored: int) -> None:
    _def_cfa_offset(machine, factored * machine.entry.data_alignment)


def _plain(cfa: CfaRule) -> tuple[int, int]:
    if isinstance(cfa, bytes):
        raise ValueError("half of a CFA that is an expression")
    return cfa


def _def_cfa_expression(machine: Machine, expression: bytes) -> None:
    machine.cfa = expression


def _offset(machine: Machine, register: int, factored: int) -> None:
    machine.set(register, factored * machine.entry.data_alignment)


def _negative_offset(machine: Machine, register: int, factored: int) -> None:
    machine.set(register, -factored * machine.entry.data_alignment)


def _expression(machine: Machine, register: int, expression: bytes) -> None:
    machine.set(register, expression)


def _undefined(machine: Machine, register: int) -> None:
    machine.set(register, Unsaved.UNDEFINED)


def _computed(machine: Machine, register: int, _: object) -> None:
    machine.set(register, Unsaved.COMPUTED)


def _same_value(machine: Machine, register: int) -> None:
    machine.rules.pop(register, None)


def _restore(machine: Machine, register: int) -> None:
    if register in machine.entry.rules:
        machine.rules[register] = machine.entry.rules[register]
    else:
        machine.rules.pop(register, None)


def _remember_state(machine: Machine) -> None:
    if len(machine.remembered) == MAX_REMEMBERED:
        raise OverflowError("too many remembered states")
    machine.remembered.append((machine.cfa, dict(machine.rules)))


def _restore_state(machine: Machine) -> None:
    machine.cfa, machine.rules = machine.remembered.pop()


def _advance(machine: Machine, delta: int) -> None:
    machine.location += delta * machine.entry.code_alignment


def _nothing(machine: Machine, *_: object) -> None:
    pass


def _block(data: bytes, at: int) -> tuple[bytes, int]:
    size, start = read_uleb(data, at)
    if size > len(data) - start:
        raise ValueError("block past the end")
    return data[start : start + size], start + size


def _fixed(size: int) -> Callable[[bytes, int], tuple[int, int]]:
    def read(data: bytes, at: int) -> tuple[int, int]:
        if at + size > len(data):
            raise ValueError("operand past the end")
        return int.from_bytes(data[at : at + size], "little"), at + size

    return read


_Reader = Callable[[bytes, int], tuple[int | bytes, int]]
_U: Final = read_uleb
_S: Final = read_sleb

# DWARF 5 table 7.29, and the vendor codes of binutils' include/dwarf2.def: how to read the operands, what to do.
_INSTRUCTIONS: Final[dict[int, tuple[tuple[_Reader, ...], Callable[..., None]]]] = {
    0x00: ((), _nothing),  # nop
    0x02: ((_fixed(1),), _advance),
    0x03: ((_fixed(2),), _advance),
    0x04: ((_fixed(4),), _advance),
    0x05: ((_U, _U), _offset),  # offset_extended
    0x06: ((_U,), _restore),  # restore_extended
    0x07: ((_U,), _undefined),
    0x08: ((_U,), _same_value),
    0x09: ((_U, _U), _computed),  # register
    0x0A: ((), _remember_state),
    0x0B: ((), _restore_state),
    0x0C: ((_U, _U), _def_cfa),
    0x0D: ((_U,), _def_cfa_register),
    0x0F: ((_block,), _def_cfa_expression),
    0x10: ((_U, _block), _expression),
    0x11: ((_U, _S), _offset),  # offset_extended_sf
    0x12: ((_U, _S), _def_cfa_sf),
    0x13: ((_S,), _def_cfa_offset_sf),
    0x14: ((_U, _U), _computed),  # val_offset
    0x15: ((_U, _S), _computed),  # val_offset_sf
    0x16: ((_U, _block), _computed),  # val_expression
    0x2E: ((_U,), _nothing),  # GNU_args_size
    0x2F: ((_U, _U), _negative_offset),  # GNU_negative_offset_extended
}
