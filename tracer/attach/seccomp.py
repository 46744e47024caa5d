"""Whether a return probe can end a process that runs under a seccomp filter, found by trying on a child of our own.

From Linux 6.11 on (commit ff474a78cef5) a probed function returns through a system call, which container runtimes'
filters do not know; from 6.14 on, and in later stable releases, filters are not asked about it (commit cf6cb56ef244).
"""

from __future__ import annotations

import ctypes as ct
import mmap
import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from tracer.attach import bpf_syscall, perf_event
from tracer.attach.kernel import attach_type
from tracer.settings import AttachWay

SYS_URETPROBE = 335
#: push %rbp; mov %rsp,%rbp; pop %rbp; ret
FUNCTION = bytes.fromhex("554889e55dc3")
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
SECCOMP_RET_ALLOW, SECCOMP_RET_KILL_PROCESS = 0x7FFF0000, 0x80000000
#: BPF_LD|BPF_W|BPF_ABS, BPF_JMP|BPF_JEQ|BPF_K, BPF_RET|BPF_K (linux/bpf_common.h)
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06


class _Instruction(ct.Structure):
    """struct sock_filter (linux/filter.h)."""

    _fields_ = (("code", ct.c_uint16), ("if_true", ct.c_uint8), ("if_false", ct.c_uint8), ("value", ct.c_uint32))


class _Program(ct.Structure):
    """struct sock_fprog."""

    _fields_ = (("length", ct.c_uint16), ("instructions", ct.POINTER(_Instruction)))


def has_filter(folder: Path) -> bool:
    """Return whether the process of that /proc/PID runs under a seccomp filter."""
    try:
        lines = (folder / "status").read_text().splitlines()
    except OSError:
        return False
    return any(line.split() == ["Seccomp:", "2"] for line in lines)


def would_end(folder: Path, way: AttachWay) -> bool:
    """Return whether probes of that way would end the process of that /proc/PID. Raises as return_probes_survive()."""
    return has_filter(folder) and not return_probes_survive(way)


@cache
def return_probes_survive(way: AttachWay, forbidden: Sequence[int] = (SYS_URETPROBE,)) -> bool:
    """Return whether a process lives on that returns through a return probe under a filter that kills it for these.

    forbidden: numbers of system calls. Raises OSError where the trial itself cannot be made.
    """
    code = os.memfd_create("leaktrace-seccomp")
    os.write(code, FUNCTION.ljust(mmap.PAGESIZE, b"\x90"))
    go, ready = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        _be_the_target(code, go[0], ready[1], forbidden)
    opened: list[int] = []
    try:
        os.close(ready[1])
        os.read(ready[0], 1)
        opened += _attach(way, f"/proc/self/fd/{code}", pid)
        os.write(go[1], b"x")
        _, status = os.waitpid(pid, 0)
        pid = 0
        return status == 0
    finally:
        if pid:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
        for fd in (*reversed(opened), code, *go, ready[0]):
            os.close(fd)


def _attach(way: AttachWay, path: str, pid: int) -> list[int]:
    if way is AttachWay.PERF:
        program = bpf_syscall.load_program(bpf_syscall.RETURN_0, 0)
        return [program, perf_event.attach_uprobe(program, path, 0, pid, returns=True)]
    kind = attach_type(way)
    program = bpf_syscall.load_program(bpf_syscall.RETURN_0, kind)
    place = [bpf_syscall.UprobePlace(0, 0)]
    # A session is at the return by itself.
    return [program, bpf_syscall.link_uprobes(program, kind, path, place, pid, returns=way is AttachWay.MULTI)]


def _be_the_target(code: int, go: int, ready: int, forbidden: Sequence[int]) -> None:
    """In the child: put on the filter, wait for the probe, call the function."""
    try:
        page = mmap.mmap(code, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_EXEC, flags=mmap.MAP_PRIVATE)
        address = ct.c_void_p()
        # The mapping is read-only, so ctypes cannot tell where it is; its line in the maps can.
        for line in Path("/proc/self/maps").read_text().splitlines():
            if "leaktrace-seccomp" in line:
                address.value = int(line.split("-")[0], 16)
        function = ct.CFUNCTYPE(None)(address.value or 0)
        tests = [_Instruction(_IF_EQUAL, len(forbidden) - index, 0, number) for index, number in enumerate(forbidden)]
        program = [_Instruction(_LOAD, 0, 0, 0), *tests, _Instruction(_RETURN, 0, 0, SECCOMP_RET_ALLOW),
                   _Instruction(_RETURN, 0, 0, SECCOMP_RET_KILL_PROCESS)]
        array = (_Instruction * len(program))(*program)
        libc = ct.CDLL(None, use_errno=True)
        libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ct.byref(_Program(len(program), array)), 0, 0):
            os._exit(3)
        os.write(ready, b"x")
        os.read(go, 1)
        function()
        del page
        os._exit(0)
    finally:
        os._exit(2)
