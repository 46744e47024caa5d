"""Looks at the memory of traced processes for pointers to their blocks: when a report is made, and when one ends."""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from symbolizer.mappings import AddressSpace
from tracer.attach.follow import Follower
from tracer.attach.free_memory import free_memory
from tracer.attach.image_ranges import RED_ZONE
from tracer.attach.kernel_pointers import kernel_pointers
from tracer.attach.memory_copy import Buffers
from tracer.attach.memory_image import ImageFacts, MemoryReader
from tracer.attach.peek import Peeker
from tracer.attach.resident_pages import PAGE, joined
from tracer.attach.stopping import Stand, StoppedThread, held_at_exit
from tracer.attach.tracee import Tracee
from tracer.collect.capture import Capture
from tracer.collect.sites import SiteReader
from tracer.collect.snapshot import NOT_SCANNED
from tracer.errors import CannotTrace
from tracer.judge.pointers import PointerGraph, PointerScan
from tracer.judge.reachability import classify
from tracer.report.model import ScanNote
from tracer.settings import Settings

#: Bytes of a stack that are kept to say whose frame holds a pointer.
MOST_STACK = 1 << 20
#: struct user_regs_struct (sys/user.h), up to the argument registers.
REGISTERS = ("r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi")
#: In place of a register: what the kernel keeps for the process.
IN_KERNEL = "kernel"


@dataclass(frozen=True, slots=True, eq=False)
class Look:
    """One process at one moment. capture: what it held, with how each block is reached.

    graph: the pointers to those that lie in no other one. space: what was mapped; memory: where roots may be.
    """

    uid: int
    capture: Capture
    graph: PointerGraph
    facts: ImageFacts
    space: AddressSpace
    memory: KeptMemory


@dataclass(frozen=True, slots=True)
class Looked:
    """All looks for one report; what has ended was looked at in the end. captures: what those that run held then."""

    looks: tuple[Look, ...]
    captures: list[Capture]
    scans: tuple[ScanNote, ...]


class Looks:
    """Makes the looks of one session."""

    def __init__(self, settings: Settings, reader: SiteReader) -> None:
        self._settings, self._reader = settings, reader
        self._notes: list[ScanNote] = []
        self._buffers = Buffers()
        self._last: dict[int, Capture] = {}
        self._ended: list[Look] = []
        #: Who has seized the threads of followed processes.
        self.follower: Follower | None = None

    def look(self, tracees: Iterable[Tracee]) -> Looked:
        """Look at processes that run, and give what was found of those that have ended since the last time, too."""
        looks = []
        for tracee in tracees:
            follower = self.follower
            hold = None
            if follower is not None and follower.follows(tracee.process.pid):
                hold = partial(follower.paused, tracee.process.pid)
            look = self._try(tracee, hold)
            if look is not None:
                looks.append(look)
        notes, self._notes = tuple(self._notes), []
        ended, self._ended = tuple(self._ended), []
        return Looked((*looks, *ended), [look.capture for look in looks], notes)

    def look_at_end(self, tracee: Tracee, tid: int, ended: Sequence[StoppedThread]) -> None:
        """Look at a process that is held as its last thread ends, for the report that speaks of it."""
        look = self._try(tracee, lambda: held_at_exit(tid, ended), tid)
        if look is not None:
            self._last[tracee.uid] = look.capture
            if self._settings.who_points_at:
                self._ended.append(look)

    def last_of(self, tracee: Tracee) -> Sequence[Capture]:
        """Return what a process that has ended held, if it was looked at then."""
        capture = self._last.pop(tracee.uid, None)
        return [capture] if capture is not None else []

    def _try(self, tracee: Tracee, hold: Callable[[], AbstractContextManager[Stand]] | None,
             tid: int | None = None) -> Look | None:
        pid = tracee.process.pid
        try:
            return self._look(tracee, hold, tid or pid)
        except CannotTrace as problem:
            self._notes.append(ScanNote(pid, failed=problem.message))
        except ProcessLookupError:
            self._notes.append(ScanNote(pid, failed="it ended, or ran another program, meanwhile"))
        except OSError as problem:
            self._notes.append(ScanNote(pid, failed=f"{problem.strerror} (errno {problem.errno})"))
        return None

    def _look(self, tracee: Tracee, hold: Callable[[], AbstractContextManager[Stand]] | None, tid: int) -> Look:
        """tid: a thread that has the memory; the first one may have ended before the others."""
        process, image, space, began = tracee.process, tracee.image, tracee.space, time.perf_counter()
        all_is_known = began_with_trace(tracee, self._settings) and not self._reader.hides_bytes()
        work = _Work(space, keeps=bool(self._settings.who_points_at))

        def ledger() -> Capture:
            folder = process.proc / str(tid)
            work.no_roots = free_memory(folder, all_is_known=all_is_known)
            work.kernel = kernel_pointers(folder)
            return self._reader.capture(image)

        reader = MemoryReader(tid, self._settings.max_image, hold=hold, buffers=self._buffers)
        result = reader.read(ledger, work.add, work.begin)
        peeker = Peeker(tid, result.facts.mappings)
        kinds = np.full(len(result.ledger.keys), NOT_SCANNED, np.uint8)
        graph = work.scan.finish(peeker.words, peeker.are_vtables)
        kinds[work.chosen] = classify(graph)
        self._buffers.rest()
        took = time.perf_counter() - began
        self._notes.append(ScanNote(
            process.pid, result.bytes_read, round(result.stopped_s, 4), round(took, 4), result.streamed,
            unreadable=result.bytes_unreadable, not_stopped=len(result.facts.not_stopped)))
        return Look(tracee.uid, replace(result.ledger, kinds=kinds), graph, result.facts, space, work.memory)


