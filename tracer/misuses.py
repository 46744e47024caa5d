"""Collects frees that are wrong (--check-frees): the kernel side counts them, here they get their stacks and names."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from symbolizer.frame import Frame
from tracer import records
from tracer.attach.allocators import Family
from tracer.limits import MAX_SLOTS
from tracer.records import MisuseKind
from tracer.report.misuse_model import Kind, Misuse, Misuses
from tracer.stack_pool import Place, PooledStack

#: Stacks that Python has finished and the kernel side may give away; a missed path has some hundred of them.
KEPT_STACKS = 1 << 17
_KINDS = {MisuseKind.MISMATCH: Kind.MISMATCH, MisuseKind.DOUBLE: Kind.DOUBLE, MisuseKind.UNKNOWN: Kind.UNKNOWN}
_ALLOCATED = {Family.MALLOC: "malloc", Family.NEW: "new", Family.NEW_ARRAY: "new[]", Family.JEMALLOC_X: "mallocx"}
_FREED = {Family.MALLOC: "free", Family.NEW: "delete", Family.NEW_ARRAY: "delete[]", Family.JEMALLOC_X: "dallocx",
          Family.REALLOC: "realloc"}
#: Where glibc gives back what an ending thread kept in its cache: blocks that the program has freed long before.
_OWN_WORK = ("tcache_thread_shutdown", "__malloc_arena_thread_freeres", "start_thread")
#: Without symbols, by its stack: nobody but the C library is in it.
_C_LIBRARY = ("libc.so", "libc-", "libpthread", "ld-musl")
#: Of an address that is that of several functions.
_SHARED = "an allocator"
Origin = tuple[int, int]


class Tables(Protocol):
    """What is needed of the program (attach.program.Program)."""

    sites: np.ndarray
    stacks: np.ndarray

    def misuses(self) -> Iterable[tuple[bytes, int]]:
        """Return each struct misuse with how often it was seen."""


class Pool(Protocol):
    """Where stacks get numbers that outlive their processes (stack_pool.StackPool)."""

    stacks: list[PooledStack]
    places: list[Place]

    def intern_last(self, stacks: np.ndarray) -> np.ndarray:
        """Return the numbers of stacks (struct stack, (n,)), i64 (n,)."""


class Namer(Protocol):
    """Who names them (naming.StackNamer)."""

    def groups(self, numbers: np.ndarray) -> np.ndarray:
        """Return for each stack that of its group, u64 (n,)."""

    def frames(self, number: int) -> tuple[Frame, ...]:
        """Return the frames of a stack that groups() has seen."""


class Owners(Protocol):
    """Who knows the processes."""

    def __call__(self, slot: int) -> int | None:
        """Return the id of the process in a slot."""


@dataclass(frozen=True, slots=True)
class _Seen:
    """A misuse with the numbers of its stacks; None: of no stack."""

    kind: Kind
    families: tuple[int, int, int]
    pid: int
    stacks: tuple[int | None, int | None, int | None]


@dataclass(slots=True)
class _Sum:
    seen: _Seen
    count: int = 0


class MisuseCollector:
    """All wrong frees of one session. Its pool and its namer are its own: numbers stay."""

    def __init__(self, tables: Tables, pool: Pool, namer: Namer, pid_of: Owners) -> None:
        self._tables = tables
        self._pool = pool
        self._namer = namer
        self._pid_of = pid_of
        self._seen: dict[bytes, _Seen] = {}
        #: By origin, and each once: stacks that were finished here.
        self._kept: dict[Origin, bytes] = {}
        self._contents: dict[bytes, bytes] = {}

    def keep_stack(self, site: int) -> None:
        """Keep a stack that was missed and is complete now: its site becomes another's before long."""
        if not site:
            return
        if len(self._kept) >= KEPT_STACKS:
            self._kept.clear()
            self._contents.clear()
        stack = self._stack_at(site)
        self._kept[self._origin_of(site)] = self._contents.setdefault(stack, stack)

    def note(self, what: bytes) -> None:
        """Look up the stacks of a misuse that was seen for the first time, while they are there."""
        if what in self._seen:
            return
        image, kind, allocated_by, freed_by, before_by, *places = records.MISUSE_STRUCT.unpack(what)
        origins = [(places[at], places[at + 1]) for at in (0, 2, 4)]
        seen = self._seen[what] = _Seen(
            _KINDS[MisuseKind(kind)], (allocated_by, freed_by, before_by), self._pid_of(image % MAX_SLOTS) or 0,
            (self._number(origins[0]), self._number(origins[1]), self._number(origins[2])))
        if seen.kind is not Kind.MISMATCH and self._is_all_c_library(seen.stacks[1]) and self._is_there(origins[1]):
            # So that the kernel side counts no more of these, of which each pair of stacks would be another one.
            self._tables.sites["own_work"][origins[1][0]] = 1

    def collect(self) -> Misuses:
        """Return all that were seen so far, named; those of the same places are one."""
        counts = dict(self._tables.misuses())
        for what in counts:
            # Some whose event found no room.
            self.note(what)
        numbers = sorted({number for seen in self._seen.values() for number in seen.stacks if number is not None})
        groups = dict(zip(numbers, self._namer.groups(np.array(numbers, np.int64)).tolist(), strict=True))
        sums: dict[tuple[object, ...], _Sum] = {}
        for what, seen in self._seen.items():
            key = (seen.kind, seen.families, seen.pid,
                   *(groups[number] if number is not None else None for number in seen.stacks))
            sums.setdefault(key, _Sum(seen)).count += counts.get(what, 0)
        found, undecided = [], 0
        for one in sums.values():
            misuse = self._named(one)
            if misuse.kind is Kind.MISMATCH and not (_is_certain(misuse.allocated) and _is_certain(misuse.freed)):
                undecided += misuse.count
            elif misuse.count and not self._is_own_work(one.seen, misuse):
                found.append(misuse)
        return Misuses(tuple(sorted(found, key=lambda misuse: (-misuse.count, misuse.pid))), undecided)

    def _named(self, one: _Sum) -> Misuse:
        seen = one.seen
        allocated_by, freed_by, before_by = seen.families
        allocated, freed, before = (self._namer.frames(number) if number is not None else () for number in seen.stacks)
        double = seen.kind is Kind.DOUBLE
        return Misuse(
            seen.kind, one.count, seen.pid,
            _ALLOCATED.get(Family(allocated_by), _SHARED) if allocated_by else None,
            _FREED.get(Family(freed_by), _SHARED),
            _FREED.get(Family(before_by), _SHARED) if double else None,
            allocated if allocated_by else None, freed, before if double else None)

    def _is_own_work(self, seen: _Seen, misuse: Misuse) -> bool:
        return misuse.kind is not Kind.MISMATCH and (
            self._is_all_c_library(seen.stacks[1]) or (misuse.freed[0].function if misuse.freed else None) in _OWN_WORK)

    def _is_all_c_library(self, number: int | None) -> bool:
        if number is None:
            return False
        files = [self._pool.places[place].file for place in self._pool.stacks[number].places]
        return bool(files) and all(
            file is not None and file.path.rpartition("/")[2].startswith(_C_LIBRARY) for file in files)

    def _is_there(self, origin: Origin) -> bool:
        return bool(origin[0]) and origin == self._origin_of(origin[0])

    def _origin_of(self, site: int) -> Origin:
        return site, int(self._tables.sites["first_ns"][site]) & 0xFFFFFFFF

    def _stack_at(self, site: int) -> bytes:
        stack = self._tables.stacks[site : site + 1].copy()
        stack["addresses"][0, int(stack["depth"][0]) :] = 0
        return stack.tobytes()

    def _number(self, origin: Origin) -> int | None:
        stack = self._kept.get(origin)
        if stack is None and self._is_there(origin):
            stack = self._stack_at(origin[0])
        if stack is None:
            return None
        return int(self._pool.intern_last(np.frombuffer(stack, self._tables.stacks.dtype).copy())[0])


def _is_certain(frames: tuple[Frame, ...] | None) -> bool:
    """Return whether it is known what called the allocator: without symbols, it may be an operator new or delete."""
    return not frames or frames[0].function is not None
