"""What of a process is resident, and of what kind: from smaps (Documentation/filesystems/proc.rst)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import numpy as np

from symbolizer.mappings import Mapping, parse_maps

KIB = 1024
#: Figures that are taken of each mapping, in kB; one an older kernel does not know is 0.
_FIELDS = ("Rss", "Pss", "Anonymous", "Swap", "Shared_Hugetlb", "Private_Hugetlb")
#: A mapping's first line, or one of its figures; all else, three of four lines, is passed over in one go.
_LINE = re.compile(rb"\n(?:([0-9a-f]+-[0-9a-f]+ [r-][w-][^\n]*)|(%b): +(\d{1,15}) kB)" % "|".join(_FIELDS).encode())
#: Largest inaccessible mapping that is taken for the guard below a stack, in bytes: the JVM's are 12 KB, glibc's 4 KB.
_GUARD = 1 << 20
#: Threads whose stack pointer is looked at; it costs some 15 µs each.
_MOST_THREADS = 512
#: Paths of memory that processes share and no disk holds: shm_open(3), memfd_create(2), shmget(2), shared anonymous.
_SHARED = ("/dev/shm/", "/memfd:", "/SYSV", "/dev/zero", "[anon_shmem:")


class Kind(StrEnum):
    """What a mapping is for, as far as its line says it."""

    HEAP = "heap"
    STACK = "stack"
    DATA = "data"
    """Global variables: what a program or library wrote into its own file's mapping, and its bss."""
    ANONYMOUS = "anonymous"
    FILE = "file"
    SHARED = "shared"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over a process, in bytes. hugetlb is memory of huge pages that were set aside, which rss leaves out."""

    rss: int
    pss: int
    anonymous: int
    swap: int = 0
    hugetlb: int = 0


@dataclass(frozen=True, slots=True)
class MemoryUse:
    """All mappings of one process at one moment.

    rss, anonymous: i64 (n,) in bytes, of each mapping; kinds: what each is for. anonymous is what of a mapping is
    no file's page, also where the mapping shows a file.
    """

    totals: Totals
    mappings: tuple[Mapping, ...]
    kinds: tuple[Kind, ...]
    rss: np.ndarray
    anonymous: np.ndarray

    def of(self, kind: Kind) -> list[Mapping]:
        """Return the mappings of a kind."""
        return [mapping for mapping, each in zip(self.mappings, self.kinds, strict=True) if each is kind]

    def resident(self, kind: Kind) -> list[Mapping]:
        """Return the mappings of a kind of which anything is resident: only these can be read without a fault."""
        return [mapping for mapping, each, rss in zip(self.mappings, self.kinds, self.rss.tolist(), strict=True)
                if each is kind and rss]

    def rss_of(self, kind: Kind) -> int:
        """Return the resident bytes of a kind."""
        return int(self.rss[[each is kind for each in self.kinds]].sum())

    @property
    def written(self) -> int:
        """What of the mappings of files is not the file's page any more, in bytes: the process wrote to its copy."""
        return int(self.anonymous[[each is Kind.FILE for each in self.kinds]].sum())

    def with_heaps(self, heaps: np.ndarray) -> MemoryUse:
        """Return the same, where mappings that begin in one of the heaps, [start, end) u64 (n, 2), are heap."""
        starts = np.array([mapping.start for mapping in self.mappings], np.uint64)
        inside = np.any((starts[:, None] >= heaps[:, 0]) & (starts[:, None] < heaps[:, 1]), axis=1)
        return replace(self, kinds=tuple(Kind.HEAP if each else kind
                                         for each, kind in zip(inside.tolist(), self.kinds, strict=True)))


def read_use(folder: Path) -> MemoryUse:
    """Read all of a process, whose folder is /proc/PID. Raises OSError once it is gone or where that is forbidden."""
    return parse_smaps((folder / "smaps").read_bytes(), stack_pointers(folder))


