"""Reads a BPF ring buffer in place, by the layout of the kernel's kernel/bpf/ringbuf.c."""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator

BUSY = 1 << 31
DISCARDED = 1 << 30
HEADER = struct.Struct("<II")
POSITION = struct.Struct("<Q")


class Ring:
    """The consumer's end of one ring buffer; its fd can be polled."""

    def __init__(self, fd: int, size: int) -> None:
        """Map the ring behind fd whose data area has size bytes, a power of two."""
        self.fd = fd
        self._mask = size - 1
        self._consumer = mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        # The data pages are mapped twice in a row, so a record that wraps is still one piece.
        self._data = mmap.mmap(fd, mmap.PAGESIZE + 2 * size, mmap.MAP_SHARED, mmap.PROT_READ, offset=mmap.PAGESIZE)
        self._view = memoryview(self._data)

    def records(self, limit: int = 1 << 30) -> Iterator[memoryview]:
        """Yield at most limit complete records; each is valid until the next one is asked for."""
        (position,) = POSITION.unpack_from(self._consumer, 0)
        for _ in range(limit):
            (produced,) = POSITION.unpack_from(self._data, 0)
            if position >= produced:
                return
            start = mmap.PAGESIZE + (position & self._mask)
            length, _page = HEADER.unpack_from(self._data, start)
            if length & BUSY:
                return
            size = length & ~(BUSY | DISCARDED)
            if not length & DISCARDED:
                yield self._view[start + 8 : start + 8 + size]
            position += (size + 8 + 7) & ~7
            POSITION.pack_into(self._consumer, 0, position)
