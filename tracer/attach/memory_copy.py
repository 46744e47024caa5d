"""Copies ranges of another process's memory into a buffer of ours: many ranges a call, two calls at a time."""

from __future__ import annotations

import ctypes as ct
import errno
import mmap
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from tracer.attach.resident_pages import PAGE

_libc = ct.CDLL(None, use_errno=True)
_libc.process_vm_readv.argtypes = (ct.c_int, ct.c_void_p, ct.c_ulong, ct.c_void_p, ct.c_ulong, ct.c_ulong)
_libc.process_vm_readv.restype = ct.c_ssize_t
_libc.madvise.argtypes = (ct.c_void_p, ct.c_size_t, ct.c_int)

#: UIO_MAXIOV (linux/uio.h): ranges in one call.
MOST_RANGES = 1024
#: Bytes in one call: enough that calls cost nothing, few enough that two threads end together.
MOST_BYTES = 16 << 20
#: Where no more than this lies between two ranges, it is given as zeros, so that a consumer gets few long pieces.
LARGEST_GAP = 8 * PAGE
#: asm-generic/mman.h; Python has it since 3.13.
MAP_NORESERVE = 0x4000
HUGE_PAGE = 2 << 20
#: linux/mman.h, since Linux 5.14.
MADV_POPULATE_WRITE = 23
#: Copying threads; a third gains nothing where two share the memory's bandwidth.
COPIERS = 2


@dataclass(frozen=True, slots=True)
class Layout:
    """Where in a buffer each range comes to lie. Columns of rows: address, place in the buffer, size; i64 (n, 3).

    pieces, i64 (k, 3), has the same columns: ranges with the small gaps between them.
    """

    rows: np.ndarray
    pieces: np.ndarray

    @property
    def size(self) -> int:
        """Bytes of buffer that it takes."""
        return int(self.pieces[-1, 1] + self.pieces[-1, 2]) if len(self.pieces) else 0

    @property
    def bytes(self) -> int:
        """Bytes that are read for it."""
        return int(self.rows[:, 2].sum())


def lay_out(ranges: np.ndarray) -> Layout:
    """Return the layout of ranges, u64 (n, 2), in order, of whole pages."""
    ranges = _split(ranges.astype(np.int64))
    if not len(ranges):
        return Layout(np.empty((0, 3), np.int64), np.empty((0, 3), np.int64))
    gaps = ranges[1:, 0] - ranges[:-1, 1]
    begins = np.flatnonzero(np.concatenate(([True], gaps > LARGEST_GAP)))
    ends = np.append(begins[1:], len(ranges)) - 1
    sizes = ranges[ends, 1] - ranges[begins, 0]
    places = np.cumsum(sizes) - sizes
    of_piece = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(ranges))))
    rows = np.column_stack((ranges[:, 0], places[of_piece] + ranges[:, 0] - ranges[begins[of_piece], 0],
                            ranges[:, 1] - ranges[:, 0]))
    return Layout(rows, np.column_stack((ranges[begins, 0], places, sizes)))


