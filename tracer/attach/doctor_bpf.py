"""What the kernel's BPF and its probes can do here: each answer comes from a trial."""

from __future__ import annotations

import errno
from collections.abc import Callable

from tracer.attach import bpf_trials, seccomp
from tracer.attach.doctor_answer import (
    MAY_PROBE,
    NO_BPF,
    Answer,
    Capability,
    Host,
    Status,
    for_rights,
    is_forbidden,
    not_tried,
    refused,
    tried,
)
from tracer.attach.kernel import choose_attach_way
from tracer.errors import CannotTrace
from tracer.settings import AttachWay

Trial = Callable[[], object]
_OPTIONS = "CONFIG_UPROBE_EVENTS and CONFIG_BPF_EVENTS"


def ring_buffer(host: Host, trial: Trial = bpf_trials.ring_buffer) -> Answer:
    """Whether events can be handed over."""
    return tried(host, trial, "one was made and mapped", "Use Linux 5.8 or newer.")


def mapped_arrays(host: Host, trial: Trial = bpf_trials.mapped_array) -> Answer:
    """Whether counters can be read in place."""
    return tried(host, trial, "one was made and mapped", "Use Linux 5.5 or newer.")


def atomics(host: Host, trial: Trial = bpf_trials.compare_and_swap) -> Answer:
    """Whether the table of blocks can be one that needs no lock."""
    return tried(host, trial, "a program that compares and swaps was loaded", "Use Linux 5.12 or newer.")


def batches(host: Host, trial: Trial = bpf_trials.batch_lookup) -> Answer:
    """Whether a table can be read with few system calls."""
    return tried(host, trial, "an entry of a hash map was read in a batch", "Use Linux 5.6 or newer.")


def cookies(host: Host, trial: Trial = bpf_trials.cookies) -> Answer:
    """Whether a probe can be told what it is for."""
    return tried(host, trial, "a program that asks for one was loaded", "Use Linux 5.15 or newer.")


def raw_tracepoints(host: Host, trial: Trial = bpf_trials.raw_tracepoint) -> Answer:
    """Whether the kernel tells of new processes."""
    return tried(host, trial, f"attached to {bpf_trials.QUIET_TRACEPOINT} for a moment",
                 "Use a kernel built with CONFIG_BPF_EVENTS.")


def kernel_reads(host: Host, trial: Trial = bpf_trials.kernel_reads) -> Answer:
    """Whether programs may read kernel memory, and what /sys/kernel/security/lockdown says to that."""
    mode = lockdown_mode(host.read("/sys/kernel/security/lockdown"))
    answer = tried(host, trial, f"programs may read kernel memory ({mode})",
                   "Boot without lockdown=confidentiality; integrity does no harm.")
    if answer.status is Status.MISSING:
        return Answer(answer.status, f"{answer.found} ({mode})", answer.remedy)
    return answer


def lockdown_mode(text: str | None) -> str:
    """Return which word of "none [integrity] confidentiality" is the one that holds."""
    words = [word.strip("[]") for word in (text or "").split() if word.startswith("[")]
    if not words:
        return "no lockdown file"
    return "no lockdown" if words[0] == "none" else f"lockdown: {words[0]}"


def uprobes(way: AttachWay, remedy: str) -> Callable[..., Answer]:
    """Return the look at one way to attach uprobes; choose: tries it, or raises CannotTrace."""
    def look(host: Host, choose: Callable[[AttachWay], object] = choose_attach_way) -> Answer:
        if host.refusal is not None:
            return not_tried(host)
        try:
            choose(way)
        except CannotTrace as problem:
            return Answer(Status.MISSING, problem.message.rstrip("."), remedy)
        return Answer(Status.OK, "attached to a file of leaktrace's own")
    return look


def best_way(choose: Callable[[], AttachWay] = choose_attach_way) -> AttachWay | None:
    """Return how a trace would attach, None where it could not."""
    try:
        return choose()
    except CannotTrace:
        return None


def return_probes(host: Host, survive: Callable[[AttachWay], bool] = seccomp.return_probes_survive,
                  choose: Callable[[], AttachWay | None] = best_way) -> Answer:
    """Whether a process under a seccomp filter lives on when it returns from a probed function."""
    if host.refusal is not None:
        return not_tried(host)
    way = choose()
    if way is None:
        return Answer(Status.UNKNOWN, "not tried: no uprobe can be attached", f"Use a kernel built with {_OPTIONS}.")
    try:
        if survive(way):
            return Answer(Status.OK, "a child under such a filter lived on")
    except OSError as problem:
        return Answer(Status.UNKNOWN, refused(problem))
    return Answer(Status.MISSING, "a child under such a filter was killed",
                  "Use Linux 6.14 or the latest of your stable series, or start the container with --security-opt "
                  "seccomp=unconfined.")


