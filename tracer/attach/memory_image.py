"""Reads what a process can keep pointers in, from outside: its threads stand while it is copied, and not longer."""

from __future__ import annotations

import array
import os
import re
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np

from symbolizer.mappings import Mapping, parse_maps
from tracer.attach.image_ranges import dead_stack, heap_ranges, to_scan
from tracer.attach.kernel import CAPABILITIES
from tracer.attach.memory_copy import Buffer, Buffers, Copier, Layout, batches, lay_out
from tracer.attach.pressure import read_pressure
from tracer.attach.resident_pages import PAGE, ResidentPages, joined
from tracer.attach.stopping import Stand, StoppedThread, stopped
from tracer.attach.target import PROC
from tracer.errors import CannotTrace

T = TypeVar("T")
Consume = Callable[[int, np.ndarray], None]

#: What a process may grow between the first look and the stop, in bytes and as a share of what it had then.
GROWTH, GROWTH_SHARE = 32 << 20, 16
#: Less than this for the copy is not worth a scan: every batch costs a round.
SMALLEST_BUFFER = 16 << 20
#: Of the memory that the machine has left, this share is left to others, the target first of all.
LEFT_TO_OTHERS = 2


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What is known of a process whose threads stand, beside its memory.

    not_stopped: threads that ran meanwhile; dead_stack, heap_ranges: address ranges, u64 (k, 2), see image_ranges.
    """

    threads: tuple[StoppedThread, ...]
    not_stopped: tuple[int, ...]
    mappings: tuple[Mapping, ...]
    dead_stack: np.ndarray
    heap_ranges: np.ndarray


@dataclass(frozen=True, slots=True)
class ImageResult(Generic[T]):
    """What a scan of a process's memory gave, beside the memory itself.

    ledger: the value of the function of that name; streamed: its memory was larger than the buffer, so the threads
    stood while it was consumed, too; stopped_s: from before the first thread stood until after the last went on;
    bytes_unreadable: among bytes that should have been read.
    """

    ledger: T
    facts: ImageFacts
    bytes_read: int
    bytes_unreadable: int
    stopped_s: float
    streamed: bool


class MemoryReader:
    """Reads the memory of one process, as often as wanted."""

    def __init__(self, pid: int, max_bytes: int, *, hold: Callable[[], AbstractContextManager[Stand]] | None = None,
                 scan: bool = True, huge: bool = True, copiers: int = 2, buffers: Buffers | None = None,
                 proc: Path = PROC) -> None:
        """max_bytes: for the copy. hold: how its threads are made to stand, if not by stopping.stopped().

        scan, huge, copiers: the faster ways, where the machine has them; see resident_pages and memory_copy.
        """
        self._pid = pid
        self._max_bytes = max(max_bytes, PAGE)
        self._hold = hold or (lambda: stopped(pid))
        self._scan, self._huge, self._copiers = scan, huge, copiers
        self._buffers = buffers or Buffers()
        self._proc = proc
        self._lines: dict[bytes, Mapping | None] = {}

    def read(self, ledger: Callable[[], T], consume: Consume,
             begin: Callable[[T, ImageFacts], None] = lambda ledger, facts: None) -> ImageResult[T]:
        """Copy everything while its threads stand, with what ledger() gives then, and hand it on when they run again.

        begin(ledger's value, facts) comes first, then consume(address, words): a piece of memory, u64 (n,), valid until
        it returns; small gaps in it and bytes that cannot be read are zeros.
        Pieces come in order, each address once. Raises ProcessLookupError if the process ends or becomes another
        program meanwhile, CannotTrace if it may not be read, and what hold raises.
        """
        buffer = self._make_buffer(lay_out(self._look()[1]).size)
        copier = Copier(self._pid, self._copiers)
        try:
            begun = time.perf_counter()
            with self._hold() as stand:
                mappings, ranges, left_out = self._look()
                layout = lay_out(ranges)
                streamed = layout.size > buffer.capacity
                facts = ImageFacts(stand.threads, stand.not_stopped, mappings,
                                   dead_stack(mappings, stand.threads, all_stopped=not stand.not_stopped),
                                   heap_ranges(mappings, self._words_at))
                if streamed:
                    value = ledger()
                    begin(value, facts)
                    unreadable = self._stream(copier, buffer, ranges, consume, stand)
                else:
                    wait = copier.start(layout, buffer)
                    # Both take their time, and neither needs the other.
                    try:
                        value = ledger()
                    finally:
                        unreadable = wait()
                    self._require(stand)
            stopped_s = time.perf_counter() - begun
        finally:
            copier.close()
        if not streamed:
            begin(value, facts)
            _consume(layout, buffer, consume)
        return ImageResult(value, facts, layout.bytes - unreadable, unreadable + left_out, stopped_s, streamed)

    def _make_buffer(self, wanted: int) -> Buffer:
        most = min(self._max_bytes, max(SMALLEST_BUFFER, available(self._proc) // LEFT_TO_OTHERS))
        capacity = min(most, wanted + wanted // GROWTH_SHARE + GROWTH)
        return self._buffers.get(capacity, min(wanted, capacity), huge=self._huge)

    def _look(self) -> tuple[tuple[Mapping, ...], np.ndarray, int]:
        """Return the mappings, the ranges to read, u64 (n, 2), and bytes that could not be looked at."""
        try:
            mappings = self._mappings()
            writable, protected = to_scan(mappings)
            with ResidentPages(self._pid, scan=self._scan, proc=self._proc) as pages:
                ranges = joined(np.concatenate((pages.find(writable), pages.find(protected, anonymous=True))))
                left_out = pages.left_out
        except FileNotFoundError:
            raise ProcessLookupError(f"Process {self._pid} is gone.") from None
        except PermissionError:
            raise CannotTrace(f"The memory of process {self._pid} may not be read.",
                              f"Run leaktrace with sudo, or give it {CAPABILITIES}.") from None
        return mappings, ranges, left_out

    def _mappings(self) -> tuple[Mapping, ...]:
        lines = (self._proc / str(self._pid) / "maps").read_bytes().split(b"\n")
        # Most are as they were at the first look: with thousands of them, to read them takes longer than to copy.
        known = self._lines
        self._lines = {line: known[line] if line in known else next(iter(parse_maps(line)), None) for line in lines}
        mappings = tuple(mapping for line in lines if (mapping := self._lines[line]) is not None)
        if not mappings:
            raise ProcessLookupError(f"Process {self._pid} has no memory: it ends, or is part of the kernel.")
        return mappings

    def _stream(self, copier: Copier, buffer: Buffer, ranges: np.ndarray, consume: Consume, stand: Stand) -> int:
        unreadable = 0
        for layout in batches(ranges, buffer.capacity):
            unreadable += copier.start(layout, buffer)()
            self._require(stand)
            _consume(layout, buffer, consume)
        return unreadable

    def _require(self, stand: Stand) -> None:
        if not stand.is_intact():
            raise ProcessLookupError(f"Process {self._pid} ended, or ran another program, while its memory was read.")

    def _words_at(self, address: int, count: int) -> Sequence[int]:
        try:
            with open(self._proc / str(self._pid) / "mem", "rb", buffering=0) as memory:
                memory.seek(address)
                return array.array("Q", memory.read(8 * count))
        except (OSError, ValueError):
            return []


def _consume(layout: Layout, buffer: Buffer, consume: Consume) -> None:
    for address, place, size in layout.pieces.tolist():
        consume(address, buffer.words(place, size))


def available(proc: Path) -> int:
    """Return the bytes that this process can take without hurting others: of the machine's, and of its group's."""
    try:
        text = (proc / "meminfo").read_bytes()
    except OSError:
        text = b""
    # proc_meminfo(5)
    found = re.search(rb"^MemAvailable: +([0-9]{1,15}) kB", text, re.MULTILINE)
    free = 1024 * int(found[1]) if found else SMALLEST_BUFFER
    group = read_pressure(os.getpid(), proc)
    if group is not None and group.limit is not None:
        free = min(free, max(0, group.limit - group.usage))
    return free
