"""The build id of what a process has mapped, from its memory: proof that a file of the same name is the same file."""

from __future__ import annotations

import errno
import os
import struct
from collections.abc import Callable

from symbolizer.elf_notes import build_id_in_notes

#: Read(address, size) returns that memory, or raises OSError.
Reader = Callable[[int, int], bytes]
_HEADER = struct.Struct("<4sBB10xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_PT_LOAD, _PT_NOTE = 1, 4
_MOST_SEGMENTS = 64
_MOST_NOTES = 1 << 16
_LAST_ADDRESS = (1 << 63) - 1


def image_build_id(read: Reader, start: int) -> str | None:
    """Return the build id in hex of the ELF image whose first byte is mapped at start; None if it has none.

    Raises OSError where the memory cannot be read.
    """
    magic, width, order, _, _, _, _, offset, _, _, _, size, count, *_ = _HEADER.unpack(_read(read, start, _HEADER.size))
    if magic != b"\x7fELF" or width != 2 or order != 1 or size != _SEGMENT.size or count > _MOST_SEGMENTS:
        return None
    segments = list(_SEGMENT.iter_unpack(_read(read, start + offset, count * size)))
    # The segment with the file's first byte tells how far vaddrs are from where they are mapped.
    first = next((vaddr for kind, _, at, vaddr, *_ in segments if kind == _PT_LOAD and at == 0), None)
    if first is None:
        return None
    for kind, _, _, vaddr, _, filesize, _, align in segments:
        if kind == _PT_NOTE and filesize <= _MOST_NOTES:
            found = build_id_in_notes(memoryview(_read(read, start + vaddr - first, filesize)), 8 if align == 8 else 4)
            if found is not None:
                return found
    return None


def _read(read: Reader, address: int, size: int) -> bytes:
    if not 0 <= address <= _LAST_ADDRESS - size:
        raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    content = read(address, size)
    if len(content) != size:
        raise OSError(errno.EIO, os.strerror(errno.EIO))
    return content
