import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.encoded_numbers import read_pointer, read_sleb, read_uleb


@given(st.integers(-(1 << 63), (1 << 63) - 1), st.booleans())
def test_leb128(value: int, signed: bool) -> None:
    """LEB128 numbers are read as they were written."""
    value = value if signed else abs(value)
    written, rest = bytearray(), value
    while not (rest == 0 and (not signed or not written or not written[-1] & 0x40)) and not (
        signed and rest == -1 and written and written[-1] & 0x40
    ):
        written.append(rest & 0x7F)
        rest >>= 7
    written = written or bytearray(1)
    encoded = bytes(byte | 0x80 for byte in written[:-1]) + bytes(written[-1:])
    assert (read_sleb if signed else read_uleb)(encoded + b"\xff", 0) == (value, len(encoded))


@pytest.mark.parametrize(
    ("encoding", "written", "value"),
    [
        (0x00, struct.pack("<Q", 0x1234567890), 0x1234567890),
        (0x03, struct.pack("<I", 0xFFFFFFFE), 0xFFFFFFFE),
        (0x04, struct.pack("<Q", 7), 7),
        (0x0B, struct.pack("<i", -2), 0xFFFFFFFFFFFFFFFE),
        (0x1B, struct.pack("<i", -2), 0xFFE),
        (0x1C, struct.pack("<q", -2), 0xFFE),
        (0x3B, struct.pack("<i", -2), 0x1FFE),
        (0x33, struct.pack("<I", 2), 0x2002),
        (0x12, struct.pack("<H", 2), 0x1002),
        (0x11, b"\x02", 0x1002),
        (0x19, b"\x7e", 0xFFE),
    ],
)
def test_pointer_encodings(encoding: int, written: bytes, value: int) -> None:
    """Every pointer encoding found in practice is read: absolute, relative to itself, relative to a base."""
    assert read_pointer(b"?" + written, 1, encoding, 0x1000, 0x2000) == (value, 1 + len(written))


@pytest.mark.parametrize("encoding", [0x9B, 0x20, 0x40, 0x50, 0x05])
def test_other_pointer_encodings_are_errors(encoding: int) -> None:
    """Indirect, text-relative, function-relative, aligned and reserved pointers are not guessed."""
    with pytest.raises((ValueError, LookupError)):
        read_pointer(bytes(16), 0, encoding, 0)
