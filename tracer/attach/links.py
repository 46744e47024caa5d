"""Attaches the probes of one allocator in one process, and says what it attached and what it skipped."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from symbolizer.elf import Elf
from symbolizer.unwind_info import UnwindInfo
from tracer.attach import bpf_syscall, perf_event
from tracer.attach.allocators import EntryPoint, FoundAllocator, FoundFunction
from tracer.attach.exits import find_exits
from tracer.attach.go_program import REASON, is_go, is_go_function
from tracer.attach.kernel import attach_type
from tracer.attach.probe_sites import ProbeSite, probe_site
from tracer.attach.program import Program
from tracer.errors import CannotTrace
from tracer.records import Action
from tracer.settings import AttachWay

#: Bytes that show whether the first instruction is emulated, and nothing else.
ENTRY_ONLY = 2
#: The kernel serves those that wait at the same time together.
CLOSERS = 8


@dataclass(frozen=True, slots=True)
class PlannedProbe:
    """One probe before it is attached: file offset, what it does, and whether the function's return is needed."""

    function: FoundFunction
    site: ProbeSite
    file_offset: int
    entry: EntryPoint
    exits: tuple[int, ...] = ()

    @property
    def by_return(self) -> bool:
        """Whether a return probe gives the result (else its return instructions do, or it is a free)."""
        return self.entry.returns and not self.entry.throws


@dataclass(frozen=True, slots=True)
class Plan:
    """The probes of one allocator in one file, and functions that cannot be probed, each with the reason."""

    allocator: FoundAllocator
    probes: tuple[PlannedProbe, ...]
    skipped: tuple[tuple[str, str], ...]


def plan_probes(elf: Elf, unwind: UnwindInfo, allocator: FoundAllocator) -> Plan:
    """Choose the place of every probe of the allocator that elf defines."""
    probes, skipped = [], []
    go = is_go(elf)
    for function in allocator.functions:
        if go and is_go_function(function.symbol):
            skipped.append((function.symbol, REASON))
            continue
        offset = elf.vaddr_to_file_offset(function.vaddr)
        if offset is None:
            skipped.append((function.symbol, "its code is not in the file"))
            continue
        bounds = unwind.function_bounds(function.vaddr)
        # Where the end is not known, a jump back from further out would not be seen: then only the entry will do.
        length = bounds[1] - function.vaddr if bounds else ENTRY_ONLY
        site = probe_site(bytes(elf.data[offset : offset + length]), function.entry.arguments)
        exits: tuple[int, ...] = ()
        if function.entry.throws:
            found = find_exits(elf, unwind, function.vaddr)
            if found is None:
                skipped.append((function.symbol, "it may throw, and not all of its return instructions are known"))
                continue
            exits = tuple(at for exit_ in found if (at := elf.vaddr_to_file_offset(exit_)) is not None)
        probes.append(PlannedProbe(function, site, offset + site.offset, function.entry, exits))
    return Plan(allocator, tuple(probes), tuple(skipped))


