"""What `leaktrace doctor` concludes from what its trials find; no trial runs here, and /proc and /sys are made up."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pytest

from tracer.attach import doctor_bpf, doctor_kernel, doctor_process, doctor_program, doctor_tools
from tracer.attach.bpf_object import BpfObject
from tracer.attach.doctor import kernel_memory, lacking, lacking_for_kernel, look_around, user_way
from tracer.attach.doctor_answer import (
    AS_ROOT,
    OUTSIDE,
    WHO_FORBIDS,
    Answer,
    Capability,
    Host,
    Status,
    for_rights,
    tried,
)
from tracer.attach.doctor_needs import NEEDS, Need
from tracer.errors import CannotTrace
from tracer.settings import INITIAL_PID_NAMESPACE, AttachWay

ALL = sum(Capability)
OK, PARTLY, MISSING, UNKNOWN = Status.OK, Status.PARTLY, Status.MISSING, Status.UNKNOWN


def refuse(number: int) -> Callable[..., None]:
    """Return a trial that ends with an error number."""
    def trial(*_: object) -> None:
        raise OSError(number, os.strerror(number))
    return trial


def work(*_: object) -> None:
    """A trial that works."""


def made(root: Path, files: dict[str, str] | None = None, *, capabilities: int = ALL, load: Callable[[], None] = work,
         uid_map: str = "0 0 4294967295", environ: dict[str, str] | None = None) -> Host:
    """Return a machine with these files below its root."""
    standard = {"proc/self/status": f"Name:\tx\nCapEff:\t{capabilities:016x}\nSeccomp:\t0\n", "proc/self/uid_map": uid_map}
    for name, text in (standard | (files or {})).items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return Host(root, environ or {}, load)


@pytest.mark.parametrize("look", [
    doctor_bpf.ring_buffer, doctor_bpf.mapped_arrays, doctor_bpf.atomics, doctor_bpf.batches, doctor_bpf.cookies,
    doctor_bpf.raw_tracepoints, doctor_bpf.kernel_reads,
])
def test_a_trial_decides(tmp_path: Path, look: Callable[..., Answer]) -> None:
    """What works is ok without advice; what the kernel does not know is missing, in its words; what it forbids has other advice."""
    host = made(tmp_path)
    assert look(host, work).status is OK and look(host, work).remedy == ""
    absent, forbidden = look(host, refuse(errno.EINVAL)), look(host, refuse(errno.EPERM))
    assert absent.status is MISSING and "Invalid argument" in absent.found and absent.remedy not in ("", WHO_FORBIDS)
    assert forbidden.status is MISSING and forbidden.remedy == WHO_FORBIDS


def test_without_the_right_nothing_is_concluded(tmp_path: Path) -> None:
    """Where no BPF program may be loaded, a trial is not made, and its answer is unknown rather than missing."""
    answer = tried(made(tmp_path, load=refuse(errno.EPERM), capabilities=0), pytest.fail, "worked", "Buy another.")
    assert answer == Answer(UNKNOWN, "not tried: this user may not use BPF", AS_ROOT)
    no_bpf = tried(made(tmp_path, load=refuse(errno.ENOSYS)), pytest.fail, "worked", "Buy another.")
    assert "no BPF here" in no_bpf.found and "CONFIG_BPF_SYSCALL" in no_bpf.remedy


def test_who_may_say_yes(tmp_path: Path) -> None:
    """Advice fits who asks: a user takes sudo, root of a namespace leaves it, and real root looks who forbids."""
    bpf = Capability.CAP_BPF
    assert for_rights(made(tmp_path / "a", capabilities=0), bpf) == AS_ROOT
    assert for_rights(made(tmp_path / "b", uid_map="0 1000 1"), bpf) == OUTSIDE
    assert for_rights(made(tmp_path / "c"), bpf) == WHO_FORBIDS


@pytest.mark.parametrize(("capabilities", "load", "user", "status", "found"), [
    (ALL, work, 0, OK, "root, has all that are needed"),
    (ALL & ~Capability.CAP_SYS_PTRACE, work, 0, PARTLY, "root, lacks CAP_SYS_PTRACE"),
    (Capability.CAP_BPF | Capability.CAP_PERFMON, work, 7, PARTLY,
     "not root (uid 7), lacks CAP_DAC_READ_SEARCH, CAP_SYS_PTRACE, CAP_SYS_ADMIN"),
    (0, refuse(errno.EPERM), 7, MISSING, "loading a BPF program was refused"),
    (ALL, refuse(errno.EPERM), 0, MISSING, "root, has all that are needed; loading a BPF program was refused"),
])
def test_capabilities(tmp_path: Path, capabilities: int, load: Callable[[], None], user: int, status: Status, found: str) -> None:
    """Those that are absent are named, and whether BPF works is found by loading a program."""
    answer = doctor_process.capabilities(made(tmp_path, capabilities=capabilities, load=load), user)
    assert answer.status is status and found in answer.found and bool(answer.remedy) is (status is not OK)


def test_root_of_a_user_namespace_is_no_root(tmp_path: Path) -> None:
    """All capabilities in a user namespace of its own count for nothing."""
    host = made(tmp_path, uid_map="0 1000 1", load=refuse(errno.EPERM))
    answer = doctor_process.capabilities(host, 0)
    assert (answer.status, answer.remedy) == (MISSING, OUTSIDE) and "user namespace" in answer.found
    assert host.capabilities == 0


def test_uprobes(tmp_path: Path) -> None:
    """A way that is refused says so in the words of who tried, with its own advice."""
    def choose(way: AttachWay) -> None:
        raise CannotTrace(f"This kernel does not attach uprobes by {way} (Invalid argument).", "Another remedy.")

    look = doctor_bpf.uprobes(AttachWay.SESSION, "Use Linux 6.13 or newer.")
    assert look(made(tmp_path), choose) == Answer(
        MISSING, "This kernel does not attach uprobes by session (Invalid argument)", "Use Linux 6.13 or newer.")
    assert look(made(tmp_path), work).status is OK


def test_return_probes(tmp_path: Path) -> None:
    """A child that a filter killed makes filtered processes untraceable; without any way there was no trial."""
    def session() -> AttachWay:
        return AttachWay.SESSION

    host = made(tmp_path)
    assert doctor_bpf.return_probes(host, lambda way: True, session).status is OK
    killed = doctor_bpf.return_probes(host, lambda way: False, session)
    assert killed.status is MISSING and "seccomp=unconfined" in killed.remedy
    assert doctor_bpf.return_probes(host, lambda way: True, lambda: None).status is UNKNOWN


def test_trampolines_need_types(tmp_path: Path) -> None:
    """Without BTF there is no fentry, and the remedy is BTF's."""
    answer = doctor_bpf.trampolines(made(tmp_path), work)
    assert answer.status is MISSING and "CONFIG_DEBUG_INFO_BTF" in answer.remedy


