"""Reads a BPF ring buffer in place, by the layout of the kernel's kernel/bpf/ringbuf.c."""

from __future__ import annotations

import mmap
import struct
import time
from collections import deque
from collections.abc import Callable, Iterator

BUSY = 1 << 31
DISCARDED = 1 << 30
HEADER = struct.Struct("<II")
POSITION = struct.Struct("<Q")
#: Records handled in turn before new ones are looked at for urgent ones.
TURN = 32
#: Seconds, after which somebody else gets a turn: signals, reports.
LONGEST_DRAIN = 0.2


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

    def consumed(self) -> int:
        """Return up to where the ring has been released."""
        position: int = POSITION.unpack_from(self._consumer, 0)[0]
        return position

    def records(self, position: int) -> Iterator[tuple[int, memoryview | None]]:
        """Yield the complete records from position on: the position after each, and its bytes (None: discarded).

        The bytes stay valid until they are released.
        """
        while True:
            (produced,) = POSITION.unpack_from(self._data, 0)
            if position >= produced:
                return
            start = mmap.PAGESIZE + (position & self._mask)
            length, _page = HEADER.unpack_from(self._data, start)
            if length & BUSY:
                return
            size = length & ~(BUSY | DISCARDED)
            position += (size + 8 + 7) & ~7
            yield position, None if length & DISCARDED else self._view[start + 8 : start + 8 + size]

    def release(self, position: int) -> None:
        """Give everything before position back to the kernel side."""
        POSITION.pack_into(self._consumer, 0, position)


class RecordQueue:
    """Handles records in order, but urgent ones as soon as they are seen.

    A thousand copies of the same stack may wait when the first of another path arrives: as long as that one has no
    answer, its path goes on missing.
    """

    def __init__(self, ring: Ring, is_urgent: Callable[[memoryview], bool],
                 handle: Callable[[memoryview], None]) -> None:
        self._ring = ring
        self._is_urgent = is_urgent
        self._handle = handle
        self._seen = ring.consumed()
        self._waiting: deque[tuple[int, memoryview]] = deque()

    def drain(self) -> bool:
        """Handle what is there, for a limited time where more keeps coming; return whether there was anything."""
        start, until = self._seen, time.monotonic() + LONGEST_DRAIN
        while True:
            begin = self._seen
            for after, record in self._ring.records(begin):
                if record is not None:
                    if self._is_urgent(record):
                        self._handle(record)
                        # Or nothing would be released while one new path follows the other.
                        self._handle_oldest()
                        if not self._waiting:
                            self._ring.release(after)
                    else:
                        self._waiting.append((begin, record))
                begin = self._seen = after
            for _ in range(TURN):
                self._handle_oldest()
            if not self._waiting:
                self._ring.release(self._seen)
            if not self._waiting or time.monotonic() > until:
                return self._seen != start

    def _handle_oldest(self) -> None:
        """Handle the record that has waited longest, and release it at once: a thread may be waiting for the room.

        (wait_for_room() in bpf/stack.c)
        """
        if self._waiting:
            self._handle(self._waiting.popleft()[1])
            if self._waiting:
                self._ring.release(self._waiting[0][0])
