"""bpf(2): maps, programs, and links for uprobe sessions and multi-uprobes, which BCC cannot make.

Layouts from the kernel's include/uapi/linux/bpf.h (union bpf_attr).
"""

from __future__ import annotations

import ctypes as ct
import errno
import os
import resource
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from tracer.attach.bpf_object import MapSpec

_libc = ct.CDLL(None, use_errno=True)

SYS_BPF = 321
BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM, BPF_MAP_DELETE_ELEM = 0, 1, 2, 3
BPF_PROG_LOAD = 5
BPF_PROG_TEST_RUN = 10
BPF_RAW_TRACEPOINT_OPEN = 17
BPF_MAP_LOOKUP_BATCH, BPF_MAP_DELETE_BATCH = 24, 27
BPF_LINK_CREATE = 28
BPF_PROG_TYPE_KPROBE, BPF_PROG_TYPE_RAW_TRACEPOINT, BPF_PROG_TYPE_TRACING = 2, 17, 26
#: Of a program of type TRACING: at a function's entry, at its return.
BPF_TRACE_FENTRY, BPF_TRACE_FEXIT = 24, 25
BPF_MAP_TYPE_RINGBUF = 27
BPF_TRACE_UPROBE_MULTI = 48
BPF_TRACE_UPROBE_SESSION = 56 + 1
BPF_F_UPROBE_MULTI_RETURN = 1
#: What the verifier says of a program it refuses is longer; its end is what matters, and it is kept.
LOG_BYTES = 1 << 22


#: A key or value of a map.
Value: TypeAlias = "ct._SimpleCData[int] | ct.Array[ct.c_char]"


#: What needs locked memory.
_LOCKING = (BPF_MAP_CREATE, BPF_PROG_LOAD)


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
        ("prog_btf_fd", ct.c_uint32),
        ("func_info_rec_size", ct.c_uint32),
        ("func_info", ct.c_uint64),
        ("func_info_cnt", ct.c_uint32),
        ("line_info_rec_size", ct.c_uint32),
        ("line_info", ct.c_uint64),
        ("line_info_cnt", ct.c_uint32),
        ("attach_btf_id", ct.c_uint32),
    )


class _TestRun(ct.Structure):
    _fields_ = (
        ("prog_fd", ct.c_uint32),
        ("retval", ct.c_uint32),
        ("data_size_in", ct.c_uint32),
        ("data_size_out", ct.c_uint32),
        ("data_in", ct.c_uint64),
        ("data_out", ct.c_uint64),
        ("repeat", ct.c_uint32),
        ("duration", ct.c_uint32),
        ("ctx_size_in", ct.c_uint32),
        ("ctx_size_out", ct.c_uint32),
        ("ctx_in", ct.c_uint64),
        ("ctx_out", ct.c_uint64),
        ("flags", ct.c_uint32),
        ("cpu", ct.c_uint32),
    )


class _MapCreate(ct.Structure):
    _fields_ = (
        ("map_type", ct.c_uint32),
        ("key_size", ct.c_uint32),
        ("value_size", ct.c_uint32),
        ("max_entries", ct.c_uint32),
        ("map_flags", ct.c_uint32),
        ("inner_map_fd", ct.c_uint32),
        ("numa_node", ct.c_uint32),
        ("map_name", ct.c_char * 16),
    )


class _MapEntry(ct.Structure):
    _fields_ = (
        ("map_fd", ct.c_uint32),
        ("padding", ct.c_uint32),
        ("key", ct.c_uint64),
        ("value", ct.c_uint64),
        ("flags", ct.c_uint64),
    )


class _MapBatch(ct.Structure):
    _fields_ = (
        ("in_batch", ct.c_uint64),
        ("out_batch", ct.c_uint64),
        ("keys", ct.c_uint64),
        ("values", ct.c_uint64),
        ("count", ct.c_uint32),
        ("map_fd", ct.c_uint32),
        ("elem_flags", ct.c_uint64),
        ("flags", ct.c_uint64),
    )


class _RawTracepoint(ct.Structure):
    _fields_ = (("name", ct.c_uint64), ("prog_fd", ct.c_uint32))


#: A program is loaded again where a signal came in between (kernel/bpf/verifier.c: EAGAIN).
LOAD_TRIES = 8


def _bpf(command: int, attributes: ct.Structure) -> int:
    result: int = _libc.syscall(SYS_BPF, command, ct.byref(attributes), ct.sizeof(attributes))
    if result < 0 and ct.get_errno() == errno.EPERM and command in _LOCKING and _may_lock_more():
        result = _libc.syscall(SYS_BPF, command, ct.byref(attributes), ct.sizeof(attributes))
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result


def _may_lock_more() -> bool:
    """Lift the limit of locked memory, against which maps count before Linux 5.11; return whether that changed it."""
    everything = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    if resource.getrlimit(resource.RLIMIT_MEMLOCK) == everything:
        return False
    try:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, everything)
    except (OSError, ValueError):
        ct.set_errno(errno.EPERM)
        return False
    return True


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


