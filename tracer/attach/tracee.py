"""One traced process: its mappings as they change, the probes in it, and the rules to unwind its stacks."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from symbolizer.elf import Elf, ElfError
from symbolizer.mappings import AddressSpace, Mapping, ObjectKey, object_key
from symbolizer.unwind_info import UnwindRule
from tracer.attach.allocators import FoundAllocator, custom_entries, find_allocator, find_custom
from tracer.attach.links import Links, Plan, plan_probes
from tracer.attach.objects import Objects
from tracer.attach.program import Program
from tracer.attach.target import Process
from tracer.collect.unwind_rules import FRAME_POINTER_RULE, RuleTable, Unwinder
from tracer.limits import MAX_SLOTS
from tracer.records import ADDRESS_BITS, ADDRESS_MASK, IMAGE_MASK
from tracer.settings import AttachWay, Settings

#: The dynamic loader: it has allocator functions for its own start, which the program never calls.
LOADER_PREFIX = "ld-linux"
LOADER_HOOK = "_dl_debug_state"
#: The mappings are not read again sooner than this for an address that is in none: it may just be no address.
PAUSE_NS = 5_000_000


@dataclass(frozen=True, slots=True)
class Attached:
    """What was attached to one file of one process."""

    pid: int
    path: str
    plan: Plan
    key: ObjectKey | None


class Tracee:
    """One process in one slot. exec makes a new image of it, unmapped code a new epoch; spaces keeps each one's map."""

    def __init__(self, process: Process, slot: int, settings: Settings, objects: Objects) -> None:
        self.process = process
        self.slot = slot
        self.image = slot
        self.epoch = 0
        self.alive = True
        self.space = AddressSpace.of(())
        self.spaces: dict[tuple[int, int], AddressSpace] = {}
        self.attached: list[Attached] = []
        self.searched: dict[ObjectKey, str] = {}
        self.pidfd = os.pidfd_open(process.pid)
        self.exe = process.exe
        self._settings = settings
        self._objects = objects
        self._loader_watched = False
        self._unwinder: Unwinder | None = None
        self._stale = False
        self._read_at = 0

    def unwinder(self, table: RuleTable) -> Unwinder:
        """Return the unwinder of the present image."""
        if self._unwinder is None:
            self._unwinder = Unwinder(self.image, self, table)
        return self._unwinder

    def read_mappings(self) -> bool:
        """Read the mappings again; return whether code was unmapped. A process that is gone keeps its last ones."""
        try:
            space = self.process.read_space()
        except ProcessLookupError:
            return False
        if not space.mappings:
            return False
        lost = bool(_code(self.space) - _code(space))
        self._read_at = time.monotonic_ns()
        if lost:
            self.epoch += 1
            self._unwinder = None
            self._stale = True
        self.space = space
        self.spaces[self.image, self.epoch] = space
        self._objects.hold(self.process, space)
        return lost

    def find_plans(self) -> list[tuple[Mapping, Plan]]:
        """Return what should be attached in files that have not been searched yet."""
        plans = []
        for key, mapping in self.space.objects().items():
            if key in self.searched:
                continue
            self.searched[key] = mapping.path
            file = self._objects.open(self.process, key, mapping)
            info = self._objects.unwind_info(key)
            if file.elf is None or info is None:
                continue
            plans += [(mapping, plan_probes(file.elf, info, found)) for found in self._allocators_in(file.elf, mapping)]
        return plans

    def _allocators_in(self, elf: Elf, mapping: Mapping) -> Iterator[FoundAllocator]:
        settings = self._settings
        wanted = settings.object_path
        try:
            found = None
            if wanted is not None:
                if _is_same_file(mapping, wanted):
                    found = find_allocator(elf, settings.symbols_prefix, required=False)
            elif not mapping.path.rpartition("/")[2].startswith(LOADER_PREFIX):
                found = find_allocator(elf, settings.symbols_prefix)
            if found:
                yield found
            custom = find_custom(elf, custom_entries(settings.alloc_functions, settings.free_functions))
            if custom:
                yield custom
        except ElfError:
            return

    def attach(self, links: Links, program: Program) -> list[Attached]:
        """Attach to allocators that are mapped and not attached yet; return what was attached.

        Raises CannotTrace, and ProcessLookupError if the process is gone.
        """
        fresh = []
        for mapping, plan in self.find_plans():
            links.attach(self.process.file_path(mapping), self.process.pid, self.slot, plan, self.addresses_of(mapping))
            fresh.append(Attached(self.process.pid, mapping.path, plan, object_key(mapping)))
        if not self._loader_watched:
            self._watch_loader(links)
        self.attached += fresh
        return fresh

    def addresses_of(self, mapping: Mapping) -> _Addresses:
        """Return the function from a file offset to its run-time addresses."""
        return _Addresses(self, object_key(mapping))

    def _watch_loader(self, links: Links) -> None:
        for key, mapping in self.space.objects().items():
            name = mapping.path.rpartition("/")[2]
            if not name.startswith(("ld-linux", "ld-musl", "ld-")):
                continue
            file = self._objects.open(self.process, key, mapping)
            try:
                vaddr = file.elf.symbols().defined([LOADER_HOOK]).get(LOADER_HOOK) if file.elf else None
                offset = file.elf.vaddr_to_file_offset(vaddr) if file.elf and vaddr is not None else None
            except ElfError:
                continue
            if offset is not None:
                links.watch_loader(self.process.file_path(mapping), self.process.pid, self.slot, offset,
                                   self.addresses_of(mapping))
                self._loader_watched = True
                return

    def became(self, image: int) -> None:
        """After an exec: nothing of the old image is believed."""
        self.image = image
        self.epoch = 0
        self.space = AddressSpace.of(())
        self._loader_watched = False
        self._unwinder = None
        self._stale = True
        # Files that were attached stay so: the probes are on the file, and the kernel puts them into the new image.
        self.exe = self.process.exe

    def publish(self, program: Program, table: RuleTable) -> None:
        """Tell the kernel side of the epoch and the trampoline, and take back rules of code that is gone."""
        row = program.images[self.slot : self.slot + 1]
        row["epoch"] = self.epoch
        if program.way is AttachWay.PERF:
            self._describe_probes(program)
        trampoline = self.process.trampoline(self.space)
        if trampoline is not None:
            row["trampoline"] = trampoline
        if self._stale:
            self._stale = False
            self._take_back_rules(table)

    def _describe_probes(self, program: Program) -> None:
        """Say again what probes without cookies mean: their code may have been mapped elsewhere meanwhile."""
        for each in self.attached:
            addresses = _Addresses(self, each.key)
            for probe in each.plan.probes:
                for address in addresses(probe.file_offset):
                    program.describe_probe(self.slot, address, probe.entry.encode(self.slot))

    def _take_back_rules(self, table: RuleTable) -> None:
        mine = self.image & IMAGE_MASK

        def is_stale(key: int) -> bool:
            slot = (key >> ADDRESS_BITS & IMAGE_MASK) % MAX_SLOTS
            if slot != self.slot % MAX_SLOTS:
                return False
            return key >> ADDRESS_BITS & IMAGE_MASK != mine or self._code_at(key & ADDRESS_MASK) is None

        table.remove(is_stale)

    def rule_for(self, address: int, *, interrupted: bool) -> UnwindRule:
        """Return the rule at an address (collect.unwind_rules.RuleSource)."""
        at = address if interrupted else address - 1
        mapping = self._code_at(at)
        if mapping is None and time.monotonic_ns() - self._read_at > PAUSE_NS:
            self.read_mappings()
            mapping = self._code_at(at)
        return self._objects.rule_at(mapping, at) if mapping else FRAME_POINTER_RULE

    def _code_at(self, address: int) -> Mapping | None:
        mapping = self.space.locate(address)
        return mapping if mapping is not None and mapping.executable else None

    def knows_allocator(self) -> bool:
        """Return whether something that allocates was attached."""
        return any(probe.entry.returns for each in self.attached for probe in each.plan.probes)

    def may_load_more(self) -> bool:
        """Return whether a dynamic loader was found, which tells of libraries that come later."""
        return self._loader_watched