def trampolines(host: Host, trial: Callable[[int], object] = bpf_trials.fentry) -> Answer:
    """Whether programs can sit at the begin and the end of a kernel function (fentry, fexit)."""
    if host.refusal is not None:
        return not_tried(host)
    if isinstance(host.btf, CannotTrace):
        return Answer(Status.MISSING, "they need the kernel's types (BTF)", host.btf.remedy)
    number = host.btf.function_id(bpf_trials.QUIET_FUNCTION)
    if number is None:
        return Answer(Status.UNKNOWN, f"not tried: the kernel has no {bpf_trials.QUIET_FUNCTION} to try it on")
    return tried(host, lambda: trial(number), f"attached to {bpf_trials.QUIET_FUNCTION} for a moment",
                 "Use a kernel built with CONFIG_DYNAMIC_FTRACE and CONFIG_BPF_JIT.")


def kprobes(host: Host, trial: Callable[[str], object] = bpf_trials.kprobe) -> Answer:
    """Whether programs can sit at kernel functions by a breakpoint."""
    function = bpf_trials.QUIET_FUNCTION
    try:
        trial(function)
    except OSError as problem:
        if problem.errno == errno.ENOENT:
            return Answer(Status.UNKNOWN, f"not tried: the kernel has no {function} to try it on")
        if is_forbidden(problem):
            return Answer(Status.MISSING, refused(problem), for_rights(host, MAY_PROBE))
        return Answer(Status.MISSING, refused(problem),
                      "Use a kernel built with CONFIG_KPROBES and CONFIG_KPROBE_EVENTS.")
    return Answer(Status.OK, f"{function} had one for a moment")


def jit(host: Host, measure: Callable[[], int] = bpf_trials.machine_code_bytes) -> Answer:
    """Whether programs become machine code."""
    if host.refusal is not None:
        return not_tried(host)
    setting = host.sysctl("net.core.bpf_jit_enable")
    said = f"net.core.bpf_jit_enable {'is not shown here' if setting is None else f'is {setting}'}"
    try:
        size = measure()
    except OSError as problem:
        return Answer(Status.UNKNOWN, f"{refused(problem)} ({said})")
    if size:
        return Answer(Status.OK, f"2 instructions became {size} bytes of machine code ({said})")
    return Answer(Status.PARTLY, f"programs are interpreted ({said})", "Run: sysctl net.core.bpf_jit_enable=1")


def locked_memory(host: Host, trial: Trial = bpf_trials.map_beyond_memlock,
                  limit: Callable[[], int | None] = bpf_trials.memlock_limit) -> Answer:
    """Whether maps are bound by RLIMIT_MEMLOCK."""
    if host.refusal is not None:
        return not_tried(host)
    try:
        trial()
    except OSError as problem:
        if not is_forbidden(problem):
            return Answer(Status.UNKNOWN, refused(problem))
    except ValueError:
        return Answer(Status.UNKNOWN, "the limit cannot be lowered, so it was not tried")
    else:
        return Answer(Status.OK, "maps do not count against RLIMIT_MEMLOCK, but against the control group's memory")
    allowed = limit()
    if allowed is None:
        return Answer(Status.OK, "maps count against RLIMIT_MEMLOCK, which is unlimited")
    return Answer(Status.PARTLY, f"maps count against RLIMIT_MEMLOCK, which is {allowed >> 10} KiB",
                  "Run before it: ulimit -l unlimited")


def bpf_for_users(host: Host) -> Answer:
    """Say who may use BPF by kernel.unprivileged_bpf_disabled; a trace needs CAP_BPF whatever it says."""
    value = host.sysctl("kernel.unprivileged_bpf_disabled")
    said = {"0": "0: all users may use a little of BPF", "1": "1: BPF is for CAP_BPF only, until the next boot",
            "2": "2: BPF is for CAP_BPF only"}.get(value or "", "the kernel has no such setting")
    if host.refusal is None:
        return Answer(Status.OK, f"{said}; a program was loaded")
    if is_forbidden(host.refusal):
        return Answer(Status.MISSING, f"{said}; loading a program was refused", for_rights(host, Capability.CAP_BPF))
    return Answer(Status.MISSING, refused(host.refusal), NO_BPF)
