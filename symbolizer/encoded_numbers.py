"""Numbers as call frame information encodes them: LEB128 (DWARF 5, section 7.6) and pointers (DW_EH_PE_*)."""

import struct
from mmap import mmap
from typing import Final

MAX_LEB128: Final = 10  # bytes of the longest 64-bit number
OMIT: Final = 0xFF  # DW_EH_PE_omit: no pointer at all


def read_uleb(data: bytes | mmap, at: int) -> tuple[int, int]:
    """Return the unsigned LEB128 at `at` and the position after it; raise ValueError if it has no end."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value = shift = 0
    for position in range(at, at + MAX_LEB128):
        byte = data[position]
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, position + 1
    raise ValueError("LEB128 without an end")


def read_sleb(data: bytes | mmap, at: int) -> tuple[int, int]:
    """Return the signed LEB128 at `at` and the position after it; raise ValueError if it has no end."""
    value, after = read_uleb(data, at)
    bits = 7 * (after - at)
    return value - (value >> bits - 1 << bits), after


_FIXED: Final = {
    format_: struct.Struct(code)
    for format_, code in ((0x0, "<Q"), (0x2, "<H"), (0x3, "<I"), (0x4, "<Q"), (0xA, "<h"), (0xB, "<i"), (0xC, "<q"))
}


def read_pointer(data: bytes | mmap, at: int, encoding: int, vaddr: int, data_base: int = 0) -> tuple[int, int]:
    """Return the encoded pointer at `at`, which is mapped at `vaddr`, and the position after it.

    Encodings: Linux Standard Base Core, table 10.5 (DW_EH_PE_*). Raise ValueError or LookupError for indirect,
    text-relative, function-relative and aligned pointers: they need more than the object's own bytes, or do not occur.
    """
    format_, application = encoding & 0x0F, encoding & 0xF0
    if format_ == 0x1:
        value, after = read_uleb(data, at)
    elif format_ == 0x9:
        value, after = read_sleb(data, at)
    else:
        fixed = _FIXED[format_]
        value, after = fixed.unpack_from(data, at)[0], at + fixed.size
    if application == 0x10:
        value += vaddr
    elif application == 0x30:
        value += data_base
    elif application:
        raise ValueError("pointer encoding")
    return value & 0xFFFFFFFFFFFFFFFF, after
