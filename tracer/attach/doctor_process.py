"""What this process may do to others, and from where it looks: rights, namespaces, containers, control groups."""

from __future__ import annotations

import ctypes as ct
import os
import signal
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tracer.attach import ptrace, seccomp
from tracer.attach.cgroup import cgroup_of, hierarchies
from tracer.attach.container import container_in
from tracer.attach.doctor_answer import (
    AS_ROOT,
    OUTSIDE,
    WHO_FORBIDS,
    Answer,
    Capability,
    Host,
    Status,
    is_forbidden,
    refused,
)
from tracer.errors import UsageError
from tracer.settings import INITIAL_PID_NAMESPACE

#: Whether a trial by a process that is not the other's parent could seize it, and could read its memory.
Access = tuple[bool, bool]
_SEIZED, _READ = 1, 2
YAMA = {"0": "all of this user's processes", "1": "only descendants, without CAP_SYS_PTRACE",
        "2": "none, without CAP_SYS_PTRACE", "3": "none at all, until the next boot"}


def capabilities(host: Host, user: int | None = None) -> Answer:
    """Which capabilities are there, and whether BPF can be used with them. user: the effective uid."""
    user = os.geteuid() if user is None else user
    absent = [str(each.name) for each in Capability if not host.capabilities & each]
    who = "root" if user == 0 else f"not root (uid {user})"
    has = f"lacks {', '.join(absent)}" if absent else "has all that are needed"
    remedy = f"{AS_ROOT}, or give it {', '.join(absent)}." if absent else ""
    if host.is_nested:
        who, has = f"{who} in a user namespace of its own", "which has no rights outside of it"
        remedy = OUTSIDE
    if host.refusal is not None and is_forbidden(host.refusal):
        return Answer(Status.MISSING, f"{who}, {has}; loading a BPF program was refused", remedy or WHO_FORBIDS)
    return Answer(Status.PARTLY if absent else Status.OK, f"{who}, {has}", remedy)


@cache
def try_access() -> Access:
    """Return whether a stranger with this user's rights can seize a process of this user, and read its memory.

    Both are children made for this: between relatives Yama allows what it forbids between strangers.
    """
    word = ct.create_string_buffer(b"leaktrace")
    target = os.fork()
    if target == 0:
        signal.pause()
        os._exit(0)
    try:
        stranger = os.fork()
        if stranger == 0:
            _be_the_stranger(target, word)
        _, status = os.waitpid(stranger, 0)
    finally:
        os.kill(target, signal.SIGKILL)
        os.waitpid(target, 0)
    code = os.waitstatus_to_exitcode(status)
    return (code & _SEIZED != 0, code & _READ != 0) if code >= 0 else (False, False)


def _be_the_stranger(target: int, word: ct.Array[ct.c_char]) -> None:
    """In a child: try both, and end with the answer. word is in the target's memory, too."""
    found = 0
    try:
        # A fork has the same contents at the same addresses.
        copy = ct.create_string_buffer(len(word))
        local, remote = ((ct.c_uint64 * 2)(ct.addressof(place), len(word)) for place in (copy, word))
        libc = ct.CDLL(None)
        libc.process_vm_readv(target, local, ct.c_ulong(1), remote, ct.c_ulong(1), ct.c_ulong(0))
        if copy.raw == word.raw:
            found |= _READ
        ptrace.request(ptrace.SEIZE, target)
        found |= _SEIZED
    except OSError:
        pass
    finally:
        os._exit(found)


def tracing(host: Host, access: Callable[[], Access]) -> Answer:
    """Whether processes can be held for a look (ptrace(2))."""
    scope = host.sysctl("kernel.yama.ptrace_scope")
    said = f"ptrace_scope is {scope}: {YAMA.get(scope, 'unknown')}" if scope is not None else "there is no Yama"
    if access()[0]:
        return Answer(Status.OK, f"a process was seized ({said})")
    remedy = ("Set kernel.yama.ptrace_scope to 2 or less at boot." if scope == "3" else
              f"{AS_ROOT}, or allow ptrace in the container (--cap-add SYS_PTRACE).")
    return Answer(Status.MISSING, f"a process could not be seized ({said})", remedy)


