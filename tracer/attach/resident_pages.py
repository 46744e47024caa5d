"""Which pages of a process hold something: those in memory and those in swap, without a look at any of the others."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol, Self

import numpy as np

from tracer.attach.target import PROC

PAGE = 4096
#: _IOWR('f', 16, struct pm_scan_arg) and that struct (linux/fs.h), since Linux 6.7.
PAGEMAP_SCAN = 0xC0606610
_ARGUMENT = struct.Struct("<12Q")
IS_FILE, IS_PRESENT, IS_SWAPPED, IS_GUARD = 1 << 2, 1 << 3, 1 << 4, 1 << 8
#: Ranges that one request can return.
REGIONS = 4096
#: Flags of an entry of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
_PRESENT, _SWAPPED, _FILE, _GUARD = (np.uint64(1 << bit) for bit in (63, 62, 61, 58))
#: proc_pid_smaps(5): the line of a mapping, or a size of it in kB.
_SMAPS = re.compile(rb"^(?:([0-9a-f]{1,16})-[0-9a-f]{1,16} |(?:Rss|Swap): +([0-9]{1,15}) kB)", re.MULTILINE)
#: Entries that are read at once: of 512 MB.
ENTRIES = 1 << 17
#: Seconds for reading entries, of all mappings together; meanwhile the process may stand.
LONGEST = 1.0
#: Mappings of at least that size are mostly holes, and worth asking first how much is in them.
SPARSE = 4 << 30


class Pages(Protocol):
    """One way to find pages. left_out: bytes that it did not come to, for want of time."""

    left_out: int

    def find(self, start: int, end: int, *, anonymous: bool) -> np.ndarray:
        """Return the ranges in [start, end) that hold something, u64 (n, 2), in order.

        anonymous: only memory of the process's own, not what a file has in it.
        """


class ScannedPages:
    """The kernel finds them: its time goes with what is there, not with how much address space there is."""

    def __init__(self, fd: int) -> None:
        """fd: of /proc/PID/pagemap. Raises OSError if the kernel has no such request."""
        self.left_out = 0
        self._fd = fd
        self._found = np.empty((REGIONS, 3), np.uint64)
        self._guards = IS_GUARD
        try:
            self.find(0, PAGE, anonymous=False)
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
            # Before Linux 6.15 guards without a mapping (MADV_GUARD_INSTALL) have no name here.
            self._guards = 0
            self.find(0, PAGE, anonymous=False)

    def find(self, start: int, end: int, *, anonymous: bool) -> np.ndarray:
        """See Pages."""
        unwanted = self._guards | (IS_FILE if anonymous else 0)
        found = []
        while start < end:
            argument = bytearray(_ARGUMENT.pack(_ARGUMENT.size, 0, start, end, 0, self._found.ctypes.data, REGIONS, 0,
                                                unwanted, unwanted, IS_PRESENT | IS_SWAPPED, IS_PRESENT))
            count = fcntl.ioctl(self._fd, PAGEMAP_SCAN, argument, True)
            found.append(self._found[:count, :2].copy())
            # walk_end: how far it came.
            came_to = int(_ARGUMENT.unpack(argument)[4])
            if came_to <= start:
                break
            start = came_to
        return np.concatenate(found) if found else np.empty((0, 2), np.uint64)


class ReadPages:
    """One entry of /proc/PID/pagemap after the other, for kernels before 6.7."""

    def __init__(self, fd: int, smaps: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """fd: of /proc/PID/pagemap; smaps: the path of /proc/PID/smaps."""
        self.left_out = 0
        self._fd = fd
        self._smaps = smaps
        self._contents: list[tuple[int, int]] | None = None
        self._clock = clock
        self._until = clock() + LONGEST

    def find(self, start: int, end: int, *, anonymous: bool) -> np.ndarray:
        """See Pages."""
        found = []
        first, last = start // PAGE, end // PAGE
        left = self._content(start, end) if end - start >= SPARSE else end - start
        while first < last and left > 0:
            if self._clock() > self._until:
                self.left_out += left
                break
            wanted = min(ENTRIES, last - first)
            entries = np.frombuffer(os.pread(self._fd, 8 * wanted, 8 * first), np.uint64)
            if not len(entries):
                break
            found.append(runs(entries, first, anonymous=anonymous))
            first += len(entries)
            left -= sizes(runs(entries, first, anonymous=False))
        return np.concatenate(found) if found else np.empty((0, 2), np.uint64)

    def _content(self, start: int, end: int) -> int:
        """Return how many bytes are in memory or in swap of the mappings in a range."""
        if self._contents is None:
            self._contents = contents(self._smaps.read_bytes())
        return sum(size for at, size in self._contents if start <= at < end)


def contents(smaps: bytes) -> list[tuple[int, int]]:
    """Return the start of each mapping in the text of /proc/PID/smaps, and its bytes in memory or in swap."""
    found: list[tuple[int, int]] = []
    for start, size in _SMAPS.findall(smaps):
        if start:
            found.append((int(start, 16), 0))
        elif found:
            found[-1] = (found[-1][0], found[-1][1] + 1024 * int(size))
    return found


def runs(entries: np.ndarray, first: int, *, anonymous: bool) -> np.ndarray:
    """Return the address ranges of the pages that hold something, u64 (n, 2).

    entries: u64 (k,), of /proc/PID/pagemap, from page number first on.
    """
    wanted = ((entries & (_PRESENT | _SWAPPED)) != 0) & ((entries & _GUARD) == 0)
    if anonymous:
        wanted &= (entries & _FILE) == 0
    edges = np.flatnonzero(np.diff(wanted, prepend=False, append=False))
    return (edges.reshape(-1, 2).astype(np.uint64) + np.uint64(first)) * np.uint64(PAGE)


def joined(ranges: np.ndarray) -> np.ndarray:
    """Return ranges, u64 (n, 2) in any order, in order, those that touch or overlap as one."""
    if not len(ranges):
        return ranges
    ranges = ranges[np.argsort(ranges[:, 0], kind="stable")]
    # One may lie in an earlier one.
    reached = np.maximum.accumulate(ranges[:, 1])
    begins = np.flatnonzero(np.concatenate(([True], ranges[1:, 0] > reached[:-1])))
    ends = np.append(begins[1:], len(ranges)) - 1
    return np.column_stack((ranges[begins, 0], reached[ends]))


class ResidentPages:
    """The pages of the program that a process runs now."""

    def __init__(self, pid: int, *, scan: bool = True, proc: Path = PROC,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """scan: try the faster way first. Raises OSError if the process is gone, or may not be read."""
        self._fd = os.open(proc / str(pid) / "pagemap", os.O_RDONLY | os.O_CLOEXEC)
        self._pages: Pages = ReadPages(self._fd, proc / str(pid) / "smaps", clock)
        if scan:
            with suppress(OSError):
                self._pages = ScannedPages(self._fd)

    @property
    def left_out(self) -> int:
        """Bytes not looked at: not 0 only where the slower way meets too much address space."""
        return self._pages.left_out

    def find(self, spans: np.ndarray, *, anonymous: bool = False) -> np.ndarray:
        """Return what holds something of these address ranges, u64 (n, 2) in order; spans: u64 (k, 2)."""
        found = [self._pages.find(start, end, anonymous=anonymous) for start, end in joined(spans).tolist()]
        return joined(np.concatenate([np.empty((0, 2), np.uint64), *found]))

    def close(self) -> None:
        """Forget the process."""
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def sizes(ranges: np.ndarray) -> int:
    """Return the bytes in ranges, u64 (n, 2)."""
    return int((ranges[:, 1] - ranges[:, 0]).sum())