def load_program(instructions: bytes, attach_type: int = 0, kind: int = BPF_PROG_TYPE_KPROBE,
                 name: str = "leaktrace", function: int = 0) -> int:
    """Load a program and return its fd. Raises OSError: EPERM without the capability, EINVAL, EACCES, ...

    function: of one of type TRACING, the kernel function that it is for, by its id in the kernel's BTF.
    """
    return _load(instructions, attach_type, kind, name, None, function)


def verifier_log(instructions: bytes, attach_type: int, kind: int, function: int = 0) -> str:
    """Return the last line but one of what the verifier says against a program it refuses."""
    log = ct.create_string_buffer(LOG_BYTES)
    try:
        os.close(_load(instructions, attach_type, kind, "leaktrace", log, function))
    except OSError as problem:
        lines = log.value.decode(errors="replace").strip().splitlines()
        return lines[-2] if len(lines) > 1 else str(problem.strerror)
    return "none"


def _load(instructions: bytes, attach_type: int, kind: int, name: str,
          log: ct.Array[ct.c_char] | None, function: int = 0) -> int:
    code = ct.create_string_buffer(instructions, len(instructions))
    license_name = ct.create_string_buffer(b"GPL")
    attributes = _ProgLoad(
        prog_type=kind,
        insn_cnt=len(instructions) // 8,
        insns=ct.addressof(code),
        license=ct.addressof(license_name),
        log_level=1 if log else 0,
        log_size=len(log) if log else 0,
        log_buf=ct.addressof(log) if log else 0,
        prog_name=name.encode()[:15],
        expected_attach_type=attach_type,
        attach_btf_id=function,
    )
    for _ in range(LOAD_TRIES):
        with suppress(BlockingIOError):
            return _bpf(BPF_PROG_LOAD, attributes)
    return _bpf(BPF_PROG_LOAD, attributes)


def create_map(spec: MapSpec, entries: int) -> int:
    """Make a map and return its fd. Raises OSError: ENOMEM, EPERM, ..."""
    ring = spec.type == BPF_MAP_TYPE_RINGBUF
    attributes = _MapCreate(spec.type, 0 if ring else spec.key_size, 0 if ring else spec.value_size, entries,
                            spec.flags, 0, 0, spec.name.encode()[:15])
    return _bpf(BPF_MAP_CREATE, attributes)


def open_raw_tracepoint(program: int, name: str) -> int:
    """Attach program to a tracepoint and return the link's fd. Raises OSError."""
    text = ct.create_string_buffer(name.encode())
    return _bpf(BPF_RAW_TRACEPOINT_OPEN, _RawTracepoint(ct.addressof(text), program))


def attach_tracing(program: int) -> int:
    """Attach a program of type TRACING to the function that it was loaded for; return the link's fd. Raises OSError."""
    return _bpf(BPF_RAW_TRACEPOINT_OPEN, _RawTracepoint(0, program))


def run_once(program: int) -> None:
    """Run a raw tracepoint's program in this thread, with arguments that are 0 (Linux 5.10). Raises OSError."""
    context = ct.create_string_buffer(12 * 8)
    _bpf(BPF_PROG_TEST_RUN, _TestRun(prog_fd=program, ctx_size_in=len(context), ctx_in=ct.addressof(context)))


def lookup_entry(fd: int, key: Value, value: ct.Array[ct.c_char]) -> bool:
    """Copy one entry's value, of all processors where the map is per processor; return whether there is one."""
    try:
        _bpf(BPF_MAP_LOOKUP_ELEM, _MapEntry(fd, 0, ct.addressof(key), ct.addressof(value), 0))
    except OSError:
        return False
    return True


def update_entry(fd: int, key: Value, value: Value) -> None:
    """Set one entry of a hash map or an array. Raises OSError."""
    _bpf(BPF_MAP_UPDATE_ELEM, _MapEntry(fd, 0, ct.addressof(key), ct.addressof(value), 0))


def delete_entry(fd: int, key: ct._SimpleCData[int]) -> None:
    """Remove one entry of a hash map, if it is there."""
    with suppress(OSError):
        _bpf(BPF_MAP_DELETE_ELEM, _MapEntry(fd, 0, ct.addressof(key), 0, 0))


def delete_batch(fd: int, keys: int, count: int) -> tuple[int, int]:
    """Remove count entries whose keys are at the address keys; return how many were, and 0 or the errno.

    ENOENT: the key behind those is not there.
    """
    attributes = _MapBatch(0, 0, keys, 0, count, fd, 0, 0)
    try:
        _bpf(BPF_MAP_DELETE_BATCH, attributes)
    except OSError as problem:
        return int(attributes.count), problem.errno or 0
    return int(attributes.count), 0


def lookup_batch(fd: int, cursor_in: int, cursor_out: int, keys: int, values: int, count: int) -> tuple[int, int]:
    """Copy at most count entries to the addresses keys and values; return how many, and 0 or the errno.

    Cursors are addresses of 4 bytes, cursor_in 0 at the beginning. ENOENT: that was all; ENOSPC: ask for more at once.
    """
    attributes = _MapBatch(cursor_in, cursor_out, keys, values, count, fd, 0, 0)
    try:
        _bpf(BPF_MAP_LOOKUP_BATCH, attributes)
    except OSError as problem:
        return int(attributes.count), problem.errno or 0
    return int(attributes.count), 0
