"""Uprobes and kprobes as perf events, for kernels that have nothing better: one event per probe.

Layout from the kernel's include/uapi/linux/perf_event.h (struct perf_event_attr).
"""

from __future__ import annotations

import ctypes as ct
import errno
import fcntl
import os
from pathlib import Path

from tracer.errors import CannotTrace

_libc = ct.CDLL(None, use_errno=True)

SYS_PERF_EVENT_OPEN = 298
PERF_EVENT_IOC_ENABLE = 0x2400
PERF_EVENT_IOC_SET_BPF = 0x40042408
PERF_FLAG_FD_CLOEXEC = 8
UPROBE_DEVICE = Path("/sys/bus/event_source/devices/uprobe")
KPROBE_DEVICE = Path("/sys/bus/event_source/devices/kprobe")


class _PerfEventAttr(ct.Structure):
    _fields_ = (
        ("type", ct.c_uint32),
        ("size", ct.c_uint32),
        ("config", ct.c_uint64),
        ("sample_period", ct.c_uint64),
        ("sample_type", ct.c_uint64),
        ("read_format", ct.c_uint64),
        ("flags", ct.c_uint64),
        ("wakeup_events", ct.c_uint32),
        ("bp_type", ct.c_uint32),
        # config1 and config2: of a uprobe its file, of a kprobe its function; the offset in that.
        ("probe_path", ct.c_uint64),
        ("probe_offset", ct.c_uint64),
        ("branch_sample_type", ct.c_uint64),
        ("sample_regs_user", ct.c_uint64),
        ("sample_stack_user", ct.c_uint32),
        ("clockid", ct.c_int32),
        ("sample_regs_intr", ct.c_uint64),
        ("aux_watermark", ct.c_uint32),
        ("sample_max_stack", ct.c_uint16),
        ("reserved", ct.c_uint16),
    )


def uprobe_event_type(device: Path = UPROBE_DEVICE) -> int:
    """Return the number of the uprobe event source. Raises CannotTrace where the kernel has no uprobes."""
    try:
        return int((device / "type").read_text())
    except (OSError, ValueError):
        raise CannotTrace("This kernel has no uprobes, without which no user program can be traced.",
                          "Use a kernel built with CONFIG_UPROBE_EVENTS and CONFIG_BPF_EVENTS.") from None


def attach_uprobe(program: int, path: str, offset: int, pid: int, *, returns: bool) -> int:
    """Run program (an fd) at offset of the file at path in process pid; return the event's fd. Raises OSError."""
    name = ct.create_string_buffer(os.fsencode(path))
    attributes = _PerfEventAttr(
        type=uprobe_event_type(),
        size=ct.sizeof(_PerfEventAttr),
        # Bit 0 of config makes it a return probe (format/retprobe).
        config=1 if returns else 0,
        sample_period=1,
        wakeup_events=1,
        probe_path=ct.addressof(name),
        probe_offset=offset,
    )
    return _attach(program, attributes, pid, -1)


def attach_kprobe(program: int, function: str, device: Path = KPROBE_DEVICE) -> int:
    """Run program (an fd) at the entry of a kernel function, on all processors; return the event's fd.

    Raises OSError, ENODEV where the kernel has no kprobes.
    """
    try:
        kind = int((device / "type").read_text())
    except (OSError, ValueError):
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None
    name = ct.create_string_buffer(function.encode())
    attributes = _PerfEventAttr(type=kind, size=ct.sizeof(_PerfEventAttr), sample_period=1, wakeup_events=1,
                                probe_path=ct.addressof(name))
    # The event is of one processor; its program runs on all (kprobe_perf_func() in kernel/trace/trace_kprobe.c).
    return _attach(program, attributes, -1, 0)


def _attach(program: int, attributes: _PerfEventAttr, pid: int, processor: int) -> int:
    fd: int = _libc.syscall(SYS_PERF_EVENT_OPEN, ct.byref(attributes), pid, processor, -1, PERF_FLAG_FD_CLOEXEC)
    if fd < 0:
        raise OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    try:
        fcntl.ioctl(fd, PERF_EVENT_IOC_SET_BPF, program)
        fcntl.ioctl(fd, PERF_EVENT_IOC_ENABLE, 0)
    except OSError:
        os.close(fd)
        raise
    return fd