class _Addresses:
    def __init__(self, tracee: Tracee, key: ObjectKey | None) -> None:
        self._tracee, self._key = tracee, key

    def __call__(self, file_offset: int) -> Iterable[int]:
        for mapping in self._tracee.space.mappings:
            if mapping.executable and object_key(mapping) == self._key:
                address = file_offset - mapping.file_offset + mapping.start
                if mapping.start <= address < mapping.end:
                    yield address


def _code(space: AddressSpace) -> set[tuple[int, int, ObjectKey | None]]:
    """Return what code is mapped where; anonymous code (of a JIT) comes and goes and is not told apart."""
    return {(mapping.start, mapping.file_offset, object_key(mapping)) for mapping in space.mappings
            if mapping.executable and mapping.is_file}


def _is_same_file(mapping: Mapping, wanted: str) -> bool:
    """Return whether -O names this file: by path, by inode, or in memleak's short form ("c" is libc.so)."""
    if "/" not in wanted:
        name = mapping.path.rpartition("/")[2]
        return name.startswith((f"lib{wanted}.so", f"lib{wanted}-")) or name == wanted
    try:
        return os.path.samestat(os.stat(wanted), os.stat(mapping.path)) or os.stat(wanted).st_ino == mapping.inode
    except OSError:
        return wanted == mapping.path
