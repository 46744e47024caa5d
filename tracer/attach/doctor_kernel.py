"""What the kernel says of itself in files: its types, events, names, settings, and its own books of memory."""

from __future__ import annotations

import ctypes as ct
import errno
import os
from collections.abc import Callable
from pathlib import Path

from tracer.attach import bpf_trials, kernel, tracepoints
from tracer.attach.btf import VMLINUX, Btf
from tracer.attach.doctor_answer import AS_ROOT, MAY_PROBE, Answer, Host, Status, for_rights, is_forbidden, refused
from tracer.errors import CannotTrace

#: The events that tell of one kind of memory: category and name.
SLAB = (("kmem", "kmalloc"), ("kmem", "kfree"), ("kmem", "kmem_cache_alloc"), ("kmem", "kmem_cache_free"))
PAGES = (("kmem", "mm_page_alloc"), ("kmem", "mm_page_free"))
PERCPU = (("percpu", "percpu_alloc_percpu"), ("percpu", "percpu_free_percpu"))
VMALLOC = (("vmalloc", "alloc_vmap_area"), ("vmalloc", "free_vmap_area_noflush"))
#: So much of /proc/kallsyms has addresses that are not 0, unless they are hidden.
_SYMBOLS_BYTES = 64 << 10
SYS_FSOPEN, _FSOPEN_CLOEXEC = 430, 1
#: What perf_event_max_stack is unless somebody has changed it (PERF_MAX_STACK_DEPTH).
USUAL_STACK = 127


def architecture(host: Host, require: Callable[[], None] = kernel.require_platform) -> Answer:
    """Whether registers and calling convention are known."""
    machine = os.uname().machine
    try:
        require()
    except CannotTrace as problem:
        return Answer(Status.MISSING, machine, problem.remedy)
    return Answer(Status.OK, machine)


def types(host: Host) -> Answer:
    """Whether the kernel describes its types (BTF)."""
    if isinstance(host.btf, CannotTrace):
        return Answer(Status.MISSING, host.btf.message.rstrip("."), host.btf.remedy)
    size = host.btf.struct_size("task_struct")
    if size is None:
        return Answer(Status.PARTLY, f"{VMLINUX} does not know struct task_struct",
                      "Use a kernel built with CONFIG_DEBUG_INFO_BTF.")
    return Answer(Status.OK, f"{VMLINUX} (struct task_struct has {size} bytes)")


def can_mount_tracefs() -> OSError | None:
    """Return None where this user could mount tracefs, else why not; mounts nothing (fsopen(2), Linux 5.2)."""
    libc = ct.CDLL(None, use_errno=True)
    fd = libc.syscall(SYS_FSOPEN, b"tracefs", _FSOPEN_CLOEXEC)
    if fd < 0:
        return OSError(ct.get_errno(), os.strerror(ct.get_errno()))
    os.close(fd)
    return None


def tracefs(host: Host, mountable: Callable[[], OSError | None] = can_mount_tracefs) -> Answer:
    """Whether the kernel's events are described, where, and if not, whether they could be."""
    places = [host.root / str(place).lstrip("/") for place in tracepoints.PLACES]
    try:
        found = tracepoints.find_tracefs(places)
    except CannotTrace as problem:
        return Answer(Status.MISSING, problem.message.rstrip("."), AS_ROOT)
    if found is not None:
        return Answer(Status.OK, f"mounted at /{found.relative_to(host.root)}")
    command = f"mount -t tracefs tracefs {tracepoints.TRACEFS}"
    problem_ = mountable()
    if problem_ is None:
        return Answer(Status.MISSING, "not mounted; this user may mount it",
                      f"Run: {command} (a trace that needs it does so itself).")
    if problem_.errno == errno.ENODEV:
        return Answer(Status.MISSING, "not mounted; the kernel has no tracefs",
                      "Use a kernel built with CONFIG_EVENT_TRACING.")
    return Answer(Status.MISSING, f"not mounted; this user may not mount it ({problem_.strerror})",
                  f"Run as root: {command}")


def events(wanted: tuple[tuple[str, str], ...],
           remedy: str = "Use a kernel that has these events.") -> Callable[[Host], Answer]:
    """Return the look at some events, by tracefs, or by the kernel's types where that is not to be had."""
    def look(host: Host) -> Answer:
        places = [host.root / str(place).lstrip("/") for place in tracepoints.PLACES]
        try:
            root = tracepoints.find_tracefs(places)
            by = "in tracefs"
            has = {event: root is not None and tracepoints.exists(*event, root) for event in wanted}
        except CannotTrace:
            root = None
        if root is None:
            btf = host.btf
            if not isinstance(btf, Btf):
                return Answer(Status.UNKNOWN, "neither tracefs nor BTF is there to tell")
            by = "in the kernel's types (BTF)"
            has = {event: btf.tracepoint(event[1]) is not None for event in wanted}
        return _which(has, by, remedy)
    return look


