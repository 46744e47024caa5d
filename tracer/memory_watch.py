"""Watches where the memory of one process goes: reads it, adds it up, and keeps the series that tells what grows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from tracer.attach.allocators import Allocator
from tracer.attach.glibc_free import GlibcHeap, length, read_glibc_heap
from tracer.attach.memory_use import Kind, MemoryUse, Totals, read_use
from tracer.attach.pressure import Pressure, read_pressure
from tracer.attach.residency import resident_bytes
from tracer.attach.target import Process
from tracer.judge.reconcile import (
    Heap,
    Held,
    Part,
    Parts,
    Resident,
    Series,
    extend,
    find_cause,
    reconcile,
    time_left,
    trend_of,
    trend_of_rss,
)
from tracer.report.memory_model import MemoryHead, MemoryLimit, MemoryPart

#: Reading smaps holds up the target's page faults; of its time, at most this share.
SHARE = 0.005
#: These allocators' books cannot be read from outside, and they are in use wherever they are mapped.
_CLOSED = (Allocator.JEMALLOC, Allocator.TCMALLOC, Allocator.MIMALLOC, Allocator.MUSL, Allocator.OTHER)


class MemoryWatch:
    """The memory of one process over the time of a trace."""

    def __init__(self, process: Process, *, since_start: bool = False,
                 clock: Callable[[], float] = time.monotonic) -> None:
        """since_start: the trace began with the process, so that it knows all blocks."""
        self._process, self._since_start, self._clock = process, since_start, clock
        self._series = Series()
        self._last: MemoryHead | None = None
        self._read_at, self._cost = 0.0, 0.0

    def observe(self, held: Held, allocators: Collection[Allocator] = ()) -> MemoryHead | None:
        """Return where the memory is now, None once the process is gone or where it may not be read.

        held: the blocks of this process that live; allocators: those that were found in it. Where reading takes long,
        the parts of some reports are those of the one before, and say how old they are.
        """
        began = self._clock()
        try:
            if self._last is not None and began - self._read_at < self._cost / SHARE:
                return self._aged(self._last, held, began)
            return self._observe(held, allocators, began)
        except OSError:
            return None

    def _aged(self, last: MemoryHead, held: Held, now: float) -> MemoryHead:
        age = now - self._read_at
        return replace(last, age_s=age, outstanding_bytes=held.bytes, outstanding_count=held.count)

    def _observe(self, held: Held, allocators: Collection[Allocator], began: float) -> MemoryHead:
        process = self._process
        use = read_use(process.folder)
        closed = next((each for each in _CLOSED if each in allocators), None)
        resident, heap = _read_heap(process.folder, use) if closed is None else (_resident(use, 0), None)
        pressure = read_pressure(process.pid, process.proc)
        parts = reconcile(resident, heap, held)
        # Only the usage of one group makes a series: another one's limit may become the closest.
        self._series = extend(self._series, began, parts, pressure.usage if pressure else 0)
        self._read_at, self._cost = began, self._clock() - began
        self._last = self._head(use.totals, parts, held, pressure, (closed or Allocator.GLIBC).value)
        return self._last

    def _head(self, totals: Totals, parts: Parts, held: Held, pressure: Pressure | None, allocator: str) -> MemoryHead:
        series = self._series
        found, rss = find_cause(series, parts), trend_of_rss(series)
        return MemoryHead(
            self._process.pid, self._process.comm, parts.rss, totals.anonymous, totals.pss, held.bytes, held.count,
            tuple(_part(series, part, size) for part, size in parts.sizes),
            absent=parts.absent, swap=totals.swap, hugetlb=totals.hugetlb,
            growth_bytes_per_s=rss.slope if rss.grows else None, allocator=allocator, complete=parts.complete,
            since_start=self._since_start, cause=found.cause.value,
            cause_part=found.part.value if found.part else None, cause_amount=found.amount,
            limit=_limit(series, pressure) if pressure else None,
        )


def _part(series: Series, part: Part, size: int) -> MemoryPart:
    found = trend_of(series, part)
    return MemoryPart(part.value, size, found.slope if found.grows else None)


def _limit(series: Series, pressure: Pressure) -> MemoryLimit:
    left = time_left(series, pressure.limit) if pressure.limit is not None else None
    return MemoryLimit(pressure.path, pressure.usage, pressure.limit, pressure.kind, pressure.events, pressure.stall,
                       left[1] if left else None, left[0] if left else None)


def _read_heap(folder: Path, use: MemoryUse) -> tuple[Resident, Heap | None]:
    """Return the resident bytes by kind and what glibc's malloc says, None for a process that does not use it."""
    with _Memory(folder) as memory:
        found = read_glibc_heap(memory.read, use.mappings, use.resident(Kind.ANONYMOUS), use.of(Kind.STACK))
        if found is None:
            return _resident(use, 0), None
        use = use.with_heaps(found.heaps)
        free, top, held = (resident_bytes(spans, use.mappings, use.rss, memory.read_pages)
                           for spans in (np.concatenate([found.free, found.cached]), found.tops, found.spans))
    return _resident(use, held), Heap(_lent(found), free, top, found.complete)


def _lent(heap: GlibcHeap) -> int:
    return max(heap.held_bytes - length(heap.free) - length(heap.cached) - length(heap.tops), 0)


def _resident(use: MemoryUse, heap: int) -> Resident:
    """Return the resident bytes by kind, of which the allocator is known to hold so many."""
    of = use.rss_of
    written = use.written
    anonymous = of(Kind.HEAP) + of(Kind.ANONYMOUS)
    heap = min(heap, anonymous)
    return Resident(use.totals.rss, heap, of(Kind.STACK), of(Kind.DATA) + written, anonymous - heap,
                    of(Kind.FILE) - written, of(Kind.SHARED))


class _Memory:
    """The memory of a process and the list of its pages, as files."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: list[int] = []

    def __enter__(self) -> _Memory:
        try:
            for name in ("mem", "pagemap"):
                self._files.append(os.open(self._folder / name, os.O_RDONLY | os.O_CLOEXEC))
        except OSError:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._files:
            os.close(file)

    def read(self, address: int, size: int) -> bytes:
        """Return the bytes at an address; none where nothing is mapped."""
        return self._pread(0, address, size)

    def read_pages(self, first: int, count: int) -> bytes:
        """Return the entries of so many pages, 8 bytes each."""
        return self._pread(1, first * 8, count * 8)

    def _pread(self, file: int, offset: int, size: int) -> bytes:
        # An address beyond what a file offset can be is none of user space.
        with suppress(OSError, OverflowError):
            return os.pread(self._files[file], size, offset)
        return b""
