"""The few bpf(2) calls that BCC does not make: links for uprobe sessions and multi-uprobes, and an empty program.

Layouts from the kernel's include/uapi/linux/bpf.h (union bpf_attr).
"""

from __future__ import annotations

import ctypes as ct
import os
from collections.abc import Sequence
from dataclasses import dataclass

_libc = ct.CDLL(None, use_errno=True)

SYS_BPF = 321
BPF_PROG_LOAD = 5
BPF_LINK_CREATE = 28
BPF_PROG_TYPE_KPROBE = 2
BPF_TRACE_UPROBE_MULTI = 48
BPF_TRACE_UPROBE_SESSION = 56 + 1
BPF_F_UPROBE_MULTI_RETURN = 1


class _LinkCreateUprobeMulti(ct.Structure):
    _fields_ = (
        ("prog_fd", ct.c_uint32),
        ("target_fd", ct.c_uint32),
        ("attach_type", ct.c_uint32),
        ("flags", ct.c_uint32),
        ("path", ct.c_uint64),
        ("offsets", ct.c_uint64),
        ("ref_ctr_offsets", ct.c_uint64),
        ("cookies", ct.c_uint64),
        ("cnt", ct.c_uint32),
        ("multi_flags", ct.c_uint32),
        ("pid", ct.c_uint32),
        ("padding", ct.c_uint32),
    )


class _ProgLoad(ct.Structure):
    _fields_ = (
        ("prog_type", ct.c_uint32),
        ("insn_cnt", ct.c_uint32),
        ("insns", ct.c_uint64),
        ("license", ct.c_uint64),
        ("log_level", ct.c_uint32),
        ("log_size", ct.c_uint32),
        ("log_buf", ct.c_uint64),
        ("kern_version", ct.c_uint32),
        ("prog_flags", ct.c_uint32),
        ("prog_name", ct.c_char * 16),
        ("prog_ifindex", ct.c_uint32),
        ("expected_attach_type", ct.c_uint32),
    )


def _bpf(command: int, attributes: ct.Structure) -> int:
    result: int = _libc.syscall(SYS_BPF, command, ct.byref(attributes), ct.sizeof(attributes))
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result


@dataclass(frozen=True, slots=True)
class UprobePlace:
    """A file offset to probe and the 64 bits its program gets with it."""

    offset: int
    cookie: int


def link_uprobes(program: int, attach_type: int, path: str, places: Sequence[UprobePlace], pid: int,
                 *, returns: bool = False) -> int:
    """Attach program (an fd) at all places of the file at path, in process pid only; return the link's fd.

    The kernel takes the probes away when the fd is closed, however its owner ends. Raises OSError: EINVAL where the
    kernel does not know the attach type, ESRCH where pid is gone.
    """
    count = len(places)
    offsets = (ct.c_uint64 * count)(*(place.offset for place in places))
    cookies = (ct.c_uint64 * count)(*(place.cookie for place in places))
    name = ct.create_string_buffer(os.fsencode(path))
    attributes = _LinkCreateUprobeMulti(
        prog_fd=program,
        attach_type=attach_type,
        path=ct.addressof(name),
        offsets=ct.addressof(offsets),
        cookies=ct.addressof(cookies),
        cnt=count,
        multi_flags=BPF_F_UPROBE_MULTI_RETURN if returns else 0,
        pid=pid,
    )
    return _bpf(BPF_LINK_CREATE, attributes)


#: Instructions of 8 bytes each: mov r0, 0; exit.
RETURN_0 = bytes.fromhex("b700000000000000" "9500000000000000")
#: r1 = 0; *(u64 *)(r10 - 8) = r1; r0 = 0; lock cmpxchg *(u64 *)(r10 - 8), r1; r0 = 0; exit. Linux 5.12 and newer.
COMPARE_AND_SWAP = bytes.fromhex(
    "b701000000000000" "7b1af8ff00000000" "b700000000000000" "db1af8fff1000000" "b700000000000000" "9500000000000000"
)


def load_program(instructions: bytes, attach_type: int = 0) -> int:
    """Load a program for uprobes and return its fd. Raises OSError: EPERM without the capability, EINVAL, ..."""
    code = ct.create_string_buffer(instructions, len(instructions))
    license_name = ct.create_string_buffer(b"GPL")
    return _bpf(
        BPF_PROG_LOAD,
        _ProgLoad(
            prog_type=BPF_PROG_TYPE_KPROBE,
            insn_cnt=len(instructions) // 8,
            insns=ct.addressof(code),
            license=ct.addressof(license_name),
            prog_name=b"leaktrace_try",
            expected_attach_type=attach_type,
        ),
    )
