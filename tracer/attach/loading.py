"""Watches a program from its exec on until the dynamic loader has mapped what it starts with.

The loader maps the allocator after exec, and constructors of libraries run before the program's entry point. So the
program is stopped at its system calls, which gives time to attach after each mapping of code. It is over with the
first system call that the loader does not make: by then everything is mapped, and nothing of it has run.
"""

from __future__ import annotations

import struct
from pathlib import Path

from symbolizer.mappings import AddressSpace, parse_maps
from tracer.attach import ptrace

SYS_MMAP = 9
PROT_EXEC = 4
AT_BASE = 7
#: What dynamic loaders call while they map (asm/unistd_64.h): read, open, close, stat, fstat, lseek, mmap, mprotect,
#: munmap, brk, pread64, access, uname, getcwd, readlink, getuid and the like, arch_prctl, set_tid_address, openat,
#: newfstatat, readlinkat, set_robust_list, prlimit64, getrandom, statx, rseq, faccessat2. In musl, the loader and the C
#: library are one file, so that where a call comes from does not say it.
LOADER_CALLS = frozenset({
    0, 2, 3, 4, 5, 8, 9, 10, 11, 12, 17, 21, 63, 79, 89, 102, 104, 107, 108, 158, 218, 257, 262, 267, 273, 302, 318,
    332, 334, 439})


class Loading:
    """One program while it is loaded."""

    def __init__(self, pid: int, proc: Path = Path("/proc")) -> None:
        """pid is stopped at its exec. is_over at once where nothing is loaded: a static program, one of 32 bits."""
        self._loader = _loader_range(proc / str(pid))
        self._maps_code = False
        self.is_over = self._loader is None

    def is_at(self, ip: int) -> bool:
        """Return whether an instruction is one of the loader."""
        low, high = self._loader or (0, 0)
        return low <= ip <= high

    def at_syscall(self, info: ptrace.SyscallInfo) -> bool:
        """Take note of a stop at a system call; return whether code was mapped with the one that now ends."""
        if info.number < 0:
            mapped, self._maps_code = self._maps_code, False
            return mapped
        self.is_over = (self.is_over or info.arch != ptrace.ARCH_X86_64 or not self.is_at(info.ip)
                        or info.number not in LOADER_CALLS)
        self._maps_code = info.number == SYS_MMAP and bool(info.third & PROT_EXEC)
        return False


def _loader_range(folder: Path) -> tuple[int, int] | None:
    """Return from where to where the dynamic loader is mapped, None if the program has none."""
    try:
        words = struct.iter_unpack("<QQ", (folder / "auxv").read_bytes())
        base = next((value for key, value in words if key == AT_BASE), 0)
        space = AddressSpace.of(parse_maps((folder / "maps").read_bytes()))
    except (OSError, struct.error):
        return None
    first = space.locate(base) if base else None
    if first is None:
        return None
    mine = [each for each in space.mappings if each.inode == first.inode and each.path == first.path]
    return base, max(each.end for each in mine)
