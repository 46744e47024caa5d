"""A compiled program as data: maps by name instead of file descriptor, and back."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.attach.bpf_object import BpfObject, Code, MapSpec, from_bytes, to_bytes, unlink


def instruction(opcode: int, registers: int = 0, immediate: int = 0) -> bytes:
    """Return one struct bpf_insn: opcode, dst_reg and src_reg of 4 bits each, offset, immediate."""
    return struct.pack("<BBhI", opcode, registers, 0, immediate)


#: r1 = map 5 (two slots); r2 = the number 5 (two slots); r3 = map 9; call 1; exit.
COMPILED = b"".join([
    instruction(0x18, 0x11, 5), instruction(0), instruction(0x18, 0x02, 5), instruction(0),
    instruction(0x18, 0x13, 9), instruction(0), instruction(0x85, 0, 1), instruction(0x95),
])  # fmt: skip
NAMES = {5: "sites", 9: "stacks"}

codes = st.builds(Code, st.binary(max_size=64), st.lists(st.tuples(st.integers(0, 7), st.text(max_size=5))).map(tuple))
numbers = st.integers(0, (1 << 32) - 1)
objects = st.builds(BpfObject, st.lists(st.builds(MapSpec, st.text(max_size=9), numbers, numbers, numbers, numbers)).map(tuple),
                    st.dictionaries(st.text(max_size=9), codes, max_size=4))


def test_references_to_maps_are_found() -> None:
    """Instructions that load a map are known by their source register; a plain number is left alone."""
    assert unlink(COMPILED, NAMES) == Code(COMPILED, ((0, "sites"), (4, "stacks")))


def test_other_maps_are_put_in() -> None:
    """With the maps of another process, these and no other instructions change."""
    linked = unlink(COMPILED, NAMES).linked({"sites": 0x01020304, "stacks": 77})
    expected = bytearray(COMPILED)
    struct.pack_into("<I", expected, 4, 0x01020304)
    struct.pack_into("<I", expected, 4 * 8 + 4, 77)
    assert linked == bytes(expected)
    assert unlink(COMPILED, NAMES).linked({"sites": 5, "stacks": 9}) == COMPILED


def test_an_unknown_map() -> None:
    """A reference to a map that has no name is an error, not a program without it."""
    with pytest.raises(KeyError):
        unlink(COMPILED, {5: "sites"})


@settings(deadline=None)
@given(objects)
def test_there_and_back(program: BpfObject) -> None:
    """What is written is read as the same."""
    assert from_bytes(to_bytes(program)) == program


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b"5", b"\xff", b'{"maps": [], "functions": {"f": {}}}',
                                  b'{"maps": [{}], "functions": {}}',
                                  b'{"maps": [], "functions": {"f": {"instructions": "*", "maps": []}}}'])
def test_anything_else(text: bytes) -> None:
    """Bytes that are no object raise what the caller expects."""
    with pytest.raises((ValueError, KeyError, TypeError)):
        from_bytes(text)