@pytest.mark.parametrize(("number", "status", "advice"), [
    (errno.ENODEV, MISSING, "CONFIG_KPROBES"), (errno.ENOENT, UNKNOWN, ""), (errno.EPERM, MISSING, WHO_FORBIDS)])
def test_kprobes(tmp_path: Path, number: int, status: Status, advice: str) -> None:
    """A kernel without kprobes is told from one without the function, and from one that forbids them."""
    answer = doctor_bpf.kprobes(made(tmp_path), refuse(number))
    assert answer.status is status and advice in answer.remedy


def test_jit(tmp_path: Path) -> None:
    """Machine code is seen by its size, not by the setting, which a container may hide."""
    assert doctor_bpf.jit(made(tmp_path / "a"), lambda: 20).status is OK
    assert doctor_bpf.jit(made(tmp_path / "c"), lambda: 0).status is PARTLY
    interpreted = doctor_bpf.jit(made(tmp_path / "b", {"proc/sys/net/core/bpf_jit_enable": "0\n"}), lambda: 0)
    assert interpreted == Answer(PARTLY, "programs are interpreted (net.core.bpf_jit_enable is 0)",
                                 "Run: sysctl net.core.bpf_jit_enable=1")


def test_locked_memory(tmp_path: Path) -> None:
    """Only where a map counts against the limit does the limit matter."""
    host = made(tmp_path)
    assert "control group" in doctor_bpf.locked_memory(host, work, lambda: 65536).found
    assert doctor_bpf.locked_memory(host, refuse(errno.EPERM), lambda: None).status is OK
    bound = doctor_bpf.locked_memory(host, refuse(errno.EPERM), lambda: 65536)
    assert bound.status is PARTLY and "64 KiB" in bound.found and "ulimit -l" in bound.remedy