def _which(has: dict[tuple[str, str], bool], by: str, remedy: str) -> Answer:
    there = [":".join(event) for event, found in has.items() if found]
    absent = [":".join(event) for event, found in has.items() if not found]
    if not absent:
        return Answer(Status.OK, f"{', '.join(there)} {by}")
    if not there:
        return Answer(Status.MISSING, f"none of {', '.join(absent)} {by}", remedy)
    return Answer(Status.PARTLY, f"{', '.join(there)} {by}, but not {', '.join(absent)}", remedy)


def names(host: Host) -> Answer:
    """Whether /proc/kallsyms shows addresses, and what kernel.kptr_restrict is."""
    from symbolizer.kallsyms import KernelTable

    setting = host.sysctl("kernel.kptr_restrict")
    said = f"kernel.kptr_restrict is {setting}" if setting is not None else "kernel.kptr_restrict cannot be read"
    try:
        with open(host.proc / "kallsyms", "rb") as file:
            table = KernelTable.parse(file.read(_SYMBOLS_BYTES))
    except OSError as problem:
        return Answer(Status.MISSING, f"/proc/kallsyms cannot be read ({problem.strerror})", AS_ROOT)
    if table.hidden:
        return Answer(Status.MISSING, f"/proc/kallsyms hides the addresses ({said})",
                      "Run it with sudo, and if that is not enough: sysctl kernel.kptr_restrict=1")
    if not len(table):
        return Answer(Status.MISSING, "/proc/kallsyms lists no functions", "Use a kernel built with CONFIG_KALLSYMS.")
    return Answer(Status.OK, f"/proc/kallsyms shows addresses ({said})")


def perf_events(host: Host, trial: Callable[[], None] = bpf_trials.perf_event_of_all) -> Answer:
    """Whether perf events of all processes are open to this user; CAP_PERFMON overrides kernel.perf_event_paranoid."""
    value = host.sysctl("kernel.perf_event_paranoid")
    if value is None:
        return Answer(Status.MISSING, "the kernel has no perf events", "Use a kernel built with CONFIG_PERF_EVENTS.")
    said = f"kernel.perf_event_paranoid is {value}"
    try:
        trial()
    except OSError as problem:
        remedy = for_rights(host, MAY_PROBE) if is_forbidden(problem) else ""
        return Answer(Status.MISSING, f"{refused(problem)} ({said})", remedy)
    return Answer(Status.OK, f"an event of all processes was opened ({said})")


def stack_depth(host: Host) -> Answer:
    """How many frames of a kernel stack are walked at most."""
    value = host.sysctl("kernel.perf_event_max_stack")
    if value is None or not value.isdecimal():
        return Answer(Status.UNKNOWN, "kernel.perf_event_max_stack cannot be read")
    if int(value) < USUAL_STACK:
        return Answer(Status.PARTLY, f"kernel.perf_event_max_stack is {value}",
                      f"Run: sysctl kernel.perf_event_max_stack={USUAL_STACK}")
    return Answer(Status.OK, f"kernel.perf_event_max_stack is {value}")


def allocation_profile(host: Host) -> Answer:
    """Whether the kernel counts its memory by call site itself (Documentation/mm/allocation-profiling.rst)."""
    build = "Use a kernel from 6.10 on, built with CONFIG_MEM_ALLOC_PROFILING."
    setting = host.sysctl("vm.mem_profiling")
    if not (host.proc / "allocinfo").exists():
        if setting is None:
            return Answer(Status.MISSING, "no /proc/allocinfo and no vm.mem_profiling", build)
        return Answer(Status.MISSING, f"vm.mem_profiling is {setting}, but there is no /proc/allocinfo",
                      "Boot with sysctl.vm.mem_profiling=1.")
    if setting is not None and setting.startswith("0"):
        return Answer(Status.PARTLY, "/proc/allocinfo is there, but vm.mem_profiling is 0",
                      "Boot with sysctl.vm.mem_profiling=1; what was allocated before it is set is not counted.")
    try:
        with open(host.proc / "allocinfo", "rb") as file:
            file.readline()
    except OSError as problem:
        return Answer(Status.MISSING, f"/proc/allocinfo cannot be read ({problem.strerror})", AS_ROOT)
    return Answer(Status.OK, f"/proc/allocinfo can be read, vm.mem_profiling is {setting}")


def leak_detector(host: Host, path: str = "/sys/kernel/debug/kmemleak") -> Answer:
    """Whether the kernel looks for what nothing points to itself (Documentation/dev-tools/kmemleak.rst)."""
    file = host.root / path.lstrip("/")
    build = "Use a kernel built with CONFIG_DEBUG_KMEMLEAK, and boot with kmemleak=on."
    try:
        if file.exists():
            return Answer(Status.OK, f"{path} is there")
    except PermissionError:
        return Answer(Status.UNKNOWN, f"this user may not look into {file.parent.name}fs", AS_ROOT)
    if not _is_mounted(host, Path(path).parent):
        return Answer(Status.UNKNOWN, "debugfs is not mounted, where it would be",
                      "Run: mount -t debugfs debugfs /sys/kernel/debug")
    return Answer(Status.MISSING, f"there is no {path}", build)


def _is_mounted(host: Host, point: Path) -> bool:
    lines = (host.read("/proc/self/mountinfo") or "").splitlines()
    return any(line.split(" ")[4:5] == [str(point)] for line in lines)
