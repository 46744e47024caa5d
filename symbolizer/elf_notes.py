"""Notes of an ELF file, in a segment, a section or memory (System V ABI, chapter 5): the GNU build id."""

import struct

_NOTE_HEADER = struct.Struct("<III")
_NT_GNU_BUILD_ID = 3
_LONG_BUILD_ID = 64  # bytes; linkers write 8 to 32


def build_id_in_notes(notes: memoryview, align: int) -> str | None:
    """Return the GNU build id in hex in the bytes of a note segment of that alignment, None if it is not there."""
    position = 0
    while position + _NOTE_HEADER.size <= len(notes):
        name_size, size, kind = _NOTE_HEADER.unpack_from(notes, position)
        name = position + _NOTE_HEADER.size
        start = name + (name_size + align - 1) // align * align
        if start + size > len(notes):
            return None
        if kind == _NT_GNU_BUILD_ID and size <= _LONG_BUILD_ID and bytes(notes[name : name + name_size]) == b"GNU\0":
            return bytes(notes[start : start + size]).hex() or None
        position = start + (size + align - 1) // align * align
    return None
