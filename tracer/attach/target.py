"""A process: find it, say why it cannot be traced, read what it has mapped."""

from __future__ import annotations

import mmap
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from symbolizer.file_map import file_bytes
from symbolizer.mappings import VDSO, AddressSpace, Mapping, parse_maps
from symbolizer.printable import printable
from tracer.attach.kernel import CAPABILITIES
from tracer.errors import CannotTrace

PROC = Path("/proc")
#: task flags, field 9 of /proc/PID/stat (include/linux/sched.h).
PF_KTHREAD = 0x00200000
ELFCLASS32 = 1
#: At the threads of a process for their children, where some end meanwhile: in a busy one some always do.
LOOKS = 8


@dataclass(frozen=True, slots=True)
class Process:
    """One process by its id; a number that is used again is told apart by its start time (in clock ticks)."""

    pid: int
    comm: str
    start_time: int
    proc: Path = PROC

    @property
    def folder(self) -> Path:
        """Its directory in /proc."""
        return self.proc / str(self.pid)

    @property
    def exe(self) -> str | None:
        """The path of its executable as it sees it, None once it is gone."""
        try:
            return printable(os.readlink(self.folder / "exe"))
        except OSError:
            return None

    def read_space(self) -> AddressSpace:
        """Return what it has mapped now. Raises CannotTrace without permission, ProcessLookupError once it is gone."""
        try:
            return AddressSpace.of(parse_maps((self.folder / "maps").read_bytes()))
        except PermissionError:
            raise CannotTrace(f"The memory map of process {self.pid} may not be read.",
                              f"Run leaktrace with sudo, or give it {CAPABILITIES}.") from None
        except OSError:
            raise ProcessLookupError(self.pid) from None

    def file_path(self, mapping: Mapping) -> str:
        """Return a path under which the mapped file itself can be opened, deleted or in another namespace or not."""
        by_map = f"{self.folder}/map_files/{mapping.start:x}-{mapping.end:x}"
        if os.path.exists(by_map):
            return by_map
        by_root = f"{self.folder}/root{mapping.path}"
        if os.stat(by_root).st_ino != mapping.inode:
            raise FileNotFoundError(mapping.path)
        return by_root

    def roots(self) -> tuple[str, ...]:
        """Return the root folders in which debug files of its objects may lie: its own, and that of the host."""
        own = f"{self.folder}/root"
        try:
            return ("/",) if os.path.samestat(os.stat(own), os.stat("/")) else (own, "/")
        except OSError:
            return ("/",)

    def open_mapped(self, mapping: Mapping) -> bytes | mmap.mmap:
        """Return the bytes of the mapped file, or of the vdso. Raises OSError, or ValueError for an empty file."""
        if mapping.path == VDSO:
            return self._read_memory(mapping.start, mapping.end - mapping.start)
        path = self.file_path(mapping)
        with open(path, "rb") as file:
            data = file_bytes(file.fileno())
        if "/map_files/" not in path and not self._is_mapped_there(data, mapping):
            raise FileNotFoundError(mapping.path)
        return data

    def _is_mapped_there(self, data: bytes | mmap.mmap, mapping: Mapping) -> bool:
        """Return whether a file found by its path is the mapped one: numbers of inodes are used again."""
        # Only where /proc/PID/map_files cannot be used; numpy takes longer to load than a process to find.
        from symbolizer.elf import Elf
        from symbolizer.elf_error import ElfError
        from symbolizer.image_build_id import image_build_id

        try:
            expected = Elf.parse(data).build_id
            start = next(each.start for each in self.read_space().mappings
                         if each.inode == mapping.inode and each.path == mapping.path and each.file_offset == 0)
            return expected is None or image_build_id(self._read_memory, start) == expected
        except (ElfError, StopIteration):
            # No ELF file, or its first byte is not mapped: there is nothing to compare.
            return True

    def _read_memory(self, address: int, size: int) -> bytes:
        with open(self.folder / "mem", "rb", buffering=0) as memory:
            memory.seek(address)
            return memory.read(size)

    def trampoline(self, space: AddressSpace) -> int | None:
        """Return where the kernel makes its probed functions return to: the start of [uprobes], None if not there."""
        return next((mapping.start for mapping in space.mappings if mapping.path == "[uprobes]"), None)


def find_process(pid: int, proc: Path = PROC) -> Process:
    """Return the process of that id. Raises CannotTrace if it does not exist or cannot be traced."""
    try:
        comm, state, start_time, flags = _read_stat(proc / str(pid) / "stat")
    except OSError:
        raise CannotTrace(f"There is no process {pid}.", "Look for the right one with: pgrep -a NAME") from None
    if flags & PF_KTHREAD:
        raise CannotTrace(f"Process {pid} ({comm}) is a kernel thread; it has no heap of its own.",
                          "Name a process of user space.")
    if state in "ZX":
        raise CannotTrace(f"Process {pid} ({comm}) has ended already; only its parent has not taken notice (zombie).",
                          "Trace a process that runs, or its parent.")
    process = Process(pid, comm, start_time, proc)
    _require_64bit(process)
    return process


def is_alive(process: Process) -> bool:
    """Return whether that very process still runs."""
    try:
        _, state, start_time, _ = _read_stat(process.folder / "stat")
    except OSError:
        return False
    return state not in "ZX" and start_time == process.start_time


def children(pid: int, proc: Path = PROC) -> list[int]:
    """Return the children that all threads of a process have now; none where that is not told, or the process is gone.

    (proc_pid_task_children(5): Linux 4.2 with CONFIG_PROC_CHILDREN)
    """
    found: dict[int, None] = {}
    for _ in range(LOOKS):
        all_told = True
        with suppress(OSError):
            for task in (proc / str(pid) / "task").iterdir():
                try:
                    found |= dict.fromkeys(map(int, (task / "children").read_text().split()))
                except OSError:
                    # It has ended: its children are another thread's now, perhaps of one that was read before.
                    all_told = all_told and task.exists()
        if all_told:
            break
    return list(found)


def _read_stat(path: Path) -> tuple[str, str, int, int]:
    """Return the name, state, start time and flags of proc_pid_stat(5)."""
    text = path.read_bytes()
    # The name stands in parentheses and may hold any character, parentheses too.
    opening, closing = text.index(b"("), text.rindex(b")")
    fields = text[closing + 2 :].split()
    return (
        printable(os.fsdecode(text[opening + 1 : closing])),
        fields[0].decode(),
        int(fields[19]),
        int(fields[6]),
    )


def _require_64bit(process: Process) -> None:
    try:
        with open(process.folder / "exe", "rb") as file:
            head = file.read(5)
    except PermissionError:
        raise CannotTrace(f"The executable of process {process.pid} ({process.comm}) may not be read.",
                          f"Run leaktrace with sudo, or give it {CAPABILITIES}.") from None
    except OSError:
        raise CannotTrace(f"Process {process.pid} ({process.comm}) has no executable: it is just ending.",
                          "Trace a process that runs.") from None
    if head[:4] == b"\x7fELF" and head[4] == ELFCLASS32:
        raise CannotTrace(f"Process {process.pid} ({process.comm}) is a 32-bit program.",
                          "leaktrace knows the calling convention of 64-bit programs only; trace a 64-bit build.")
