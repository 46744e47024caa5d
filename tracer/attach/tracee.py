"""One traced process: its mappings as they change, the probes in it, and the rules to unwind its stacks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from symbolizer.elf import Elf
from symbolizer.elf_data import find_data
from symbolizer.elf_error import ElfError
from symbolizer.jit_names import JitNames
from symbolizer.mappings import AddressSpace, Mapping, ObjectKey, object_key
from tracer.attach.allocators import FoundAllocator, custom_entries, find_allocator, find_custom
from tracer.attach.code_versions import CodeVersions, code_of
from tracer.attach.go_program import is_go
from tracer.attach.links import Links, Plan, plan_probes
from tracer.attach.objects import Objects
from tracer.attach.program import Program
from tracer.attach.target import Process, find_process
from tracer.collect.unwind_rules import RuleTable, Unwinder
from tracer.errors import CannotTrace
from tracer.limits import MAX_SLOTS
from tracer.settings import AttachWay, Settings

#: The dynamic loader: it has allocator functions for its own start, which the program never calls.
LOADER_PREFIX = "ld-linux"
LOADER_HOOK = "_dl_debug_state"
LOADERS = ("ld-linux", "ld-musl", "ld-")
#: Its variable for debuggers, struct r_debug (link.h), and where r_state is in it.
LOADER_DEBUG, LOADER_STATE = "_r_debug", 24
#: The mappings may change while they are read.
READ_TRIES = 3


@dataclass(frozen=True, slots=True)
class Attached:
    """What was attached to one file of one process."""

    pid: int
    path: str
    plan: Plan
    key: ObjectKey | None


class Tracee:
    """One process in one slot. exec makes a new image of it; its code has versions (code_versions.py)."""

    def __init__(self, process: Process, slot: int, settings: Settings, objects: Objects) -> None:
        self.process = process
        self.slot = slot
        self.image = slot
        self.alive = True
        self.space = AddressSpace.of(())
        self.attached: list[Attached] = []
        self.searched: dict[ObjectKey, str] = {}
        self.pidfd = os.pidfd_open(process.pid)
        self.exe = process.exe
        self.jit = JitNames(process.folder)
        self._settings = settings
        self._objects = objects
        self._loader_watched = False
        self._row: np.ndarray | None = None
        self._versions: CodeVersions | None = None
        self._oldest = 0

    def close(self) -> None:
        """Let go of the process."""
        os.close(self.pidfd)
        self.jit.close()

    def bind(self, program: Program, table: RuleTable) -> None:
        """Begin to follow the code that the kernel side sees."""
        self._row = program.images[self.slot : self.slot + 1]
        self._row["number"] = self._row["code"] = self.slot
        self._row["children"] = 0
        self._versions = CodeVersions(self._objects, table, self.read_mappings)
        program.name_process(self.process.pid, self.slot)

    def read_mappings(self) -> None:
        """Read the mappings again. A process that is gone keeps its last ones."""
        try:
            number, space = self._read_steadily()
        except ProcessLookupError:
            return
        if not space.mappings:
            return
        self._objects.hold(self.process, space)
        if self._row is not None and self._versions is not None:
            if number in self._versions and code_of(self.space) - code_of(space):
                # Unmapped behind the loader's back.
                self._row["code"] += MAX_SLOTS
                number += MAX_SLOTS
            self.space = space
            self._versions.update(number, space)
        self.space = space

    def _read_steadily(self) -> tuple[int, AddressSpace]:
        """Return the mappings and the version they are of."""
        for _ in range(READ_TRIES):
            before = self._version_now()
            space = self.process.read_space()
            if self._version_now() == before:
                break
        return before, space

    def _version_now(self) -> int:
        return int(self._row["code"][0]) if self._row is not None else self.slot

    def unwinder(self, version: int) -> Unwinder | None:
        """Return the unwinder of a version of the code, None for one of an image that is gone."""
        if self._versions is None or version < self._oldest:
            return None
        if version not in self._versions and version == self._version_now():
            self.read_mappings()
        return self._versions.get(version).unwinder

    def space_of(self, version: int) -> AddressSpace:
        """Return what was mapped in a version of the code."""
        return self._versions.space(version) if self._versions else self.space

    def volatile(self) -> np.ndarray:
        """Return where different code was mapped at different times, u64 (n, 2)."""
        return self._versions.volatile() if self._versions else np.empty((0, 2), np.uint64)

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
        for mapping, elf in self._loaders():
            try:
                vaddr = elf.symbols().defined([LOADER_HOOK]).get(LOADER_HOOK)
            except ElfError:
                continue
            offset = elf.vaddr_to_file_offset(vaddr) if vaddr is not None else None
            if offset is not None:
                links.watch_loader(self.process.file_path(mapping), self.process.pid, self.slot, offset,
                                   self.addresses_of(mapping))
                self._loader_watched = True
                return

    def _loaders(self) -> Iterator[tuple[Mapping, Elf]]:
        for key, mapping in self.space.objects().items():
            if mapping.path.rpartition("/")[2].startswith(LOADERS):
                file = self._objects.open(self.process, key, mapping)
                if file.elf is not None:
                    yield mapping, file.elf

    def _loader_symbol(self, name: str, offset: int) -> int:
        """Return the run-time address of a variable of the dynamic loader, 0 if it has none of that name."""
        for mapping, elf in self._loaders():
            vaddr = find_data(elf, name)
            code = elf.file_offset_to_vaddr(mapping.file_offset)
            if vaddr is not None and code is not None:
                return vaddr + offset + mapping.start - code
        return 0

    def became(self, image: int) -> None:
        """After an exec: nothing of the old image is believed."""
        self.image = image
        self.space = AddressSpace.of(())
        self._loader_watched = False
        if self._versions:
            self._versions.drop()
        self._oldest = self._version_now()
        # Files that were attached stay so: the probes are on the file, and the kernel puts them into the new image.
        with suppress(CannotTrace):
            self.process = find_process(self.process.pid, self.process.proc)
        self.exe = self.process.exe

    def publish(self, program: Program) -> None:
        """Tell the kernel side what it needs to know of the process, and could not find out itself."""
        if program.way is AttachWay.PERF:
            self._describe_probes(program)
        if self._row is None:
            return
        trampoline = self.process.trampoline(self.space)
        if trampoline is not None:
            self._row["trampoline"] = trampoline
        if not self._row["loader_state"][0]:
            self._row["loader_state"] = self._loader_symbol(LOADER_DEBUG, LOADER_STATE)

    def _describe_probes(self, program: Program) -> None:
        """Say again what probes without cookies mean: their code may have been mapped elsewhere meanwhile."""
        for each in self.attached:
            addresses = _Addresses(self, each.key)
            for probe in each.plan.probes:
                for address in addresses(probe.file_offset):
                    program.describe_probe(self.slot, address, probe.entry.encode(self.slot))

    def knows_allocator(self) -> bool:
        """Return whether something that allocates was attached."""
        return any(probe.entry.returns for each in self.attached for probe in each.plan.probes)

    @property
    def children(self) -> int:
        """How many processes it has made since it is traced; they are not."""
        return int(self._row["children"][0]) if self._row is not None else 0

    def is_go(self) -> bool:
        """Return whether the program is one in Go, whose memory comes from its own runtime."""
        for key, mapping in self.space.objects().items():
            file = self._objects.open(self.process, key, mapping)
            if file.elf is not None and is_go(file.elf):
                return True
        return False

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


def _is_same_file(mapping: Mapping, wanted: str) -> bool:
    """Return whether -O names this file: by path, by inode, or in memleak's short form ("c" is libc.so)."""
    if "/" not in wanted:
        name = mapping.path.rpartition("/")[2]
        return name.startswith((f"lib{wanted}.so", f"lib{wanted}-")) or name == wanted
    try:
        return os.path.samestat(os.stat(wanted), os.stat(mapping.path)) or os.stat(wanted).st_ino == mapping.inode
    except OSError:
        return wanted == mapping.path