def parse_smaps(text: bytes, stack_pointers: Iterable[int] = ()) -> MemoryUse:
    """Return what the bytes of smaps say; a mapping that was cut off at the end is left out."""
    lines, columns = _read_lines(text)
    whole = min([len(lines), *(len(column) for column in columns.values() if column)])
    parsed = [parse_maps(line) for line in lines[:whole]]
    kept = np.array([bool(each) for each in parsed], bool)
    arrays = {name: (np.array(column[:whole], np.int64) if column else np.zeros(whole, np.int64))[kept] * KIB
              for name, column in columns.items()}
    mappings = tuple(each[0] for each in parsed if each)
    return MemoryUse(
        _totals({name: int(array.sum()) // KIB for name, array in arrays.items()}),
        mappings,
        classify(mappings, stack_pointers),
        arrays["Rss"],
        np.minimum(arrays["Anonymous"], arrays["Rss"]),
    )


def classify(mappings: Sequence[Mapping], stack_pointers: Iterable[int] = ()) -> tuple[Kind, ...]:
    """Return what each mapping is for; mappings are in the order of their addresses."""
    kinds = []
    pointers = np.sort(np.fromiter(stack_pointers, np.uint64))
    before: Mapping | None = None
    for mapping in mappings:
        kind = _by_line(mapping)
        if kind is Kind.ANONYMOUS:
            adjacent = before if before is not None and before.end == mapping.start else None
            first = int(np.searchsorted(pointers, np.uint64(mapping.start)))
            if first < len(pointers) and int(pointers[first]) < mapping.end:
                kind = Kind.STACK
            elif adjacent is not None and mapping.writable:
                kind = _by_neighbour(adjacent)
        kinds.append(kind)
        before = mapping
    return tuple(kinds)


def stack_pointers(folder: Path) -> list[int]:
    """Return the stack pointers of the threads that wait in the kernel, from /proc/PID/task/TID/syscall."""
    found = []
    try:
        threads = os.listdir(folder / "task")
    except OSError:
        return []
    for thread in threads[:_MOST_THREADS]:
        with suppress(OSError, ValueError, IndexError):
            # "running", or a number, arguments, the stack pointer, the program counter (proc_pid_syscall(5)).
            found.append(int((folder / "task" / thread / "syscall").read_bytes().split()[-2], 16))
    return found


def _by_line(mapping: Mapping) -> Kind:
    path = mapping.path
    if path.startswith(_SHARED) or (not mapping.private and not mapping.is_file):
        return Kind.SHARED
    if mapping.is_file:
        return Kind.FILE
    # glibc names its memory where the tunable glibc.mem.decorate_maps says so.
    if path == "[heap]" or path.startswith("[anon: glibc: malloc"):
        return Kind.HEAP
    if path.startswith(("[stack", "[anon: glibc: pthread stack")):
        return Kind.STACK
    return Kind.ANONYMOUS if not path or path.startswith("[anon:") else Kind.OTHER


def _by_neighbour(before: Mapping) -> Kind:
    """Return what anonymous memory is for that begins where another mapping ends."""
    if before.is_file and before.writable and before.private:
        return Kind.DATA
    inaccessible = not (before.readable or before.writable or before.executable)
    if inaccessible and not before.is_file and before.end - before.start <= _GUARD:
        return Kind.STACK
    return Kind.ANONYMOUS


def _read_lines(text: bytes) -> tuple[list[bytes], dict[str, list[int]]]:
    """Return the first line of each mapping, and each figure of all mappings."""
    lines: list[bytes] = []
    columns: dict[bytes, list[int]] = {name.encode(): [] for name in _FIELDS}
    for line, name, figure in _LINE.findall(b"\n" + text):
        if line:
            lines.append(line)
        else:
            columns[name].append(int(figure))
    return lines, {name.decode(): column for name, column in columns.items()}


def _totals(kilobytes: dict[str, int]) -> Totals:
    rss, pss, anonymous, swap, shared, private = (kilobytes[name] * KIB for name in _FIELDS)
    return Totals(rss, pss, anonymous, swap, shared + private)