class KeptMemory:
    """Parts of a memory image that tell where its roots are: stacks, what threads have of their own, variables."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._pieces: list[bytes] = []
        self._wanted = np.zeros((0, 2), np.uint64)

    def want(self, space: AddressSpace, facts: ImageFacts) -> None:
        """Choose what to keep."""
        wanted = [(each.start, each.end) for each in facts.mappings if each.is_file and each.writable]
        for thread in facts.threads:
            for at, before, behind in ((thread.sp, RED_ZONE, MOST_STACK - RED_ZONE), (thread.fs_base, PAGE, PAGE)):
                if (mapping := space.locate(at)) is not None:
                    wanted.append((max(at - before, mapping.start), min(at + behind, mapping.end)))
        self._wanted = joined(np.array(wanted, np.uint64).reshape(-1, 2))

    def add(self, start: int, words: np.ndarray) -> None:
        """Keep what is wanted of a piece."""
        end = start + 8 * len(words)
        for first, last in self._wanted.tolist():
            low, high = max(first, start) & ~7, min(last, end)
            if low < high:
                at = bisect_right(self._starts, low)
                self._starts.insert(at, low)
                self._pieces.insert(at, words[(low - start) // 8 : (high - start + 7) // 8].tobytes())

    def read(self, address: int, size: int) -> bytes:
        """Return the bytes at an address, fewer or none where they were not kept."""
        at = bisect_right(self._starts, address) - 1
        if at < 0:
            return b""
        offset = address - self._starts[at]
        return self._pieces[at][offset : offset + size]


class _Work:
    """The scan of one image, as its pieces come."""

    scan: PointerScan
    chosen: np.ndarray

    def __init__(self, space: AddressSpace, *, keeps: bool) -> None:
        """keeps: parts of it are asked for later."""
        self._space, self._keeps = space, keeps
        self.memory = KeptMemory()
        self.no_roots = np.zeros((0, 2), np.uint64)
        self.kernel = np.zeros(0, np.uint64)

    def begin(self, capture: Capture, facts: ImageFacts) -> None:
        """Take the blocks, and what is known of the memory that comes."""
        self.chosen = apart(capture.addresses, capture.sizes)
        self.scan = PointerScan(capture.addresses[self.chosen], capture.sizes[self.chosen])
        self.scan.exclude(np.concatenate([facts.dead_stack, self.no_roots]))
        for thread in facts.threads:
            for name, values in registers_of(thread):
                self.scan.add_root_values(np.array(values, np.uint64), f"{thread.tid} {name}")
        if len(self.kernel):
            self.scan.add_root_values(self.kernel, IN_KERNEL)
        if self._keeps:
            self.memory.want(self._space, facts)

    def add(self, start: int, words: np.ndarray) -> None:
        """Take one piece of memory."""
        self.scan.add(start, words)
        if self._keeps:
            self.memory.add(start, words)


def registers_of(thread: StoppedThread) -> Iterator[tuple[str, Sequence[int]]]:
    """Give the registers of a thread that can hold a pointer of its program, each with its name."""
    for name, value in zip(REGISTERS, thread.registers, strict=False):
        yield name, (value,)
    yield "xmm", thread.vectors


def apart(addresses: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Return the blocks that lie in no other one, i64 (k,), by address: a pool's blocks may lie in one of malloc's."""
    order = np.argsort(addresses, kind="stable")
    starts = addresses[order]
    if not len(order):
        return order
    if (starts[1:] == starts[:-1]).any():
        # Of those that begin at one place the largest comes first. This sorts twice.
        order = np.lexsort((-sizes.astype(np.int64), addresses))
        starts = addresses[order]
    ends = starts + sizes[order]
    before = np.maximum.accumulate(ends)
    inside = np.append(False, (starts[1:] < before[:-1]) | (starts[1:] == starts[:-1]))
    return np.asarray(order[~inside])


def began_with_trace(tracee: Tracee, settings: Settings) -> bool:
    """Return whether every block that a process has is on record, so that malloc's other memory is free."""
    partial = (settings.sampling or settings.min_size is not None or settings.max_size is not None
               or settings.object_path is not None or bool(settings.symbols_prefix))
    if partial or tracee.inherited is not None or tracee.shares_memory:
        return False
    return tracee.execs > 0 or (bool(settings.command) and tracee.uid == 0)