def reading(host: Host, access: Callable[[], Access]) -> Answer:
    """Whether memory of other processes can be read (process_vm_readv(2))."""
    if access()[1]:
        return Answer(Status.OK, "memory of another process was read")
    return Answer(Status.MISSING, "memory of another process could not be read",
                  f"{AS_ROOT}, or allow ptrace in the container (--cap-add SYS_PTRACE).")


def scan_own_pages() -> None:
    """Ask the kernel for the pages of this process. Raises OSError where it has no such request."""
    from tracer.attach.resident_pages import ScannedPages

    fd = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    try:
        ScannedPages(fd)
    finally:
        os.close(fd)


def page_scan(host: Host, scan: Callable[[], None] = scan_own_pages) -> Answer:
    """Whether the kernel finds the pages in use itself."""
    try:
        scan()
    except OSError as problem:
        return Answer(Status.MISSING, refused(problem), "Use Linux 6.7 or newer.")
    return Answer(Status.OK, "the pages of leaktrace itself were found")


def own_filter(host: Host) -> Answer:
    """Whether leaktrace runs under a seccomp filter."""
    if not seccomp.has_filter(host.proc / "self"):
        return Answer(Status.OK, "none")
    if host.refusal is None:
        return Answer(Status.OK, "there is one, and it allows BPF")
    return Answer(Status.PARTLY, "there is one, and BPF is refused",
                  "Start the container with --security-opt seccomp=unconfined, or run leaktrace outside of it.")


def container(host: Host) -> Answer:
    """Whether leaktrace itself runs in a container."""
    found = container_in(cgroup_of(os.getpid(), host.proc))
    marks = [mark for mark in ("/.dockerenv", "/run/.containerenv", "/run/systemd/container")
             if (host.root / mark.lstrip("/")).exists()]
    if found is None and not marks:
        return Answer(Status.OK, "leaktrace runs in none")
    what = " ".join(part for part in (found.runtime, found.label) if part) if found else f"there is {marks[0]}"
    return Answer(Status.PARTLY, f"leaktrace seems to run in one ({what})", "Run it on the host, or share with the "
                  "container what it has to see: --privileged --pid=host.")


def pid_namespace(host: Host) -> Answer:
    """Whether all processes of the machine can be seen."""
    try:
        number = os.stat(host.proc / "self/ns/pid").st_ino
    except OSError as problem:
        return Answer(Status.UNKNOWN, f"/proc/self/ns/pid cannot be read ({problem.strerror})", "Mount /proc.")
    return in_namespace(number)


def in_namespace(number: int) -> Answer:
    """Say what the inode number of a pid namespace means."""
    if number == INITIAL_PID_NAMESPACE:
        return Answer(Status.OK, "the machine's own")
    return Answer(Status.PARTLY, "one of its own, as in a container", "Start the container with --pid=host.")


def cgroups(host: Host) -> Answer:
    """Which versions of control groups are mounted."""
    try:
        mounted = hierarchies(host.proc)
    except UsageError as problem:
        return Answer(Status.MISSING, problem.message.rstrip("."), problem.remedy)
    versions = {each.version for each in mounted}
    place = next(each.point for each in mounted)
    if versions == {2}:
        return Answer(Status.OK, f"version 2, at {place}")
    if versions == {1, 2}:
        return Answer(Status.PARTLY, f"hybrid: version 2 at {place}, version 1 beside it",
                      "Boot with systemd.unified_cgroup_hierarchy=1.")
    return Answer(Status.PARTLY, f"version 1 only, at {Path(os.path.commonpath([each.point for each in mounted]))}",
                  "Boot with systemd.unified_cgroup_hierarchy=1.")
