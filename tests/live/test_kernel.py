"""leaktrace kernel on the running kernel: what user space has it make and give back is counted, to the object.

Functions and caches have other names on other kernels, and the compiler puts some into others: so names are patterns
here, and figures are exact.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import NEVER, PATIENCE, ROOT, Lines, RunningProgram, Trace, functions
from tests.live.test_selection import Group, mounted
from tracer.attach import bpf_syscall
from tracer.attach.bpf_object import MapSpec
from tracer.attach.kernel_points import BULK_UNSEEN, possible_processors

Build = Callable[..., Path]
Site = dict[str, Any]
Report = dict[str, Any]
PAGE = mmap.PAGESIZE
#: No other count is that by chance.
MANY = 67
#: linux/falloc.h: FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE.
PUNCH_HOLE = 1 | 2
#: asm-generic/mman-common.h.
MADV_FREE, MADV_HUGEPAGE = 8, 14
HUGE = 2 << 20
BPF_MAP_TYPE_ARRAY, BPF_MAP_TYPE_PERCPU_ARRAY = 2, 6
#: Between two looks at what is about to change.
BLINK = 0.05
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p


class KernelTrace(Trace):
    """A `leaktrace kernel` that runs and reports when it is asked."""

    def __init__(self, *arguments: str) -> None:
        words = [sys.executable, "-m", "tracer.cli", "kernel", "--format", "json", "-T", "10000", *arguments]
        self.process = subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        assert self.process.stdout and self.process.stderr
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)

    def ask(self) -> Report:
        """Have it report now."""
        self.process.send_signal(signal.SIGUSR1)
        return self.next_report()

    def until(self, wanted: Callable[[Report], bool]) -> Report:
        """Ask until a report is as wanted: what the kernel frees after a grace period or in a thread of its own."""
        end = time.monotonic() + PATIENCE / 3
        report = self.ask()
        while not wanted(report) and time.monotonic() < end:
            time.sleep(BLINK)
            report = self.ask()
        return report


class Objects(RunningProgram):
    """A running tests/programs/kernel_objects.c."""

    def __init__(self, program: Path) -> None:
        super().__init__([str(program)], {})
        self.wait_ready()

    def do(self, line: str) -> None:
        """Have it make or free, and wait until it has."""
        assert self.process.stdin
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        self.truth()


class Running:
    """Starts traces of the kernel and programs, and ends them with the test."""

    def __init__(self, program: Path) -> None:
        self._program = program
        self._open: list[Any] = []

    def objects(self) -> Objects:
        """Start a program that makes kernel objects."""
        self._open.append(Objects(self._program))
        made: Objects = self._open[-1]
        return made

    def trace(self, *arguments: str, times: Sequence[str] = (NEVER,)) -> KernelTrace:
        """Start a trace, and return when everything that is allocated from now on is seen."""
        trace = KernelTrace(*arguments, *times)
        self._open.append(trace)
        trace.wait_attached()
        return trace

    def close(self) -> None:
        for one in reversed(self._open):
            one.close()


@pytest.fixture
def running(build: Build) -> Iterator[Running]:
    started = Running(build("kernel_objects.c"))
    try:
        yield started
    finally:
        started.close()


@pytest.fixture(scope="module")
def shared(build: Build) -> Iterator[tuple[Objects, KernelTrace]]:
    """One program under one trace, for tests of which each has kinds of objects of its own."""
    started = Running(build("kernel_objects.c"))
    try:
        objects = started.objects()
        yield objects, started.trace("-p", str(objects.pid))
    finally:
        started.close()


@pytest.fixture(scope="module")
def self_traced(build: Build) -> Iterator[KernelTrace]:
    """A trace of what this very process has the kernel do."""
    started = Running(build("kernel_objects.c"))
    try:
        yield started.trace("-p", str(os.getpid()))
    finally:
        started.close()


# ---- what a report says


def stack(site: Site) -> tuple[str, ...]:
    """Return the functions of a site, innermost first, without what the compiler added to their names."""
    return tuple(re.sub(r"\.(isra|constprop|part|cold|llvm)\b.*", "", name) for name in functions(site))


def sites(report: Report, source: str, callers: str) -> dict[tuple[Any, ...], Site]:
    """Return the sites of a source whose innermost function has a name like that: those that are not for slabs."""
    return {(stack(each), each["kernel"]["cache"], *each["kernel"]["gfp"], each["kernel"]["order"]): each
            for each in report["sites"] if each["source"] == source and each["kernel"]["serves"] is None
            and stack(each) and re.search(callers, stack(each)[0])}


def held(report: Report, source: str, callers: str) -> tuple[int, int]:
    """Return bytes and blocks of such sites."""
    found = sites(report, source, callers).values()
    return sum(each["bytes"] for each in found), sum(each["count"] for each in found)


def the_site(report: Report, callers: str, count: int) -> Site:
    """Return the one site of slab objects with such a caller that holds so many."""
    found = sites(report, "slab", callers)
    fitting = [each for each in found.values() if each["count"] == count]
    assert len(fitting) == 1, [(*key[0][:2], each["count"]) for key, each in found.items()]
    return fitting[0]


@dataclass(frozen=True, slots=True)
class Made:
    """What one of a kind is made of: so many objects or pages, by such a function."""

    source: str
    callers: str
    each: int
    spare: int = 0
    """Pages that one may keep beside."""


KINDS = {
    "socketpairs": (0, [Made("slab", "sock_alloc_inode", 2), Made("slab", "^sk_(prot_)?alloc$", 2),
                        Made("slab", "^_*alloc_(empty_)?file", 2)]),
    "pipes": (2 * PAGE, [Made("pages", "pipe", 2, spare=2), Made("slab", "alloc_pipe_info", 1)]),
    "watches": (0, [Made("slab", "inotify", 1)]),
    "keys": (100, [Made("slab", "key_alloc", 1), Made("slab", "user_preparse", 1)]),
    "unlinked_files": (5 * PAGE, [Made("pages", "^shmem_", 5), Made("slab", "shmem_alloc_inode", 1)]),
    "eventfds": (0, [Made("slab", "eventfd", 1)]),
    "epoll_items": (0, [Made("slab", "ep_insert|epoll_ctl", 1)]),
    "timers": (0, [Made("slab", "timer_create|posix_timer", 1)]),
    "queues": (152, [Made("slab", "mqueue_alloc_inode", 1), Made("slab", "alloc_msg|load_msg", 1)]),
    "memfds": (16 * PAGE, [Made("pages", "^shmem_", 16), Made("slab", "shmem_alloc_inode", 1)]),
}  # fmt: skip
#: Freed by kfree_rcu(), on some kernels.
BY_RCU_AND_MANY = ("timers", "epoll_items")


@pytest.mark.parametrize("kind", KINDS)
def test_objects_are_counted_to_the_one(shared: tuple[Objects, KernelTrace], kind: str) -> None:
    """Of each kind of object, its call site holds as many as the program made, with the caller's name, and none once freed."""
    objects, trace = shared
    size, parts = KINDS[kind]
    before = trace.ask()
    objects.do(f"make {kind} {MANY} {size}")
    after = trace.ask()
    chosen: list[set[tuple[Any, ...]]] = []
    for part in parts:
        old, new = sites(before, part.source, part.callers), sites(after, part.source, part.callers)
        gained = {key: site["count"] - (old[key]["count"] if key in old else 0) for key, site in new.items()}
        if part.source == "pages":
            pages = held(after, "pages", part.callers)[0] - held(before, "pages", part.callers)[0]
            assert MANY * part.each <= pages / PAGE <= MANY * (part.each + part.spare), (part, gained)
            chosen.append(set(new))
        else:
            chosen.append({key for key, count in gained.items() if count == MANY * part.each})
            assert chosen[-1], (part, {key[0][:3]: count for key, count in gained.items()})
            assert all([each["pid"] for each in new[key]["kernel"]["processes"]] == [objects.pid] for key in chosen[-1])
    assert after["complete"], after["losses"]

    objects.do(f"free {kind}")
    if kind in BY_RCU_AND_MANY and BULK_UNSEEN in after["notes"]:
        return

    def left(report: Report) -> list[int]:
        now = [sites(report, part.source, part.callers) for part in parts]
        was = [sites(before, part.source, part.callers) for part in parts]
        return [sum(there[key]["count"] for key in keys if key in there) - sum(old[key]["count"] for key in keys if key in old)
                for there, old, keys in zip(now, was, chosen, strict=True)]

    report = trace.until(lambda report: not any(left(report)))
    assert not any(left(report)), dict(zip([part.callers for part in parts], left(report), strict=True))


