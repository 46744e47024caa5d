"""Which books of its own memory a kernel keeps, and how they are read: its account by line of source, and kmemleak."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from tracer.attach.alloc_info import Profiling, TaggedSite, profiling, read_alloc_info
from tracer.attach.kmemleak import KMEMLEAK, Unreferenced, read_unreferenced
from tracer.attach.target import PROC
from tracer.errors import CannotTrace

_JIFFIES = re.compile(rb"^jiffies: (\d+)$", re.MULTILINE)
_STATES = {Profiling.ABSENT: ("not built in", "Use Linux 6.10 or newer with CONFIG_MEM_ALLOC_PROFILING and run sysctl "
                                              "vm.mem_profiling=1"),
           Profiling.OFF: ("switched off", "Run sysctl vm.mem_profiling=1"),
           Profiling.FIXED_OFF: ("off until the kernel is started anew",
                                 "Start the kernel with sysctl.vm.mem_profiling=1 on its command line"),
           Profiling.ON: ("not readable", "Run leaktrace with sudo")}


@dataclass(frozen=True, slots=True)
class Books:
    """How the kernel's books are read, None for what it does not keep.

    detector: is told how often to scan. earlier: blocks that it had before the trace. jiffies: gives the kernel's ticks
    now, None where they are not known. problem: why there is no detector though the kernel has one.
    """

    account: Callable[[], Sequence[TaggedSite]] | None = None
    detector: Callable[[int], tuple[Unreferenced, ...]] | None = None
    earlier: tuple[Unreferenced, ...] = ()
    jiffies: Callable[[], int | None] = lambda: None
    problem: str | None = None


def find_books(proc: Path = PROC, kmemleak: Path = KMEMLEAK,
               read: Callable[[Path, int], tuple[Unreferenced, ...]] = read_unreferenced) -> Books:
    """Return what books this kernel keeps. Scans its memory once if it has kmemleak. Raises CannotTrace if none."""
    state = profiling(proc)
    books = Books(jiffies=lambda: read_jiffies(proc))
    if state is Profiling.ON:
        with suppress(CannotTrace):
            read_alloc_info(proc)
            books = replace(books, account=lambda: read_alloc_info(proc))
    detector = "not there"
    if kmemleak.exists():
        try:
            # Whether it works is found by trying; the first scan is also what the next ones compare with.
            books = replace(books, detector=lambda scans: read(kmemleak, scans), earlier=read(kmemleak, 1))
        except CannotTrace as problem:
            detector = "there but not usable"
            books = replace(books, problem=str(problem))
    if books.account is None and books.detector is None:
        said, remedy = _STATES[state]
        raise CannotTrace(
            "The kernel keeps no books to compare with: memory allocation profiling (/proc/allocinfo) is "
            f"{said}, and kmemleak ({kmemleak}) is {detector}.",
            f"{remedy}; or use a kernel with CONFIG_DEBUG_KMEMLEAK, with debugfs mounted at /sys/kernel/debug"
            + (f" ({books.problem})" if books.problem else "") + ".")
    return books


def read_jiffies(proc: Path = PROC) -> int | None:
    """Return the kernel's ticks, in which kmemleak says when a block was allocated; None where they are not told."""
    try:
        match = _JIFFIES.search((proc / "timer_list").read_bytes())
    except OSError:
        return None
    return int(match[1]) if match is not None else None
