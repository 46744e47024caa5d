"""Processes that are traced for what they are: by name, control group or container; those there are, and later ones."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from symbolizer.printable import printable
from tracer.attach.cgroup import Cgroup, cgroup_of, find_cgroup, members
from tracer.attach.target import PROC
from tracer.errors import UsageError
from tracer.limits import MAX_GROUPS
from tracer.settings import Settings

#: Bytes of a process's name that the kernel keeps (TASK_COMM_LEN, with the NUL).
COMM_BYTES = 15
#: Inode number of the first control group namespace (PROC_CGROUP_INIT_INO, include/linux/proc_ns.h).
INITIAL_CGROUP_NAMESPACE = 0xEFFFFFFB


@dataclass(frozen=True, slots=True)
class Selection:
    """Names (bytes, as the kernel has them) and control groups, either of which selects a process."""

    comms: tuple[bytes, ...]
    groups: tuple[Cgroup, ...]
    proc: Path = PROC

    def pids(self) -> list[int]:
        """Return the processes that are selected now, leaktrace and those that work for it left out."""
        found: set[int] = set()
        if self.comms:
            found = {int(name) for name in os.listdir(self.proc) if name.isdigit() and self._has_name(int(name))}
        for group in self.groups:
            found.update(members(group, self.proc))
        return sorted(pid for pid in found if not self._is_own(pid))

    def matches(self, pid: int) -> bool:
        """Return whether a process is selected."""
        return not self._is_own(pid) and (self._has_name(pid) or self._is_in_group(pid))

    def is_over(self) -> bool:
        """Return whether nothing can come any more: all the groups are gone."""
        return not self.comms and not any(group.folder.is_dir() for group in self.groups)

    def tells_apart(self) -> bool:
        """Return whether the kernel side can find out by itself who is selected."""
        try:
            here = os.stat(self.proc / "self/ns/cgroup").st_ino
        except OSError:
            here = 0
        known = here == INITIAL_CGROUP_NAMESPACE and all(group.version == 2 for group in self.groups)
        return known or not self.groups

    def levels(self) -> list[tuple[int, int]]:
        """Return the id of each group of version 2, and how many groups are above it."""
        return [(group.id, len([part for part in group.path.split("/") if part]))
                for group in self.groups if group.version == 2]

    def _has_name(self, pid: int) -> bool:
        if not self.comms:
            return False
        try:
            return (self.proc / str(pid) / "comm").read_bytes().rstrip(b"\n") in self.comms
        except OSError:
            return False

    def _is_in_group(self, pid: int) -> bool:
        paths = cgroup_of(pid, self.proc) if self.groups else ()
        return any(path == group.path or path.startswith(f"{group.path.rstrip('/')}/")
                   for group in self.groups for path in (paths[:1] if group.version == 2 else paths))

    def _is_own(self, pid: int) -> bool:
        """Return whether it is leaktrace or a child of it."""
        if pid == os.getpid():
            return True
        try:
            status = (self.proc / str(pid) / "stat").read_bytes()
        except OSError:
            return False
        return int(status.rpartition(b")")[2].split()[1]) == os.getpid()


def select(settings: Settings) -> Selection | None:
    """Return what the settings select, None if nothing. Raises UsageError: unknown, ambiguous, empty, too many."""
    if not settings.selects:
        return None
    groups = [group for path in settings.cgroups for group in _filled(path, [find_cgroup(path)])]
    # Sockets and JSON take long to import.
    if settings.containers:
        from tracer.attach.container_search import find_container
    for wanted in settings.containers:
        groups += _filled(wanted, [group for _, group in find_container(wanted)])
    if len(groups) > MAX_GROUPS:
        raise UsageError(f"{len(groups)} control groups are more than {MAX_GROUPS}.",
                         "Name one above them, or trace fewer at once.")
    comms = []
    for comm in settings.comms:
        if not comm or "\n" in comm:
            raise UsageError("A process has no such name: it is empty, or has a line end.", "Look for it with: ps -A")
        comms.append(os.fsencode(comm)[:COMM_BYTES])
    return Selection(tuple(comms), tuple(groups))


def _filled(wanted: str, groups: Sequence[Cgroup]) -> Sequence[Cgroup]:
    if not any(members(group) for group in groups):
        raise UsageError(f"There are no processes in {printable(wanted)}.",
                         "List the groups that have some with: systemd-cgls")
    return groups