# ---- pages


def test_pages_are_freed_singly(self_traced: KernelTrace) -> None:
    """Of a file in memory whose every second page is taken away, exactly the other half is left, and nothing at last."""
    before, pages = held(self_traced.ask(), "pages", "^shmem_")[0], 200
    file = os.memfd_create("leaktrace")
    try:
        assert os.write(file, b"x" * (pages * PAGE)) == pages * PAGE
        assert held(self_traced.ask(), "pages", "^shmem_")[0] - before == pages * PAGE
        for at in range(0, pages, 2):
            assert libc.fallocate(file, PUNCH_HOLE, ctypes.c_long(at * PAGE), ctypes.c_long(PAGE)) == 0
        report = self_traced.until(lambda report: held(report, "pages", "^shmem_")[0] - before <= pages // 2 * PAGE)
        assert held(report, "pages", "^shmem_")[0] - before == pages // 2 * PAGE
    finally:
        os.close(file)
    report = self_traced.until(lambda report: held(report, "pages", "^shmem_")[0] <= before)
    assert held(report, "pages", "^shmem_")[0] == before


def test_a_large_block_is_freed_in_parts(self_traced: KernelTrace) -> None:
    """Of a huge page that the kernel split, of which half was unmapped, half its bytes are left, as the same one block."""
    size = ctypes.c_size_t

    def huge(report: Report) -> dict[str, Site]:
        return {repr(key): site for key, site in sites(report, "pages", "").items() if site["kernel"]["order"] == 9}

    def gained(report: Report) -> tuple[int, int]:
        new, old = huge(report).values(), before.values()
        return (sum(site["bytes"] for site in new) - sum(site["bytes"] for site in old),
                sum(site["count"] for site in new) - sum(site["count"] for site in old))

    if not Path("/sys/kernel/mm/transparent_hugepage/enabled").exists():
        pytest.skip("this kernel has no huge pages")
    before = huge(self_traced.ask())
    # 3: readable and writable; 0x22: private, of no file.
    whole = libc.mmap(None, size(2 * HUGE), 3, 0x22, -1, ctypes.c_long(0))
    start = (whole + HUGE - 1) // HUGE * HUGE
    try:
        if libc.madvise(ctypes.c_void_p(start), size(HUGE), MADV_HUGEPAGE):
            pytest.skip("huge pages are not allowed here")
        ctypes.memset(start, 1, HUGE)
        if gained(self_traced.ask()) != (HUGE, 1):
            pytest.skip("the kernel found no 2 MB of memory in one piece")
        # What may be given back before the rest must be pages of their own.
        assert libc.madvise(ctypes.c_void_p(start), size(HUGE // 2), MADV_FREE) == 0
        assert libc.munmap(ctypes.c_void_p(start), size(HUGE // 2)) == 0
        # A few pages may wait on a processor's list; and later, where memory is short, the kernel moves some elsewhere.
        report = self_traced.until(lambda report: gained(report)[0] < HUGE // 2 + 64 * PAGE)
        assert HUGE // 2 <= gained(report)[0] < HUGE // 2 + 64 * PAGE and gained(report)[1] == 1
    finally:
        libc.munmap(ctypes.c_void_p(whole), size(2 * HUGE))


# ---- memory per processor, and areas of vmalloc


def trace_areas(running: Running) -> tuple[KernelTrace, bool]:
    """Trace what this process has the kernel make, per processor and, where the kernel tells of that, by vmalloc."""
    mine = ("-p", str(os.getpid()), "--percpu")
    try:
        return running.trace(*mine, "--vmalloc"), True
    except AssertionError as problem:
        if "Leave --vmalloc out" not in str(problem):
            raise
        return running.trace(*mine), False


def test_maps_of_bpf(running: Running) -> None:
    """A map's area of 1 MB and its memory per processor are there with the bytes that it has, and gone with it."""
    trace, has_areas = trace_areas(running)
    opened = [bpf_syscall.create_map(MapSpec("lt_area", BPF_MAP_TYPE_ARRAY, 4, 1024, 0), 1024),
              bpf_syscall.create_map(MapSpec("lt_percpu", BPF_MAP_TYPE_PERCPU_ARRAY, 4, 64, 0), 100)]
    try:
        report = trace.ask()
    finally:
        for file in opened:
            os.close(file)
    (each,) = sites(report, "percpu", "map").values()
    assert (each["count"], each["kernel"]["requested_bytes"]) == (100, 100 * 64 * possible_processors())
    assert each["bytes"] >= each["kernel"]["requested_bytes"]
    areas = list(sites(report, "vmalloc", "map").values())
    # The map's own head is the rest of the last page.
    assert [(area["count"], area["bytes"]) for area in areas] == ([(1, (1 << 20) + PAGE)] if has_areas else [])
    trace.until(lambda report: not report["sites"])
    result = trace.stop().report
    assert held(result, "vmalloc", "map") == held(result, "percpu", "map") == (0, 0)


# ---- what is said of a site


def test_what_is_known_of_a_site(running: Running) -> None:
    """Cache, flags in words, bytes asked for and wasted, order and node are those of objects of known size."""
    objects = running.objects()
    trace = running.trace("-p", str(objects.pid))
    # struct msg_msg has 48 bytes, struct user_key_payload 24.
    objects.do(f"make queues {MANY} 152")
    objects.do(f"make keys {MANY} 100")
    objects.do("make memfds 1 65536")
    report = trace.stop().report
    nodes = Path("/sys/devices/system/node/online")
    assert nodes.read_text().strip() != "0" or {site["kernel"]["node"] for site in report["sites"]} == {0}
    for callers, asked, size in (("alloc_msg|load_msg", 200, 256), ("user_preparse", 124, 128)):
        site = the_site(report, callers, MANY)
        note = site["kernel"]
        assert (site["bytes"], note["requested_bytes"]) == (MANY * size, MANY * asked)
        assert re.match(rf"kmalloc-.*\b{size}$", note["cache"]), note
        assert note["gfp"] and note["gfp"][0].startswith("GFP_KERNEL"), note
        assert note["processes"] == [{"pid": objects.pid, "comm": "kernel_objects"[:15], "bytes": site["bytes"],
                                      "count": MANY}]
    (pages,) = sites(report, "pages", "^shmem_").values()
    assert pages["kernel"]["order"] == 0 and pages["kernel"]["cache"] is None
    assert any("HIGHUSER" in word for word in pages["kernel"]["gfp"])


@pytest.fixture
def in_memory(tmp_path: Path) -> Iterator[Path]:
    """A folder whose files are in memory and go with the test."""
    subprocess.run(["mount", "-t", "tmpfs", "leaktrace", str(tmp_path)], check=True)
    try:
        yield tmp_path
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)


def test_who_has_ended_is_named(running: Running, in_memory: Path) -> None:
    """What a process leaves in memory is told with its number and its name when it is long gone."""
    trace = running.trace()
    done = subprocess.Popen(["dd", "if=/dev/zero", f"of={in_memory}/file", f"bs={PAGE}", "count=128"],
                            stderr=subprocess.DEVNULL)
    assert done.wait(PATIENCE) == 0
    mine = [holder for site in sites(trace.stop().report, "pages", "^shmem_").values()
            for holder in site["kernel"]["processes"] if holder["pid"] == done.pid]
    assert {holder["comm"] for holder in mine} == {"dd"}
    assert sum(holder["bytes"] for holder in mine) == 128 * PAGE


def test_what_was_there_before_is_nobodys(running: Running) -> None:
    """Blocks from before the trace that are freed during it make no site and no figure negative."""
    objects = running.objects()
    objects.do(f"make socketpairs {MANY}")
    objects.do("make memfds 4 65536")
    trace = running.trace("-p", str(objects.pid))
    objects.do("free socketpairs")
    objects.do("free memfds")
    objects.do("make eventfds 3")
    report = trace.stop().report
    assert all(site["bytes"] >= 0 and site["count"] >= 0 and site["freed_count"] >= 0 for site in report["sites"])
    assert all(total["bytes"] >= 0 and total["count"] >= 0 for total in report["sources"])
    assert report["totals"]["freed_count"] < MANY and report["totals"]["live_count"] >= 3
    assert the_site(report, "eventfd", 3)["freed_count"] == 0


# ---- what is freed later, and elsewhere


def send_datagrams(count: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as back:
        to.bind(("127.0.0.1", 0))
        for _ in range(count):
            back.sendto(bytes(600), to.getsockname())
            assert len(to.recv(1000)) == 600


def send_stream(count: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as here:
        there, _ = server.accept()
        with there:
            for _ in range(count):
                here.sendall(bytes(600))
                assert len(there.recv(600, socket.MSG_WAITALL)) == 600


def open_and_close(count: int) -> None:
    for _ in range(count):
        os.close(os.open("/dev/null", os.O_RDONLY))


@pytest.mark.parametrize(("work", "callers"), [
    (send_datagrams, "alloc_skb"), (send_stream, "alloc_skb"), (open_and_close, "^_*alloc_(empty_)?file"),
])  # fmt: skip
def test_frees_elsewhere_are_seen(self_traced: KernelTrace, work: Callable[[int], None], callers: str) -> None:
    """Of thousands of packets, freed in interrupts, and of files, freed after a grace period, hardly one seems left.

    Those that the network keeps to give out again, a few dozen on each processor, were freed unseen, and are told so.
    """
    count = 3000

    def left(report: Report) -> int:
        return held(report, "slab", callers)[1] - held(before, "slab", callers)[1]

    before = self_traced.ask()
    work(count)
    report = self_traced.until(lambda report: left(report) <= count // 20)
    assert report["totals"]["allocated_count"] - before["totals"]["allocated_count"] >= count
    assert left(report) <= count // 20, {key[0][:4]: site["count"] for key, site in sites(report, "slab", callers).items()}
    if any(site["kernel"]["unseen_frees"] for site in sites(report, "slab", callers).values()):
        assert report["losses"]["missed_free"] > 0
    assert report["complete"], report["losses"]


# ---- without a process: the whole machine


def test_its_own_work_is_not_counted(running: Running) -> None:
    """leaktrace's own process, which reads its tables and makes reports meanwhile, is no holder of anything."""
    objects = running.objects()
    trace = running.trace("--slab", "--pages", "--percpu", "--vmalloc", times=("0.3",))
    # On a quiet machine nobody else would hold anything.
    objects.do(f"make keys {MANY} 100")
    for _ in range(3):
        report = trace.next_report()
    holders = {holder["pid"] for site in report["sites"] for holder in site["kernel"]["processes"]}
    assert holders and trace.process.pid not in holders


def test_under_load_it_goes_on(running: Running) -> None:
    """While processes are made as fast as the machine can, nothing is missing, losses have names, and stacks their ends."""
    trace = running.trace(times=("0.5",))
    load = [subprocess.Popen(["sh", "-c", "while :; do /bin/true; done"]) for _ in range(2)]
    try:
        for _ in range(4):
            report = trace.next_report()
    finally:
        for one in load:
            one.kill()
            one.wait()
    result = trace.stop()
    assert report["totals"]["allocated_count"] > 2_000
    assert result.report["complete"], result.stderr
    assert set(result.report["losses"]) <= {"missed_free", "bulk", "stack_corrected", "stack_depth"}
    # One in 1024 stacks is compared.
    corrected = result.report["losses"].get("stack_corrected", 0)
    assert corrected <= 2 + result.report["totals"]["allocated_count"] / 1024 / 100
    ends = re.compile(r"^(asm_|entry_|ret_from_fork|secondary_startup|common_startup|start_secondary|handle_softirqs|"
                      "__do_softirq|__softirqentry)")
    early = [stack(site) for site in result.report["sites"] if not ends.match((stack(site) or ("",))[-1])]
    assert len(early) <= len(result.report["sites"]) / 50, early[:3]


def test_however_it_is_walked_a_stack_is_the_same(running: Running) -> None:
    """Stacks that learnt distances lead through make the sites of those the kernel walked: in one trace, and in two."""
    found = []
    for _ in range(2):
        objects = running.objects()
        trace = running.trace("-p", str(objects.pid), "--raw-stacks", "--slab")
        for _ in range(20):
            # Enough time to learn in between.
            objects.do("make eventfds 100")
            objects.do("make socketpairs 20")
            time.sleep(0.02)
        found.append({(tuple((frame["function"], frame["offset"]) for frame in site["frames"]), site["kernel"]["cache"],
                       site["count"]) for site in trace.stop().report["sites"] if site["count"] >= 400})
        objects.close()
    assert found[0] == found[1]
    counts = [count for _, _, count in found[0]]
    # An eventfd is at least itself and a file, an end of a socket pair at least itself, its socket and its file.
    assert counts.count(2000) >= 2 and counts.count(800) >= 3
    assert all(re.match("entry_|asm_", frames[-1][0]) for frames, _, _ in found[0])


# ---- whose allocations


def test_only_those_of_a_group(running: Running) -> None:
    """With --cgroup, what processes of the group and of one below it have made is counted, and no other process's."""
    unified = next((each for each in mounted() if each.version == 2), None)
    if unified is None:
        pytest.skip("no control groups of version 2 are mounted")
    group = Group(unified.point / f"leaktrace_test_{secrets.token_hex(4)}", unified.point, 2)
    try:
        below = group.below("below")
        inside, deeper, outside = (running.objects() for _ in range(3))
        group.add(inside.pid)
        below.add(deeper.pid)
        trace = running.trace("--cgroup", str(group.folder))
        for objects in (inside, deeper, outside):
            objects.do(f"make eventfds {MANY}")
        report = trace.stop().report
        holders = {holder["pid"] for site in report["sites"] for holder in site["kernel"]["processes"]}
        assert holders == {inside.pid, deeper.pid}
        assert the_site(report, "eventfd", 2 * MANY)["kernel"]["processes"]
    finally:
        with suppress(OSError):
            group.close()


def test_holders_are_told_apart(running: Running) -> None:
    """Without a filter, each process is named at a site with what was made for it; with -p, no other is counted."""
    first, second = running.objects(), running.objects()
    everyone, one = running.trace(), running.trace("-p", str(second.pid))
    first.do(f"make eventfds {MANY}")
    second.do("make eventfds 29")
    counts: dict[int, set[int]] = {first.pid: set(), second.pid: set()}
    for site in sites(everyone.stop().report, "slab", "eventfd").values():
        for holder in site["kernel"]["processes"]:
            if holder["pid"] in counts:
                counts[holder["pid"]].add(holder["count"])
    assert MANY in counts[first.pid] and 29 in counts[second.pid]
    report = one.stop().report
    assert {holder["pid"] for site in report["sites"] for holder in site["kernel"]["processes"]} == {second.pid}
    the_site(report, "eventfd", 29)


# ---- which blocks


def test_young_blocks_wait_for_their_age(running: Running) -> None:
    """With -o, blocks are counted once they are that old and not before."""
    objects = running.objects()
    trace, made = running.trace("-p", str(objects.pid), "-o", "1000"), 0
    for _ in range(10):
        objects.do(f"make eventfds {MANY}")
        made += MANY
        begun = time.monotonic()
        report = trace.ask()
        if time.monotonic() - begun < 0.9:
            # Only a machine that is busy elsewhere comes here late.
            assert held(report, "slab", "eventfd")[1] <= made - MANY
            break
    trace.until(lambda report: held(report, "slab", "eventfd")[1] >= made)
    the_site(trace.ask(), "eventfd", made)


def test_sizes_are_chosen(running: Running) -> None:
    """With -z and -Z, blocks outside of these sizes are not counted, and those within are, all of them."""
    objects = running.objects()
    trace = running.trace("-p", str(objects.pid), "-z", "200", "-Z", "2000")
    objects.do(f"make keys {MANY} 100")
    objects.do("make keys 29 1000")
    report = trace.stop().report
    the_site(report, "user_preparse", 29)
    assert held(report, "slab", "user_preparse") == (29 * 1024, 29)
    assert all(200 <= site["bytes"] / site["count"] <= 2000 for site in report["sites"])


@pytest.mark.parametrize(("order", "key"), [("size", "bytes"), ("count", "count")])
def test_sites_are_sorted_and_blocks_listed(running: Running, order: str, key: str) -> None:
    """--sort orders sites, -T keeps the first, and -a names every block of them, each of its own address in the kernel."""
    objects = running.objects()
    trace = running.trace("-p", str(objects.pid), "--sort", order, "-T", "4", "-a")
    objects.do("make pipes 20 65536")
    objects.do(f"make eventfds {MANY * 3}")
    report = trace.stop().report
    figures = [site[key] for site in report["sites"]]
    assert len(figures) == 4 and figures == sorted(figures, reverse=True)
    first = stack(report["sites"][0])[0]
    assert re.search("pipe_write" if order == "size" else "pipe_write|eventfd|alloc_|inode", first), first
    for site in report["sites"]:
        blocks = site["blocks"]
        assert len(blocks) == len({block["address"] for block in blocks}) == site["count"]
        assert sum(block["size"] for block in blocks) == site["bytes"]
        if site["source"] == "slab":
            assert all(int(block["address"], 16) >> 47 == 0x1FFFF for block in blocks)


# ---- when


def test_an_interval_begins_when_it_is_attached(running: Running) -> None:
    """COUNT reports come INTERVAL apart, the first one so long after everything is attached, the last one marked."""
    trace = running.trace("-p", str(os.getpid()), times=("0.4", "2"))
    attached = time.monotonic()
    open_and_close(100)
    result = trace.wait()
    assert result.returncode == 0 and time.monotonic() - attached >= 0.7
    assert [report["last"] for report in result.reports] == [False, True]
    assert result.reports[1]["elapsed_s"] - result.reports[0]["elapsed_s"] >= 0.3
    assert all(report["totals"]["allocated_count"] >= 100 for report in result.reports)