@pytest.mark.parametrize(("text", "mode"), [
    (None, "no lockdown file"), ("[none] integrity confidentiality", "no lockdown"),
    ("none [integrity] confidentiality", "lockdown: integrity"), ("none integrity [confidentiality]", "lockdown: confidentiality"),
])
def test_lockdown(tmp_path: Path, text: str | None, mode: str) -> None:
    """The word in brackets holds; it is said with the answer, which comes from the trial."""
    host = made(tmp_path, {"sys/kernel/security/lockdown": text} if text else {})
    assert f"({mode})" in doctor_bpf.kernel_reads(host, work).found
    assert f"({mode})" in doctor_bpf.kernel_reads(host, refuse(errno.EINVAL)).found


def test_tracefs(tmp_path: Path) -> None:
    """Where it is mounted is said; where not, whether it could be, and by whom; nothing is mounted."""
    host = made(tmp_path / "a", {"sys/kernel/debug/tracing/events/x": ""})
    assert doctor_kernel.tracefs(host, pytest.fail) == Answer(OK, "mounted at /sys/kernel/debug/tracing")
    bare = made(tmp_path / "b")
    may = doctor_kernel.tracefs(bare, lambda: None)
    assert may.status is MISSING and "this user may mount it" in may.found and "mount -t tracefs" in may.remedy
    may_not = doctor_kernel.tracefs(bare, lambda: PermissionError(errno.EPERM, "Operation not permitted"))
    assert may_not.status is MISSING and "may not mount" in may_not.found and "as root: mount" in may_not.remedy
    without = doctor_kernel.tracefs(bare, lambda: OSError(errno.ENODEV, "No such device"))
    assert without.status is MISSING and "CONFIG_EVENT_TRACING" in without.remedy


def test_events(tmp_path: Path) -> None:
    """All, some or none of a kind's events, by name; without tracefs and types nobody can tell."""
    look = doctor_kernel.events(doctor_kernel.PAGES)
    assert look(made(tmp_path / "n")).status is UNKNOWN
    one = {"sys/kernel/tracing/events/kmem/mm_page_alloc/format": ""}
    both = one | {"sys/kernel/tracing/events/kmem/mm_page_free/format": ""}
    assert look(made(tmp_path / "b", both)) == Answer(OK, "kmem:mm_page_alloc, kmem:mm_page_free in tracefs")
    partly = look(made(tmp_path / "o", one))
    assert partly.status is PARTLY and partly.found.endswith("but not kmem:mm_page_free") and partly.remedy
    assert look(made(tmp_path / "z", {"sys/kernel/tracing/events/x": ""})).status is MISSING


def test_names_of_functions(tmp_path: Path) -> None:
    """Zeros in the place of addresses are hidden names."""
    setting = {"proc/sys/kernel/kptr_restrict": "2\n"}
    hidden = doctor_kernel.names(made(tmp_path / "h", setting | {"proc/kallsyms": "0000000000000000 T _text\n"}))
    assert hidden.status is MISSING and "kptr_restrict is 2" in hidden.found and "kptr_restrict=1" in hidden.remedy
    shown = made(tmp_path / "s", setting | {"proc/kallsyms": "ffffffff81000000 T _text\n"})
    assert doctor_kernel.names(shown).status is OK
    assert doctor_kernel.names(made(tmp_path / "n")).status is MISSING


