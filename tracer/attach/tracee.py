"""One traced process: its mappings as they change, the probes in it, and the rules to unwind its stacks."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from symbolizer.jit_names import JitNames
from symbolizer.mappings import AddressSpace, Mapping, ObjectKey, object_key
from tracer.attach.cgroup import cgroup_of
from tracer.attach.code_versions import CodeVersions, code_of
from tracer.attach.container import container_in
from tracer.attach.dynamic_loader import hook_offset, loaders, state_address
from tracer.attach.go_program import is_go
from tracer.attach.links import Links, Plan
from tracer.attach.mapped_allocators import plans_in
from tracer.attach.objects import Objects
from tracer.attach.program import Program
from tracer.attach.target import Process, find_process
from tracer.collect.rule_table import RuleTable
from tracer.collect.unwind_rules import Unwinder
from tracer.errors import CannotTrace
from tracer.limits import MAX_SLOTS
from tracer.records import Check
from tracer.settings import AttachWay, Settings

#: The mappings may change while they are read.
READ_TRIES = 3


@dataclass(frozen=True, slots=True)
class Inherited:
    """What a child without exec has from its parent: live bytes and blocks at the time of the fork."""

    bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class Attached:
    """What was attached to one file of one process."""

    pid: int
    path: str
    plan: Plan
    key: ObjectKey | None


class Tracee:
    """One process in one slot. exec makes a new image of it; its code has versions (code_versions.py)."""

    def __init__(self, process: Process, slot: int, settings: Settings, objects: Objects, uid: int = 0) -> None:
        """uid: its number, which no other process of the trace gets."""
        self.process = process
        self.slot = slot
        self.uid = uid
        self.image = slot
        self.alive = True
        self.links: Links | None = None
        self.parent: int | None = None
        self.inherited: Inherited | None = None
        #: Blocks that exec has done away with, all execs together.
        self.dropped = Inherited(0, 0)
        #: How many were noticed, and how many it was held at.
        self.execs = self.stops_at_exec = 0
        #: Between vfork and exec: it works in its parent's memory, and what it allocates there is its parent's.
        self.shares_memory = False
        #: What became of it, as of wait(2), where that is known.
        self.status: int | None = None
        self.space = AddressSpace.of(())
        self.attached: list[Attached] = []
        self.searched: dict[ObjectKey, str] = {}
        self.pidfd = os.pidfd_open(process.pid)
        #: Without its name, which others know.
        self.container = container_in(cgroup_of(process.pid, process.proc))
        self.exe = process.exe
        self.jit = JitNames(process.folder)
        self._settings = settings
        self._objects = objects
        self._loader_watched = False
        #: Loaders with a probe: exec leaves it there.
        self._hooked: set[ObjectKey | None] = set()
        self._row: np.ndarray | None = None
        self._versions: CodeVersions | None = None
        self._oldest = 0
        #: Versions that were its parent's too, and what they became when it loaded more.
        self._became: dict[int, int] = {}
        self._contents: dict[ObjectKey | None, int] = {}
        self._closed = False
        self.followed = 0
        self._children = 0
        self._allowed = Check.FAMILIES | Check.DOUBLE | Check.UNKNOWN
        if settings.object_path is not None or settings.symbols_prefix:
            # Other allocators may be there, which are not probed.
            self._allowed &= ~Check.UNKNOWN

    def close(self) -> None:
        """Let go of the process; what it had mapped stays known."""
        if self._closed:
            return
        self._closed = True
        os.close(self.pidfd)
        self.jit.finish()
        if self._versions:
            self._versions.drop()

    def bind(self, program: Program, table: RuleTable, bare: bool = False) -> None:
        """Begin to follow the code that the kernel side sees."""
        self._row = program.images[self.slot : self.slot + 1]
        self._row["newest"] = np.maximum(self._row["newest"], self.slot)
        self.image = self._new_number()
        self._oldest = self.image
        self._row["number"] = self._row["code"] = self.image
        self.allow_checks()
        for name in ("trampoline", "loader_state", "unmapping", "children", "told", "read"):
            self._row[name] = 0
        self._versions = CodeVersions(self._objects, table, self.read_mappings)
        self.links = Links(program, bare=bare)
        program.name_process(self.process.pid, self.slot)

    def inherit(self, parent: Tracee, *, shares_memory: bool) -> None:
        """Begin, bound and held, as the child of a traced process: with its code, its probes, perhaps its memory."""
        self.parent, self.shares_memory = parent.process.pid, shares_memory
        self.space, self.searched = parent.space, dict(parent.searched)
        self._contents = dict(parent._contents)
        number = parent._version_now()
        version = parent._versions.share(number) if parent._versions else None
        if version is None or self._versions is None or self._row is None:
            return
        self._versions.begin_with(number, version)
        self._row["code"] = number
        if shares_memory:
            self._row["number"] = self.image = parent.image

    def attach_as(self, parent: Tracee) -> None:
        """Attach what its parent has attached. Raises as attach()."""
        if self.links is None:
            return
        self._restrict_checks(each.plan for each in parent.attached)
        for each in parent.attached:
            mapping = next((mapping for key, mapping in self.space.objects().items() if key == each.key), None)
            if mapping is not None:
                self.links.attach(self.process.file_path(mapping), self.process.pid, self.slot, each.plan,
                                  self.addresses_of(mapping))
                self.attached.append(replace(each, pid=self.process.pid))
        self._watch_loader(self.links)

    def _new_number(self) -> int:
        assert self._row is not None
        self._row["newest"] += MAX_SLOTS
        return int(self._row["newest"][0])

    def read_mappings(self) -> None:
        """Read the mappings again. A process that is gone keeps its last ones."""
        told = int(self._row["told"][0]) if self._row is not None else 0
        try:
            number, space = self._read_steadily()
        except ProcessLookupError:
            return
        if not space.mappings:
            return
        self._objects.hold(self.process, space)
        if self._row is not None and self._versions is not None:
            if number in self._versions:
                before, now = code_of(self.space), code_of(space)
                apart = self._versions.is_shared(number) and now - before
                # Unmapped behind the loader's back, or mapped in one of two processes that had the same code.
                if before - now or apart:
                    fresh = self._new_number()
                    if apart and not before - now:
                        self._became[number] = fresh
                    self._row["code"] = number = fresh
            self.space = space
            self._versions.update(number, space)
            # Libraries that were waiting to be known may go.
            self._row["read"] = told
        self.space = space

    def catch_up(self) -> None:
        """Read the mappings again if the loader has changed something since."""
        if self._row is not None and self._row["read"][0] != self._row["told"][0]:
            self.read_mappings()

    def _read_steadily(self) -> tuple[int, AddressSpace]:
        """Return the mappings and the version they are of."""
        for _ in range(READ_TRIES):
            before = self._version_now()
            space = self._marked(self.process.read_space())
            if self._version_now() == before:
                break
        return before, space

    def _marked(self, space: AddressSpace) -> AddressSpace:
        """Return the mappings with the content of each file, which is looked at once."""
        marked = []
        for mapping in space.mappings:
            key = object_key(mapping) if mapping.executable else None
            if key is not None and key not in self._contents:
                self._contents[key] = self._objects.content(self.process, mapping)
            content = self._contents.get(object_key(mapping), 0)
            marked.append(replace(mapping, content=content) if content else mapping)
        return AddressSpace(tuple(marked), space.starts)

    def _version_now(self) -> int:
        return int(self._row["code"][0]) if self._row is not None else self.slot

    def unwinder(self, version: int) -> Unwinder | None:
        """Return the unwinder of a version of the code, None for one of an image that is gone."""
        if self._versions is None or self.is_gone(version):
            return None
        if version not in self._versions and version == self._version_now():
            self.read_mappings()
        version = self._became.get(version, version)
        return self._versions.get(version).unwinder

    def is_gone(self, version: int) -> bool:
        """Return whether a version is of an image that exec has replaced."""
        if version % MAX_SLOTS == self.slot:
            return version < self._oldest
        return self._versions is None or version not in self._versions

    def space_of(self, version: int) -> AddressSpace:
        """Return what was mapped in a version of the code."""
        return self._versions.space(self._became.get(version, version)) if self._versions else self.space

    def volatile(self) -> np.ndarray:
        """Return where different code was mapped at different times, u64 (n, 2)."""
        return self._versions.volatile() if self._versions else np.empty((0, 2), np.uint64)

    def allow_checks(self, *, from_start: bool = False) -> None:
        """Have frees checked as far as what is attached allows; from_start: nothing of this image was missed."""
        wanted = Check.FAMILIES | Check.DOUBLE | (Check.UNKNOWN if from_start else Check.NOTHING)
        if self._row is not None and self._settings.check_frees:
            self._row["checks"] = wanted & self._allowed

    def _restrict_checks(self, plans: Iterable[Plan]) -> None:
        """Take away, for good, what may not be said of frees where these are attached."""
        for plan in plans:
            self._allowed &= plan.allocator.checks
        if self._row is not None:
            self._row["checks"] &= np.uint32(self._allowed)

    def find_plans(self) -> list[tuple[Mapping, Plan]]:
        """Return what should be attached in files that have not been searched yet."""
        plans = []
        for key, mapping in self.space.objects().items():
            if key not in self.searched:
                self.searched[key] = mapping.path
                plans += [(mapping, plan)
                          for plan in plans_in(self.process, key, mapping, self._objects, self._settings)]
        return plans

    def attach(self) -> list[Attached]:
        """Attach to allocators that are mapped and not attached yet; return what was attached.

        Raises CannotTrace, and ProcessLookupError if the process is gone.
        """
        fresh: list[Attached] = []
        links = self.links
        if links is None:
            return fresh
        plans = self.find_plans()
        self._restrict_checks(plan for _, plan in plans)
        for mapping, plan in plans:
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
        for mapping, elf in loaders(self.process, self.space, self._objects):
            key, offset = object_key(mapping), hook_offset(elf)
            if offset is None:
                continue
            if key not in self._hooked:
                links.watch_loader(self.process.file_path(mapping), self.process.pid, self.slot, offset,
                                   self.addresses_of(mapping))
                self._hooked.add(key)
            self._loader_watched = True
            return

    def became(self, image: int) -> None:
        """After an exec: nothing of the old image is believed."""
        self.image = image
        self.space = AddressSpace.of(())
        self.execs += 1
        self.shares_memory, self.inherited = False, None
        self._became.clear()
        self._contents.clear()
        self._loader_watched = False
        if self._versions:
            self._versions.drop()
        self._oldest = self._version_now()
        self.allow_checks()
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
            self._row["loader_state"] = state_address(self.process, self.space, self._objects)

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
        """How many processes it has made since it is traced that are not traced."""
        if self.alive and self._row is not None:
            self._children = int(self._row["children"][0])
        return max(0, self._children - self.followed)

    def image_after_exec(self) -> int:
        """Return the number of the image that has just come: another one than before."""
        if self._row is None:
            return self.image
        if int(self._row["number"][0]) == self.image:
            # In a container that leaktrace is beside of, the kernel side does not know processes by their ids.
            self._row["number"] = self._row["code"] = self._new_number()
            for name in ("trampoline", "loader_state", "unmapping"):
                self._row[name] = 0
        return int(self._row["number"][0])

    def detach(self) -> None:
        """Take all probes away, now; attach() finds the places anew."""
        if self.links is not None:
            # Not beside the work: two probes in one place would count twice.
            for fd in self.links.take_fds():
                os.close(fd)
        self.attached.clear()
        self.searched.clear()
        self._hooked.clear()
        self._loader_watched = False

    def end(self) -> None:
        """Take note that it has ended: its slot may be another's."""
        self._children = self.children + self.followed
        self.alive = False

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
