"""Small trials of what the kernel's bpf(2) can do here: each makes the thing, uses it once, and lets go of it.

A trial that returns has worked; one that does not raises OSError with the kernel's answer. Programs that are attached
for a moment sit where nobody comes by. Layouts from the kernel's include/uapi/linux/bpf.h and perf_event.h.
"""

from __future__ import annotations

import ctypes as ct
import errno
import mmap
import os
import resource
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tracer.attach import bpf_syscall, perf_event
from tracer.attach.bpf_object import MapSpec

_libc = ct.CDLL(None, use_errno=True)

BPF_PROG_LOAD, BPF_OBJ_GET_INFO_BY_FD = 5, 15
BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_ARRAY = 1, 2
BPF_F_MMAPABLE = 1 << 10
BPF_PROG_TYPE_TRACING, BPF_TRACE_FENTRY = 26, 24
#: Calls of helpers by their number, behind what they need in registers; then r0 = 0 and exit.
_GET_ATTACH_COOKIE = bytes.fromhex("85000000ae000000") + bpf_syscall.RETURN_0
#: bpf_probe_read_kernel(r10 - 8, 8, 0)
_READ_KERNEL = bytes.fromhex("bfa1000000000000" "07010000f8ffffff" "b702000008000000" "b703000000000000"
                             "8500000071000000") + bpf_syscall.RETURN_0
#: The kernel has this one for tests of itself and calls it in these only (net/bpf/test_run.c).
QUIET_FUNCTION = "bpf_fentry_test1"
#: Passed only when somebody writes /proc/PID/oom_score_adj.
QUIET_TRACEPOINT = "oom_score_adj_update"
KPROBE_DEVICE = Path("/sys/bus/event_source/devices/kprobe")
#: union bpf_attr for BPF_PROG_LOAD up to attach_btf_id, and where that is.
_LOAD_BYTES, _BTF_ID_AT = 112, 108
#: struct perf_event_attr of its second size, up to config2.
_EVENT = struct.Struct("<IIQQQQQIIQQ")
#: PERF_TYPE_SOFTWARE, PERF_COUNT_SW_DUMMY.
_SOFTWARE, _DUMMY = 1, 9
#: A map that is larger than a limit that is set for it, in bytes.
_LIMIT, _BEYOND = 64 << 10, 256 << 10


class _ObjectInfo(ct.Structure):
    _fields_ = (("fd", ct.c_uint32), ("length", ct.c_uint32), ("info", ct.c_uint64))


def load(kind: int = bpf_syscall.BPF_PROG_TYPE_KPROBE) -> None:
    """Load a program that does nothing; EPERM where this user may not."""
    os.close(bpf_syscall.load_program(bpf_syscall.RETURN_0, kind=kind))


def ring_buffer() -> None:
    """Make a ring buffer and map it (Linux 5.8)."""
    with _map("ring", bpf_syscall.BPF_MAP_TYPE_RINGBUF, 0, 0, mmap.PAGESIZE) as fd:
        # The first page is the reader's; it can be written.
        mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()


def mapped_array() -> None:
    """Make an array and map it as memory (Linux 5.5)."""
    with _map("array", BPF_MAP_TYPE_ARRAY, 4, 8, 1, BPF_F_MMAPABLE) as fd:
        mmap.mmap(fd, mmap.PAGESIZE, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE).close()


def batch_lookup() -> None:
    """Read an entry of a hash map by a batch (Linux 5.6)."""
    key, value, cursor = ct.c_uint32(7), ct.c_uint64(9), ct.c_uint32()
    keys, values = (ct.c_uint32 * 2)(), (ct.c_uint64 * 2)()
    with _map("hash", BPF_MAP_TYPE_HASH, 4, 8, 2) as fd:
        bpf_syscall.update_entry(fd, key, value)
        count, problem = bpf_syscall.lookup_batch(fd, 0, ct.addressof(cursor), ct.addressof(keys),
                                                  ct.addressof(values), 2)
    if problem not in (0, errno.ENOENT):
        raise OSError(problem, os.strerror(problem))
    if (count, keys[0], values[0]) != (1, 7, 9):
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def compare_and_swap() -> None:
    """Load a program that compares and swaps (Linux 5.12)."""
    os.close(bpf_syscall.load_program(bpf_syscall.COMPARE_AND_SWAP))


def cookies() -> None:
    """Load a program that asks for the cookie of its probe (Linux 5.15)."""
    os.close(bpf_syscall.load_program(_GET_ATTACH_COOKIE))


def kernel_reads() -> None:
    """Load a program that reads kernel memory; lockdown in confidentiality mode takes the helper away."""
    os.close(bpf_syscall.load_program(_READ_KERNEL))