def test_perf_events(tmp_path: Path) -> None:
    """The trial decides; the setting is only said."""
    setting = {"proc/sys/kernel/perf_event_paranoid": "3\n"}
    assert doctor_kernel.perf_events(made(tmp_path / "o", setting), work).status is OK
    refused = doctor_kernel.perf_events(made(tmp_path / "r", setting, capabilities=0), refuse(errno.EACCES))
    assert refused.status is MISSING and "paranoid is 3" in refused.found and refused.remedy == AS_ROOT
    assert "CONFIG_PERF_EVENTS" in doctor_kernel.perf_events(made(tmp_path / "n"), work).remedy


@pytest.mark.parametrize(("value", "status"), [("127", OK), ("64", PARTLY), ("", UNKNOWN)])
def test_depth_of_stacks(tmp_path: Path, value: str, status: Status) -> None:
    """Less than is usual is worth a word."""
    assert doctor_kernel.stack_depth(made(tmp_path, {"proc/sys/kernel/perf_event_max_stack": value})).status is status


def test_allocation_profile(tmp_path: Path) -> None:
    """Built in and switched on are two things."""
    absent, off = doctor_kernel.allocation_profile(made(tmp_path / "a")), made(
        tmp_path / "o", {"proc/allocinfo": "", "proc/sys/vm/mem_profiling": "0\n"})
    assert absent.status is MISSING and "CONFIG_MEM_ALLOC_PROFILING" in absent.remedy
    assert doctor_kernel.allocation_profile(off).status is PARTLY
    on = made(tmp_path / "1", {"proc/allocinfo": "allocinfo - version: 1.0\n", "proc/sys/vm/mem_profiling": "1\n"})
    assert doctor_kernel.allocation_profile(on).status is OK


def test_kmemleak(tmp_path: Path) -> None:
    """Whether it is absent can only be said where debugfs is mounted."""
    assert doctor_kernel.leak_detector(made(tmp_path / "u")).status is UNKNOWN
    mounted = {"proc/self/mountinfo": "30 20 0:7 / /sys/kernel/debug rw - debugfs debugfs rw\n"}
    assert doctor_kernel.leak_detector(made(tmp_path / "m", mounted)).status is MISSING
    assert doctor_kernel.leak_detector(made(tmp_path / "o", {"sys/kernel/debug/kmemleak": ""})).status is OK


@pytest.mark.parametrize(("scope", "seized", "status", "said"), [
    (None, True, OK, "there is no Yama"), ("1", True, OK, "ptrace_scope is 1: only descendants"),
    ("1", False, MISSING, "only descendants"), ("3", False, MISSING, "none at all"),
])
def test_holding_a_process(tmp_path: Path, scope: str | None, seized: bool, status: Status, said: str) -> None:
    """The trial decides, and Yama's setting is said."""
    host = made(tmp_path, {"proc/sys/kernel/yama/ptrace_scope": scope} if scope else {})
    answer = doctor_process.tracing(host, lambda: (seized, True))
    assert answer.status is status and said in answer.found
    assert ("at boot" in answer.remedy) is (scope == "3")


def test_reading_and_finding_memory(tmp_path: Path) -> None:
    """Each is as its trial says."""
    host = made(tmp_path)
    assert doctor_process.reading(host, lambda: (False, True)).status is OK
    assert doctor_process.reading(host, lambda: (True, False)).status is MISSING
    assert doctor_process.page_scan(host, work).status is OK
    assert "6.7" in doctor_process.page_scan(host, refuse(errno.ENOTTY)).remedy


def test_own_filter(tmp_path: Path) -> None:
    """A filter that lets BPF through does no harm."""
    filtered = {"proc/self/status": "CapEff:\t0\nSeccomp:\t2\n"}
    assert doctor_process.own_filter(made(tmp_path / "n")).status is OK
    assert doctor_process.own_filter(made(tmp_path / "a", filtered)).status is OK
    assert doctor_process.own_filter(made(tmp_path / "r", filtered, load=refuse(errno.EPERM))).status is PARTLY


