import struct

import pytest

from symbolizer.cfa_program import CommonEntry, Machine
from symbolizer.unwind_rule import RuleKind, UnwindRule


def test_a_program_remembers_a_bounded_number_of_states() -> None:
    """DW_CFA_remember_state without end is an error, not a full memory."""
    machine = Machine(CommonEntry(1, -8, 16, 0, True, False, (7, 8), {16: -8}), 0)
    with pytest.raises(OverflowError):
        machine.run(b"\x0a" * 100_000, 0, 0)


@pytest.mark.parametrize("program", [b"\x02", b"\x03\x01", b"\x04\x01\x01", b"\x0e", b"\x0e\x80", b"\x86", b"\x0f\x02\x06"])
def test_truncated_operands_are_errors(program: bytes) -> None:
    """An operand that the program's end cuts off is never read as something shorter."""
    machine = Machine(CommonEntry(1, -8, 16, 0, True, False, (7, 8), {16: -8}), 0)
    with pytest.raises((ValueError, LookupError)):
        machine.run(program, 100, 0)


def test_set_loc_moves_the_location() -> None:
    """DW_CFA_set_loc reads a pointer in the encoding of the CIE, relative to where the pointer is mapped."""
    entry = CommonEntry(1, -8, 16, 0x1B, True, False, (7, 8), {16: -8})
    program = b"\x01" + struct.pack("<i", 0x10) + b"\x0e\x20"  # set_loc 0x2001 + 0x10; def_cfa_offset 32
    for target, offset in ((0x2010, 8), (0x2011, 32)):
        machine = Machine(entry, 0x2000)
        machine.run(program, target, 0x2000)
        assert machine.rule() == UnwindRule(RuleKind.CFA_SP, offset)
