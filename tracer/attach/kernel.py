"""What this kernel and this user can do, found by trying, never by version number."""

from __future__ import annotations

import errno
import mmap
import os
import platform
from functools import cache

from tracer.attach import bpf_syscall, perf_event
from tracer.errors import CannotTrace
from tracer.settings import AttachWay

NOP = b"\x90"

_ATTACH_TYPES = {
    AttachWay.SESSION: bpf_syscall.BPF_TRACE_UPROBE_SESSION,
    AttachWay.MULTI: bpf_syscall.BPF_TRACE_UPROBE_MULTI,
}
#: What a user who is not root needs (capabilities(7)).
CAPABILITIES = "CAP_BPF, CAP_PERFMON, CAP_SYS_PTRACE, CAP_SYS_ADMIN (for /proc/PID/map_files) and CAP_DAC_READ_SEARCH"


def attach_type(way: AttachWay) -> int:
    """Return the number the kernel knows way by (enum bpf_attach_type)."""
    return _ATTACH_TYPES[way]


def require_platform() -> None:
    """Raise CannotTrace on a machine whose registers and calling convention are not known."""
    if platform.machine() != "x86_64":
        raise CannotTrace(f"leaktrace does not know the registers of {platform.machine()}.", "Run it on x86-64.")


def choose_attach_way(forced: AttachWay | None = None) -> AttachWay:
    """Return the cheapest way to attach uprobes that works here, or the forced one if it works.

    Tries each with an empty program on a file of its own. Raises CannotTrace without permission, without uprobes, or
    where the forced way does not work.
    """
    for way in (forced,) if forced else AttachWay:
        problem = _try(way)
        if problem is None:
            return way
        if problem.errno == errno.EPERM:
            raise CannotTrace("The kernel does not allow this user to load BPF programs.",
                              f"Run leaktrace with sudo, or give it {CAPABILITIES}.")
        if forced:
            raise CannotTrace(f"This kernel does not attach uprobes by {way} ({problem.strerror}).",
                              "Leave --attach out: leaktrace takes the best way that works.")
    raise CannotTrace("This kernel attaches uprobes in no way that leaktrace knows.",
                      "Use a kernel built with CONFIG_UPROBE_EVENTS and CONFIG_BPF_EVENTS.")


def has_atomics() -> bool:
    """Return whether BPF programs can compare and swap here."""
    try:
        os.close(bpf_syscall.load_program(bpf_syscall.COMPARE_AND_SWAP))
    except OSError:
        return False
    return True


def _try(way: AttachWay) -> OSError | None:
    """Return None if way works, else the kernel's answer.

    What works stays attached until this process ends: taking a probe away waits for all processors, 25 ms.
    """
    kind = _ATTACH_TYPES.get(way, 0)
    opened: list[int] = []
    try:
        opened.append(bpf_syscall.load_program(bpf_syscall.RETURN_0, kind))
        path, offset = _trial_file(), 0
        if way is AttachWay.PERF:
            opened.append(perf_event.attach_uprobe(opened[0], path, offset, os.getpid(), returns=False))
        else:
            place = [bpf_syscall.UprobePlace(offset, 0)]
            opened.append(bpf_syscall.link_uprobes(opened[0], kind, path, place, os.getpid()))
        return None
    except OSError as problem:
        for fd in reversed(opened):
            os.close(fd)
        return problem


@cache
def _trial_file() -> str:
    """Return the path of a file that nobody maps: a trial on a real program would be felt by those who run it."""
    fd = os.memfd_create("leaktrace-trial")
    os.write(fd, NOP * mmap.PAGESIZE)
    return f"/proc/self/fd/{fd}"