def raw_tracepoint() -> None:
    """Attach to a tracepoint that nobody passes, for a moment."""
    program = bpf_syscall.load_program(bpf_syscall.RETURN_0, kind=bpf_syscall.BPF_PROG_TYPE_RAW_TRACEPOINT)
    try:
        os.close(bpf_syscall.open_raw_tracepoint(program, QUIET_TRACEPOINT))
    finally:
        os.close(program)


def fentry(btf_id: int) -> None:
    """Attach a trampoline to the function of that id in the kernel's BTF, for a moment (Linux 5.5)."""
    program = _load_tracing(btf_id)
    try:
        # Without a name: where the program was loaded for.
        no_name = struct.pack("<QII", 0, program, 0)
        os.close(_bpf(bpf_syscall.BPF_RAW_TRACEPOINT_OPEN, ct.create_string_buffer(no_name, len(no_name))))
    finally:
        os.close(program)


def kprobe(function: str, device: Path = KPROBE_DEVICE) -> None:
    """Put a kprobe on a kernel function, disabled, for a moment. ENODEV: the kernel has none."""
    try:
        kind = int((device / "type").read_text())
    except (OSError, ValueError):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None
    name = ct.create_string_buffer(function.encode())
    # Bit 0 of the flags: disabled. config1 is kprobe_func, config2 the offset.
    attributes = _EVENT.pack(kind, _EVENT.size, 0, 1, 0, 0, 1, 1, 0, ct.addressof(name), 0)
    _open_event(attributes)


def perf_event_of_all() -> None:
    """Open a perf event that counts nothing, of all processes of a processor, as probes are; EPERM for some users."""
    _open_event(_EVENT.pack(_SOFTWARE, _EVENT.size, _DUMMY, 0, 0, 0, 1, 0, 0, 0, 0))


def machine_code_bytes() -> int:
    """Return how many bytes of machine code a program became, 0 where it is interpreted."""
    program = bpf_syscall.load_program(bpf_syscall.RETURN_0)
    # struct bpf_prog_info: type, id, tag, jited_prog_len; it may be cut off behind any field.
    info = ct.create_string_buffer(24)
    try:
        _bpf(BPF_OBJ_GET_INFO_BY_FD, _ObjectInfo(program, len(info), ct.addressof(info)))
    finally:
        os.close(program)
    return int.from_bytes(info.raw[16:20], "little")


def map_beyond_memlock() -> None:
    """Make a map that is larger than RLIMIT_MEMLOCK, lowered for a moment; EPERM where maps count against it.

    From Linux 5.11 on (commit 3ac1f01b43b6) they count against the memory of the control group in its place.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    lowered = _LIMIT if hard == resource.RLIM_INFINITY else min(_LIMIT, hard)
    resource.setrlimit(resource.RLIMIT_MEMLOCK, (lowered, hard))
    try:
        with _map("array", BPF_MAP_TYPE_ARRAY, 4, _BEYOND, 1):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (soft, hard))


def memlock_limit() -> int | None:
    """Return RLIMIT_MEMLOCK in bytes, None where there is no limit."""
    soft, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    return None if soft == resource.RLIM_INFINITY else soft


def _open_event(attributes: bytes) -> None:
    """Open an event of all processes on the first processor, and close it."""
    fd: int = _libc.syscall(perf_event.SYS_PERF_EVENT_OPEN, attributes, -1, 0, -1, perf_event.PERF_FLAG_FD_CLOEXEC)
    if fd < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    os.close(fd)


def _load_tracing(btf_id: int) -> int:
    code = ct.create_string_buffer(bpf_syscall.RETURN_0, len(bpf_syscall.RETURN_0))
    license_name = ct.create_string_buffer(b"GPL")
    attributes = ct.create_string_buffer(_LOAD_BYTES)
    struct.pack_into("<IIQQ", attributes, 0, BPF_PROG_TYPE_TRACING, len(bpf_syscall.RETURN_0) // 8,
                     ct.addressof(code), ct.addressof(license_name))
    struct.pack_into("<16sII", attributes, 48, b"leaktrace", 0, BPF_TRACE_FENTRY)
    struct.pack_into("<I", attributes, _BTF_ID_AT, btf_id)
    for _ in range(bpf_syscall.LOAD_TRIES):
        with suppress(BlockingIOError):
            return _bpf(BPF_PROG_LOAD, attributes)
    return _bpf(BPF_PROG_LOAD, attributes)


def _bpf(command: int, attributes: ct.Structure | ct.Array[ct.c_char]) -> int:
    result: int = _libc.syscall(bpf_syscall.SYS_BPF, command, ct.byref(attributes), ct.sizeof(attributes))
    if result < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    return result


@contextmanager
def _map(name: str, kind: int, key: int, value: int, entries: int, flags: int = 0) -> Iterator[int]:
    fd = bpf_syscall.create_map(MapSpec(name, kind, key, value, flags), entries)
    try:
        yield fd
    finally:
        os.close(fd)