def test_container_and_namespace(tmp_path: Path) -> None:
    """A container is known by its control group or by a file that its runtime leaves, its pid namespace by its number."""
    assert doctor_process.container(made(tmp_path / "n")).status is OK
    marked = doctor_process.container(made(tmp_path / "m", {"run/.containerenv": ""}))
    assert marked.status is PARTLY and "/run/.containerenv" in marked.found
    group = {f"proc/{os.getpid()}/cgroup": f"0::/system.slice/docker-{'ab' * 32}.scope\n"}
    assert "docker abababababab" in doctor_process.container(made(tmp_path / "g", group)).found
    assert doctor_process.in_namespace(INITIAL_PID_NAMESPACE).status is OK
    assert "--pid=host" in doctor_process.in_namespace(4026532000).remedy


@pytest.mark.parametrize(("kinds", "status", "said"), [
    ((), MISSING, "No hierarchy"), (("cgroup2",), OK, "version 2"), (("cgroup",), PARTLY, "version 1 only"),
    (("cgroup", "cgroup2"), PARTLY, "hybrid"),
])
def test_control_groups(tmp_path: Path, kinds: tuple[str, ...], status: Status, said: str) -> None:
    """Which versions are mounted is said."""
    lines = [f"{30 + place} 20 0:7 / /cg/{kind} rw - {kind} none rw,memory\n" for place, kind in enumerate(kinds)]
    answer = doctor_process.cgroups(made(tmp_path, {"proc/self/mountinfo": "".join(lines)}))
    assert answer.status is status and said in answer.found


def test_who_may_use_bpf(tmp_path: Path) -> None:
    """The setting is explained, and a loaded program decides."""
    setting = {"proc/sys/kernel/unprivileged_bpf_disabled": "2\n"}
    assert doctor_bpf.bpf_for_users(made(tmp_path / "o", setting)).found == (
        "2: BPF is for CAP_BPF only; a program was loaded")
    refused = doctor_bpf.bpf_for_users(made(tmp_path / "r", setting, capabilities=0, load=refuse(errno.EPERM)))
    assert refused.status is MISSING and refused.remedy == AS_ROOT
    assert "CONFIG_BPF" in doctor_bpf.bpf_for_users(made(tmp_path / "n", load=refuse(errno.ENOSYS))).remedy


def test_own_program(tmp_path: Path) -> None:
    """The program that a trace would load is loaded if there is one; a refusal is told with the verifier's words."""
    def refused(program: BpfObject, way: AttachWay) -> None:
        raise CannotTrace("The kernel refuses the program heap_return: Invalid argument.", "The verifier's last words: x")

    host, found = made(tmp_path), (BpfObject((), {}), AttachWay.PERF)
    assert doctor_program.own_program(host, lambda: found, work).status is OK
    assert doctor_program.own_program(host, lambda: None, refused).status is UNKNOWN
    assert doctor_program.own_program(host, lambda: found, refused) == Answer(
        MISSING, "The kernel refuses the program heap_return: Invalid argument", "The verifier's last words: x")


def test_python_packages(tmp_path: Path) -> None:
    """What is absent is named as pip knows it."""
    answer = doctor_tools.packages(made(tmp_path), lambda module: None if module == "elftools" else module)
    assert answer.status is MISSING and answer.found == "not there: pyelftools" and "install pyelftools" in answer.remedy


@pytest.mark.parametrize(("maps", "said"), [
    ("7f00-7f01 r-xp 0 0:0 1 /usr/lib/x86_64-linux-gnu/libLLVM-14.so.1\n", "LLVM 14"),
    ("7f00-7f01 r-xp 0 0:0 1 /usr/lib/x86_64-linux-gnu/libLLVM.so.19.1\n", "LLVM 19.1"), ("", "LLVM is part of it"),
])
def test_llvm_version(maps: str, said: str) -> None:
    """It is read from the name of the library that BCC has loaded."""
    assert doctor_tools.llvm_version(maps) == said


