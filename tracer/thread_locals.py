"""Finds where a thread has its copy of each program's and library's thread-local variables."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, Self

from symbolizer.data_symbols import DataPlace, TlsSegment
from symbolizer.tls_slots import SlotKind, TlsSlot
from tracer.stack_frames import Read

#: The C library's own record of a thread, which begins at the thread pointer: glibc's struct pthread has 2304 bytes.
#: What pthread_setspecific() was given stands there too.
THREAD_RECORD = 2304
#: Copies that lie further below the thread pointer were made later, each by itself.
_STATIC_AREA = 1 << 20
#: The thread record's second word points at the dynamic thread vector, in glibc as in musl.
_VECTOR = 8
#: Module numbers are small: one for each object with thread-local variables.
_MODULES = 1 << 16
#: A vector's entry that was never used (glibc's TLS_DTV_UNALLOCATED).
_UNALLOCATED = (1 << 64) - 1


class ThreadLocals(Protocol):
    """Names of thread-local variables; symbolizer.data_symbols.DataSymbols is one."""

    @property
    def tls(self) -> TlsSegment | None:
        """Return the TLS segment."""

    def thread_local(self, offset: int) -> DataPlace | None:
        """Return what lies at an offset in the TLS segment."""


@dataclass(frozen=True, slots=True)
class TlsObject:
    """A program or library with thread-local variables; bias: its address in the process less its vaddr.

    slots: of a library, from which its copies are found.
    """

    path: str
    bias: int
    symbols: ThreadLocals
    is_program: bool
    slots: tuple[TlsSlot, ...] = ()


@dataclass(frozen=True, slots=True)
class Copies:
    """What one thread has: where its copy of each object's variables begins; of some objects it may have none."""

    fs_base: int
    starts: tuple[tuple[TlsObject, int], ...]

    @classmethod
    def of(cls, fs_base: int, objects: Iterable[TlsObject], read: Read) -> Self:
        """Return the copies of the thread with that thread pointer, looked up in the process's memory."""
        starts = ((one, _copy(one, fs_base, read)) for one in objects)
        return cls(fs_base, tuple((one, start) for one, start in starts if start is not None))

    def object_at(self, address: int) -> tuple[TlsObject, int] | None:
        """Return whose variables the address is among, and its offset in that object's segment."""
        for one, start in self.starts:
            segment = one.symbols.tls
            if segment is not None and start <= address < start + segment.size:
                return one, address - start
        return None

    def in_static_area(self, address: int) -> bool:
        """Return whether the address lies between the lowest copy that came with the thread and its record's end."""
        near = [start for _, start in self.starts if self.fs_base - _STATIC_AREA <= start < self.fs_base]
        return min(near, default=self.fs_base) <= address < self.fs_base + THREAD_RECORD


def _copy(one: TlsObject, fs_base: int, read: Read) -> int | None:
    """Return where the thread's copy begins, None if it has none yet or that cannot be told."""
    if one.is_program:
        return fs_base - one.symbols.tls.below_thread_pointer if one.symbols.tls is not None else None
    for slot in one.slots:
        word = _word(read, one.bias + slot.vaddr)
        if not word:
            continue
        if slot.kind is SlotKind.OFFSET:
            return (fs_base + word - slot.variable) % (1 << 64)
        start = _in_vector(word, fs_base, read) if word < _MODULES else None
        if start and start != _UNALLOCATED:
            return start
    return None


def _in_vector(module: int, fs_base: int, read: Read) -> int | None:
    """Return the thread vector's entry for a module: a pointer in musl, and a pair of words in glibc.

    Before the first module's entry stands a count. glibc leaves the second word of that pair zero, and where it is musl
    has the first module's pointer, which is never zero.
    """
    vector = _word(read, fs_base + _VECTOR)
    second = _word(read, vector + 8) if vector else None
    if not vector or second is None:
        return None
    return _word(read, vector + module * (8 if second else 16))


def _word(read: Read, address: int) -> int | None:
    found = read(address, 8) if 0 <= address < 1 << 63 else b""
    return int.from_bytes(found, "little") if len(found) == 8 else None
