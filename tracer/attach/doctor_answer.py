"""What a look at the machine answers, and the machine that is looked at."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import IntFlag, StrEnum
from functools import cached_property
from pathlib import Path

from tracer.attach import bpf_trials
from tracer.attach.btf import VMLINUX, Btf
from tracer.errors import CannotTrace

AS_ROOT = "Run it with sudo: sudo leaktrace doctor"
OUTSIDE = "Run it outside of the user namespace (a rootless container, unshare --user), as root."
NO_BPF = "Use a kernel built with CONFIG_BPF_SYSCALL."
WHO_FORBIDS = ("Look who forbids it: lockdown, a security module, or the seccomp filter of a container (start that "
               "with --privileged).")


class Capability(IntFlag):
    """Those that leaktrace needs, as bits (linux/capability.h)."""

    CAP_DAC_READ_SEARCH = 1 << 2
    CAP_SYS_PTRACE = 1 << 19
    CAP_SYS_ADMIN = 1 << 21
    CAP_PERFMON = 1 << 38
    CAP_BPF = 1 << 39


#: Either is enough for perf events.
MAY_PROBE = Capability.CAP_PERFMON | Capability.CAP_SYS_ADMIN


class Status(StrEnum):
    """How far a need is met."""

    OK = "ok"
    PARTLY = "partly"
    MISSING = "missing"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was found, without a full stop; and what to do about it, in whole sentences, "" where there is nothing."""

    status: Status
    found: str
    remedy: str = ""


class Host:
    """The machine, and the right to try things on it. Reads each thing once."""

    def __init__(self, root: Path = Path("/"), environ: Mapping[str, str] = os.environ,
                 load: Callable[[], None] = bpf_trials.load) -> None:
        """root: what /proc and /sys lie below; load: tries to load a BPF program, or raises OSError."""
        self.root = root
        self.environ = environ
        self._load = load

    @property
    def proc(self) -> Path:
        """Where processes are."""
        return self.root / "proc"

    def read(self, path: str) -> str | None:
        """Return the text of a file below the root, stripped; None where it cannot be read."""
        try:
            return (self.root / path.lstrip("/")).read_text(errors="replace").strip()
        except OSError:
            return None

    def sysctl(self, name: str) -> str | None:
        """Return a setting of the kernel, named as in sysctl(8); None where it cannot be read."""
        return self.read(f"/proc/sys/{name.replace('.', '/')}")

    @cached_property
    def refusal(self) -> OSError | None:
        """Return None where this user may load BPF programs, else the kernel's answer."""
        try:
            self._load()
        except OSError as problem:
            return problem
        return None

    @cached_property
    def btf(self) -> Btf | CannotTrace:
        """Return the kernel's types, or why they are not to be had."""
        try:
            return Btf.of_kernel(self.root / str(VMLINUX).lstrip("/"))
        except CannotTrace as problem:
            return problem

    @property
    def is_nested(self) -> bool:
        """Whether this process is in a user namespace that is not the machine's (user_namespaces(7))."""
        words = (self.read("/proc/self/uid_map") or "").split()
        return words not in ([], ["0", "0", "4294967295"])

    @cached_property
    def capabilities(self) -> int:
        """Return the effective capabilities of this process as bits (capabilities(7)), 0 where they cannot be read.

        0 too in a user namespace of its own: there they hold for what is made there, and nothing that is traced is.
        """
        if self.is_nested:
            return 0
        lines = (self.read("/proc/self/status") or "").splitlines()
        return next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)


def tried(host: Host, trial: Callable[[], object], works: str, remedy: str) -> Answer:
    """Return OK where the trial returns, MISSING with the kernel's words and the remedy where it raises OSError.

    UNKNOWN where this user may not load any BPF program: then a refusal says nothing of the kernel.
    """
    if host.refusal is not None:
        return not_tried(host)
    try:
        trial()
    except OSError as problem:
        return Answer(Status.MISSING, refused(problem), WHO_FORBIDS if is_forbidden(problem) else remedy)
    return Answer(Status.OK, works)


def not_tried(host: Host) -> Answer:
    """Return the answer where BPF as a whole is refused."""
    if host.refusal is None or is_forbidden(host.refusal):
        return Answer(Status.UNKNOWN, "not tried: this user may not use BPF", for_rights(host, Capability.CAP_BPF))
    return Answer(Status.UNKNOWN, f"not tried: there is no BPF here ({host.refusal.strerror})", NO_BPF)


def for_rights(host: Host, capabilities: Capability) -> str:
    """Return what to do where something was refused for which any of these capabilities is enough."""
    if host.is_nested:
        return OUTSIDE
    return WHO_FORBIDS if host.capabilities & capabilities else AS_ROOT


def refused(problem: OSError) -> str:
    """Return the kernel's answer in words."""
    return f"tried, and the kernel says: {problem.strerror}"


def is_forbidden(problem: OSError) -> bool:
    """Whether it is a matter of rights, and not of what the kernel can do."""
    return problem.errno in (errno.EPERM, errno.EACCES)