def test_debug_symbols(tmp_path: Path) -> None:
    """On this machine, at a server that answers, at one that does not, or nowhere; sudo takes the variable away."""
    maps = {"proc/self/maps": "7f00-7f01 r-xp 0 0:0 1                          /lib/libc.so.6\n"}

    def look(name: str, urls: str = "", answers: bool = False, found: str | None = None, **more: str) -> Answer:
        host = made(tmp_path / name, maps, environ={"DEBUGINFOD_URLS": urls} | more)
        return doctor_tools.debug_symbols(host, lambda path: found, lambda url: answers, lambda path: "Run: apt install x")

    assert look("l", found="/usr/lib/debug/x.debug") == Answer(OK, "of libc.so.6, in /usr/lib/debug")
    assert look("n").status is MISSING and "Run: apt install x or set DEBUGINFOD_URLS." in look("n").remedy
    assert "sudo" in look("s", SUDO_UID="1000").remedy and "sudo" not in look("n").remedy
    assert look("y", "https://symbols.example/", True).found.endswith("symbols.example of DEBUGINFOD_URLS answers")
    assert look("d", "https://symbols.example/", False).status is PARTLY
    assert doctor_tools.debug_symbols(made(tmp_path / "m", {"proc/self/maps": ""})).status is UNKNOWN


def test_a_server_that_does_not_exist_is_no_wait() -> None:
    """A port that nobody listens at, and a URL without a meaning, are answered at once."""
    assert not doctor_tools.is_reachable("http://127.0.0.1:1/")
    assert not doctor_tools.is_reachable("http://127.0.0.1:99999/")


def checked(**statuses: Status) -> tuple[tuple[Need, Answer], ...]:
    """Return what was found where all is ok but these needs."""
    return tuple((need, Answer(statuses.get(need.id, OK), "")) for need in NEEDS)


def test_what_cannot_be_traced() -> None:
    """Nothing is lacking where one of the ways to attach works; an essential need that is missing is named."""
    assert lacking(checked()) == () and user_way(checked()) is AttachWay.SESSION
    assert lacking(checked(uprobe_session=MISSING)) == () and user_way(checked(uprobe_session=MISSING)) is AttachWay.MULTI
    none = checked(uprobe_session=MISSING, uprobe_multi=MISSING, uprobe_perf=MISSING)
    assert lacking(none) == ("uprobe_session", "uprobe_multi", "uprobe_perf") and user_way(none) is None
    assert lacking(checked(ring_buffer=MISSING, kprobes=MISSING)) == ("ring_buffer",)
    assert user_way(checked(capabilities=MISSING)) is None


def test_what_of_the_kernel_can_be_traced() -> None:
    """Each kind by its events, vmalloc() by fexit too; nothing without types, and then that is said alone."""
    assert kernel_memory(checked()) == ("slab", "pages", "percpu", "vmalloc")
    assert kernel_memory(checked(percpu=MISSING, vmalloc=MISSING)) == ("slab", "pages", "vmalloc")
    assert kernel_memory(checked(vmalloc=MISSING, fentry=MISSING)) == ("slab", "pages", "percpu")
    assert kernel_memory(checked(btf=MISSING)) == () and lacking_for_kernel(checked(btf=MISSING)) == ("btf",)
    assert lacking_for_kernel(checked(capabilities=MISSING, lockdown=UNKNOWN)) == ("capabilities",)
    assert lacking_for_kernel(checked(lockdown=UNKNOWN)) == ("lockdown",)


def test_one_look_that_fails_hides_no_other(tmp_path: Path) -> None:
    """An error that nobody foresaw is an answer of its own."""
    def fail(host: Host) -> Answer:
        raise OSError(errno.EIO, "Input/output error")

    needs = (Need("a", "a", "g", (), "", fail), Need("b", "b", "g", (), "", lambda host: Answer(OK, "there")))
    first, second = (answer for _, answer in look_around(made(tmp_path), needs))
    assert first.status is UNKNOWN and "Input/output error" in first.found and second.status is OK


def test_the_table() -> None:
    """Ids are unique, groups are together, and every need says what is lost without it, in a sentence."""
    ids, groups = [need.id for need in NEEDS], [need.group for need in NEEDS]
    assert len(set(ids)) == len(ids)
    assert len(list(groupby(groups))) == len(set(groups))
    assert all(need.without.endswith(".") and need.serves for need in NEEDS)