def _split(ranges: np.ndarray) -> np.ndarray:
    """Return the ranges in parts of at most MOST_BYTES."""
    counts = -(-(ranges[:, 1] - ranges[:, 0]) // MOST_BYTES)
    number = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    starts = np.repeat(ranges[:, 0], counts) + number * MOST_BYTES
    return np.column_stack((starts, np.minimum(starts + MOST_BYTES, np.repeat(ranges[:, 1], counts))))


def batches(ranges: np.ndarray, capacity: int) -> Iterator[Layout]:
    """Give layouts that together hold the ranges, u64 (n, 2), each in a buffer of capacity bytes (a page or more)."""
    ranges = ranges.astype(np.int64)
    while len(ranges):
        # Without the gaps this is too little, so each ends where it surely fits.
        ends = ranges[:, 1] - ranges[0, 0]
        taken = np.cumsum(ranges[:, 1] - ranges[:, 0])
        gaps = np.concatenate(([0], np.cumsum(np.minimum(ranges[1:, 0] - ranges[:-1, 1], LARGEST_GAP))))
        fits = int(np.searchsorted(np.minimum(taken + gaps, ends), capacity, side="right"))
        if fits:
            yield lay_out(ranges[:fits])
            ranges = ranges[fits:]
            continue
        cut = int(ranges[0, 0]) + capacity // PAGE * PAGE
        yield lay_out(np.array([[ranges[0, 0], cut]]))
        ranges = ranges.copy()
        ranges[0, 0] = cut


class Buffer:
    """Memory for a copy. What is touched before the copy does not have to be found while the other process waits."""

    def __init__(self, capacity: int, touched: int, *, huge: bool = True) -> None:
        """Bytes: capacity in all, and as many of them as will be needed at once. Raises OSError if there is not enough.

        huge: in huge pages if there are any.
        """
        self.capacity = max(PAGE, -(-capacity // PAGE) * PAGE)
        self._memory = mmap.mmap(-1, self.capacity, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        if huge:
            with suppress(OSError):
                self._memory.madvise(mmap.MADV_HUGEPAGE)
        self.bytes = np.frombuffer(self._memory, np.uint8)
        self.address = int(self.bytes.ctypes.data)
        self.touch(touched)

    def rest(self) -> None:
        """Let the kernel have its memory back when it needs some; until then it is there for the next copy."""
        with suppress(OSError):
            self._memory.madvise(mmap.MADV_FREE)

    def touch(self, touched: int) -> None:
        """Find memory for so many bytes."""
        size = min(self.capacity, -(-touched // PAGE) * PAGE)
        if not size:
            return
        half = -(-size // 2 // HUGE_PAGE) * HUGE_PAGE
        parts = [(0, half), (half, size - half)] if 0 < half < size else [(0, size)]
        with ThreadPoolExecutor(len(parts)) as pool:
            for wait in [pool.submit(self._touch_part, *part) for part in parts]:
                wait.result()

    def _touch_part(self, begin: int, size: int) -> None:
        # Not by mmap.madvise(), which holds the interpreter's lock.
        if not _libc.madvise(self.address + begin, size, MADV_POPULATE_WRITE):
            return
        if ct.get_errno() != errno.EINVAL:
            raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
        self.bytes[begin : begin + size : PAGE] = 0

    def words(self, place: int, size: int) -> np.ndarray:
        """Return a part, in bytes, as u64; it changes with the next copy."""
        return self.bytes[place : place + size].view(np.uint64)


class Buffers:
    """One buffer, used again and again: to find its memory takes longer than to fill it."""

    def __init__(self) -> None:
        self._buffer: Buffer | None = None

    def get(self, capacity: int, touched: int, *, huge: bool = True) -> Buffer:
        """Return a buffer, as Buffer() does; nobody uses the last one any more."""
        last, self._buffer = self._buffer, None
        if last is not None and touched <= last.capacity <= 2 * capacity:
            last.touch(touched)
        else:
            last = Buffer(capacity, touched, huge=huge)
        self._buffer = last
        return last

    def rest(self) -> None:
        """Nobody uses the buffer any more: its memory is others' as soon as any of them wants it."""
        if self._buffer is not None:
            self._buffer.rest()


class Copier:
    """Copies from one process. Its threads have begun before the copy does."""

    def __init__(self, pid: int, copiers: int = COPIERS) -> None:
        self._pid = pid
        self._pool = ThreadPoolExecutor(copiers)
        for begun in [self._pool.submit(int) for _ in range(copiers)]:
            begun.result()

    def close(self) -> None:
        """End its threads."""
        self._pool.shutdown()

    def start(self, layout: Layout, buffer: Buffer) -> Callable[[], int]:
        """Begin to copy; return what waits for the end and returns how many bytes could not be read: they are zeros.

        That raises ProcessLookupError if the process is gone, OSError if it may not be read.
        """
        _clear_gaps(layout, buffer)
        parts = [self._pool.submit(copy_rows, self._pid, rows, buffer) for rows in _calls(layout.rows)]
        return lambda: _sum(parts)


def _sum(parts: list[Future[int]]) -> int:
    try:
        return sum(part.result() for part in parts)
    finally:
        # Nobody writes to the buffer behind its user's back.
        for part in parts:
            part.cancel()
        for part in parts:
            if not part.cancelled():
                part.exception()


def _clear_gaps(layout: Layout, buffer: Buffer) -> None:
    """Write zeros where a former batch may have left something."""
    rows = layout.rows
    ends = rows[:-1, 1] + rows[:-1, 2]
    for at in np.flatnonzero(rows[1:, 1] > ends).tolist():
        buffer.bytes[ends[at] : rows[at + 1, 1]] = 0


def _calls(rows: np.ndarray) -> Iterator[np.ndarray]:
    """Give the rows in parts of at most MOST_RANGES and about MOST_BYTES."""
    total = np.cumsum(rows[:, 2])
    at = 0
    while at < len(rows):
        before = int(total[at - 1]) if at else 0
        end = int(np.searchsorted(total, before + MOST_BYTES, side="right"))
        end = min(max(end, at + 1), at + MOST_RANGES)
        yield rows[at:end]
        at = end


def copy_rows(pid: int, rows: np.ndarray, buffer: Buffer, read: Callable[..., int] | None = None) -> int:
    """Copy rows of a layout, at most MOST_RANGES; return how many bytes could not be read.

    A page that cannot be read is filled with zeros, and the copy goes on behind it. read: stands in for
    process_vm_readv. Raises as Copier.start() says.
    """
    read = read or _read
    rows = rows.copy()
    unreadable = 0
    while len(rows):
        local = np.ascontiguousarray(np.column_stack((rows[:, 1] + buffer.address, rows[:, 2])).astype(np.uint64))
        remote = np.ascontiguousarray(rows[:, (0, 2)].astype(np.uint64))
        rows = _behind(rows, read(pid, local, remote))
        if len(rows):
            # The call has come to a page that cannot be read.
            size = min(PAGE - int(rows[0, 0]) % PAGE, int(rows[0, 2]))
            buffer.bytes[rows[0, 1] : rows[0, 1] + size] = 0
            unreadable += size
            rows = _behind(rows, size)
    return unreadable


def _behind(rows: np.ndarray, size: int) -> np.ndarray:
    """Return what is left of rows behind their first size bytes."""
    total = np.cumsum(rows[:, 2])
    index = int(np.searchsorted(total, size, side="right"))
    rows = rows[index:].copy()
    done = size - (int(total[index - 1]) if index else 0)
    if len(rows) and done:
        rows[0] += (done, done, -done)
    return rows


def _read(pid: int, local: np.ndarray, remote: np.ndarray) -> int:
    """Copy; return how many bytes were before the first that cannot be read. local, remote: arrays of struct iovec."""
    count: int = _libc.process_vm_readv(pid, local.ctypes.data, len(local), remote.ctypes.data, len(remote), 0)
    if count >= 0:
        return count
    number = ct.get_errno()
    if number == errno.EFAULT:
        return 0
    raise OSError(number, os.strerror(number))