class Detacher:
    """Closes links beside the work: the kernel waits some 30 ms with each until no processor uses it any more."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def detach(self, links: Links) -> None:
        """Detach everything soon. Those of processes that run go on to count until then."""
        for fd in links.take_fds():
            if self._pool is None:
                self._pool = ThreadPoolExecutor(CLOSERS, "detach")
            self._pool.submit(os.close, fd)

    def close(self) -> None:
        """Wait until all is detached."""
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None


class Links:
    """What is attached in one process; the kernel detaches it if this process dies."""

    def __init__(self, program: Program, *, bare: bool = False) -> None:
        """bare attaches programs that do nothing, to measure what the traps alone cost."""
        self._program = program
        self._bare = bare
        self._fds: list[int] = []

    def attach(self, path: str, pid: int, slot: int, plan: Plan,
               addresses_of: Callable[[int], Iterable[int]]) -> None:
        """Attach the plan to the file at path in process pid.

        addresses_of gives the run-time addresses of a file offset, which perf events need. Frees come first: a block
        whose birth is seen must not die unseen. Raises OSError (ESRCH if the process is gone), CannotTrace.
        """
        frees = [probe for probe in plan.probes if not probe.entry.returns]
        returning = [probe for probe in plan.probes if probe.by_return]
        throwing = [probe for probe in plan.probes if probe.entry.throws]
        place = _Placer(self._program, path, pid, slot, addresses_of, self._bare)
        try:
            place.entries("heap_free", frees)
            if self._program.way is AttachWay.SESSION:
                # A throwing function's entry asks for no return: its exits tell.
                place.exits("heap_session", throwing)
                place.entries("heap_session", [*returning, *throwing])
            else:
                place.exits("heap_return", throwing)
                place.returns("heap_return", returning)
                place.entries("heap_enter", [*returning, *throwing])
        finally:
            self._fds += place.fds

    def watch_loader(self, path: str, pid: int, slot: int, file_offset: int,
                     addresses_of: Callable[[int], Iterable[int]]) -> None:
        """Have the kernel tell when the dynamic loader maps or unmaps something: file_offset is _dl_debug_state."""
        entry = EntryPoint("_dl_debug_state", Action.FREE, pointer=0)
        probe = PlannedProbe(FoundFunction(entry, entry.name, 0), ProbeSite(0, False), file_offset, entry)
        place = _Placer(self._program, path, pid, slot, addresses_of, bare=False)
        try:
            place.entries("process_mappings", [probe])
        finally:
            self._fds += place.fds

    def take_fds(self) -> list[int]:
        """Return what must be closed to detach everything, in that order, and leave it to the caller."""
        fds, self._fds = self._fds[::-1], []
        return fds


@dataclass(slots=True)
class _Placer:
    """Attaches to one file of one process, by links or by perf events."""

    program: Program
    path: str
    pid: int
    slot: int
    addresses_of: Callable[[int], Iterable[int]]
    bare: bool
    fds: list[int]

    def __init__(self, program: Program, path: str, pid: int, slot: int,
                 addresses_of: Callable[[int], Iterable[int]], bare: bool) -> None:
        self.program, self.path, self.pid, self.slot = program, path, pid, slot
        self.addresses_of, self.bare, self.fds = addresses_of, bare, []

    def entries(self, function: str, probes: Sequence[PlannedProbe]) -> None:
        self._place(function, [(probe.file_offset, probe.entry.encode(self.slot)) for probe in probes])

    def exits(self, function: str, probes: Sequence[PlannedProbe]) -> None:
        offsets = sorted({at for probe in probes for at in probe.exits})
        entry = EntryPoint("", Action.EXIT)
        self._place(function, [(at, entry.encode(self.slot)) for at in offsets])

    def returns(self, function: str, probes: Sequence[PlannedProbe]) -> None:
        # The cookie of a return says nothing: the entry left what is needed.
        self._place(function, [(probe.file_offset, 0) for probe in probes], returns=True)

    def _place(self, function: str, places: list[tuple[int, int]], *, returns: bool = False) -> None:
        if not places:
            return
        session = function == "heap_session"
        if self.bare:
            function = "bare_session" if session else "bare_probe"
        program = self.program.load(function)
        if self.program.way is AttachWay.PERF:
            for offset, cookie in places:
                if not returns:
                    for address in self.addresses_of(offset):
                        self.program.describe_probe(self.slot, address, cookie)
                self.fds.append(self._checked(
                    partial(perf_event.attach_uprobe, program, self.path, offset, self.pid, returns=returns)))
            return
        kind = attach_type(AttachWay.SESSION if session else AttachWay.MULTI)
        wanted = [bpf_syscall.UprobePlace(offset, cookie) for offset, cookie in places]
        self.fds.append(self._checked(
            partial(bpf_syscall.link_uprobes, program, kind, self.path, wanted, self.pid, returns=returns)))

    def _checked(self, attach: Callable[[], int]) -> int:
        try:
            return attach()
        except ProcessLookupError:
            raise
        except OSError as problem:
            raise CannotTrace(f"The kernel does not attach probes to {self.path}: {problem.strerror}.",
                              "Try another way with --attach multi or --attach perf.") from None


