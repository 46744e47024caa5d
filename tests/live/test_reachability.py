"""Reachability of real processes: how each block is reached, who points at it, and that the target goes on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PATIENCE, PROGRAMS, ROOT, RunningProgram, Starter, Trace, functions, site
from tests.live.test_options import run_tool

Build = Callable[..., Path]
Kinds = dict[str, tuple[int, int]]
KINDS = ("definitely", "indirectly", "possibly", "reachable")
REACHABLE = sorted(path.name for path in (PROGRAMS / "reachable").iterdir() if path.suffix in (".c", ".cpp"))
#: As the programs with a known truth are built where tools are compared: what is optimized leaves other pointers behind.
FLAGS = ("-O1", "-fno-omit-frame-pointer", "-pthread")
#: With every function that allocates on the stack.
POINTED = ("-fno-optimize-sibling-calls", "-pthread")
#: What passes on what a program asks for.
BETWEEN = re.compile(r"libstdc\+\+")
#: In a process of its own: seize, and wait to be killed.
SEIZE = "import time; from tracer.attach import ptrace\nptrace.request(ptrace.SEIZE, {pid}); print('seized', flush=True); time.sleep(60)"
LARGE, LARGE_COUNT = 100_000, 120


@pytest.fixture
def pointed(build: Build) -> Path:
    return build("pointed.c", *POINTED)


def truth(source: str) -> Kinds:
    """Return what a program's first comment says of its own blocks."""
    stated = source.partition("Truth: ")[2].partition("*/")[0].replace("\n *", " ")
    found = {kind: (int(size.replace(",", "")), int(count))
             for kind, size, count in re.findall(r"(\w+) ([\d,]+) bytes\s+in\s+(\d+)\s+block", stated)}
    assert found and set(found) <= set(KINDS)
    return {kind: found.get(kind, (0, 0)) for kind in KINDS}


def kinds(each: dict[str, Any]) -> Kinds:
    """Return the reachability of a site, or of the totals."""
    return {kind: (each["reachability"][kind]["bytes"], each["reachability"][kind]["count"]) for kind in KINDS}


def added(sites: Iterable[dict[str, Any]]) -> Kinds:
    """Return the sums of sites."""
    found = [kinds(each) for each in sites]
    return {kind: (sum(one[kind][0] for one in found), sum(one[kind][1] for one in found)) for kind in KINDS}


def of(report: dict[str, Any], *names: str) -> Kinds:
    """Return the sums of the sites that have one of these functions among their frames."""
    return added(site(report, *names).sites)


def some(**found: tuple[int, int]) -> Kinds:
    """Return these kinds, and nothing of the others."""
    return {kind: found.get(kind, (0, 0)) for kind in KINDS}


def is_own(each: dict[str, Any], program: Path) -> bool:
    """Return whether the program asked for the blocks of a site, and not a library on its own account."""
    modules = (frame["module"] or "" for frame in each["frames"])
    return next((one for one in modules if not BETWEEN.search(Path(one).name)), "") == str(program)


def assert_adds_up(report: dict[str, Any]) -> None:
    """Fail unless the sites' kinds add up to the totals', and the totals' to what is outstanding."""
    totals = report["totals"]
    assert added(report["sites"]) == kinds(totals)
    assert (sum(size for size, _ in kinds(totals).values()), sum(count for _, count in kinds(totals).values())) == (
        totals["live_bytes"], totals["live_count"])
    for each in report["sites"]:
        assert sum(count for _, count in kinds(each).values()) == each["count"]


def run(folder: Path, *command: str | Path, options: Iterable[str] = (), stdin: str | None = None) -> dict[str, Any]:
    """Run a command under leaktrace to its end; return the report of it."""
    path = folder / "report.json"
    path.unlink(missing_ok=True)
    answer = run_tool("run", "--format", "json", "--output", str(path), *options, "--", *map(str, command), stdin=stdin)
    assert answer.returncode == 0 and path.exists(), answer.stderr
    document: dict[str, Any] = json.loads(path.read_text())
    return document


def ask(trace: Trace) -> dict[str, Any]:
    """Have a leaktrace that runs make one more report at once."""
    trace.process.send_signal(signal.SIGUSR1)
    return trace.next_report()


def pointers(report: dict[str, Any], asked: str) -> list[str]:
    """Return the answer to one question."""
    (found,) = [note["chain"] for note in report["pointers"] if note["asked"] == asked]
    return list(found)


@contextmanager
def seized(pid: int) -> Iterator[int]:
    """Have another process trace one as a debugger does, and give its pid."""
    with subprocess.Popen([sys.executable, "-c", SEIZE.format(pid=pid)], cwd=ROOT, stdout=subprocess.PIPE, text=True) as one:
        assert one.stdout and one.stdout.readline()
        try:
            yield one.pid
        finally:
            one.kill()


# ---- each block is of the kind that it is


@pytest.mark.parametrize("source", REACHABLE)
def test_each_block_is_of_its_kind(build: Build, tmp_path: Path, source: str) -> None:
    """At a program's end, its own blocks are reached or lost as its first comment says, to the byte."""
    program = build(f"reachable/{source}", *FLAGS)
    report = run(tmp_path, program, options=("--reachability",))
    assert added(each for each in report["sites"] if is_own(each, program)) == truth((PROGRAMS / "reachable" / source).read_text())
    assert_adds_up(report)
    (scan,) = report["scans"]
    assert (scan["failed"], scan["streamed"]) == (None, False) and scan["bytes_read"]


def test_nothing_is_said_unasked(pointed: Path, tmp_path: Path) -> None:
    """Without the option no memory is looked at, and nothing is said of it."""
    report = run(tmp_path, pointed, stdin="\n")
    assert (report["totals"].get("reachability"), report["scans"], report["pointers"]) == (None, [], [])
    assert [each["reachability"] for each in report["sites"]] == [None] * len(report["sites"])


def assert_pointed(report: dict[str, Any]) -> None:
    """Fail unless the blocks of a pointed.c are of the kinds that it says."""
    assert of(report, "make_table") == some(reachable=(864, 2))
    assert of(report, "make_node") == some(reachable=(144, 3))
    assert of(report, "make_local") == some(reachable=(111, 1))
    assert of(report, "make_lost") == some(definitely=(45, 1))
    # What only an epoll knows.
    assert of(report, "make_watched") == some(reachable=(72, 1))
    assert of(report, "make_large") == some(definitely=(LARGE, 1), indirectly=(LARGE * (LARGE_COUNT - 1), LARGE_COUNT - 1),
                                            reachable=(LARGE * LARGE_COUNT, LARGE_COUNT))
    assert_adds_up(report)


def test_a_large_memory_in_pieces(pointed: Path, tmp_path: Path) -> None:
    """A process with more memory than may be copied at once is looked at in pieces, and nothing changes by that."""
    report = run(tmp_path, pointed, options=("--reachability", "--max-image", "1m"), stdin="\n")
    (scan,) = report["scans"]
    assert (scan["streamed"], scan["failed"]) == (True, None) and scan["bytes_read"] > 20 << 20
    assert_pointed(report)


# ---- who points at it


def test_who_points_at_what_has_ended(pointed: Path, tmp_path: Path) -> None:
    """At a program's end, the way to a site's blocks is named from a variable, a frame or the kernel on."""
    asked = ("make_leaf", "make_node", "make_local", "make_watched", "make_lost", "1", "nothing", "0x10")
    report = run(tmp_path, pointed, options=[word for each in asked for word in ("--who-points-at", each)], stdin="\n")
    (scan,) = report["scans"]
    assert (scan["streamed"], scan["failed"]) == (False, None)
    assert_pointed(report)
    assert [note["asked"] for note in report["pointers"]] == list(asked)
    assert pointers(report, "make_leaf") == ["global shelf+0x10 [pointed]", "block of 800 bytes allocated by make_table() at +0x28",
                                             "block of 64 bytes allocated by make_leaf()"]
    # On a busy machine the stack of one may be cut short, which makes two sites of them: so not how many of how many.
    nodes = {line.strip().removesuffix(" (2 in a row)") for line in pointers(report, "make_node")}
    assert {line for line in nodes if not line.endswith(" looked at:")} == {
        "global list [pointed]", "block of 48 bytes allocated by make_node() at +0x0", "block of 48 bytes allocated by make_node()"}
    root, block = pointers(report, "make_local")
    assert re.fullmatch(rf"stack of thread {report['target']['pid']} in hold_local\(\)", root)
    assert block == "block of 111 bytes allocated by make_local()"
    assert pointers(report, "make_watched") == ["kept by the kernel (epoll or a timer)",
                                                "block of 72 bytes allocated by make_watched()"]
    assert pointers(report, "make_lost") == ["nobody points at them"]
    assert functions(report["sites"][0])[0] == "make_large" and "nobody points at them" in pointers(report, "1")[1]
    assert pointers(report, "nothing") == ["no site of this report has that rank or function"]
    assert pointers(report, "0x10") == ["it lies in no block that was allocated while leaktrace traced"]


def test_a_debugger_costs_the_look_only(pointed: Path, run_program: Callable[..., RunningProgram], leaktrace: Starter) -> None:
    """While somebody else traces the process, the report has all but the kinds, and says who it is; later, it has these."""
    program = run_program(pointed)
    trace = leaktrace.attach(program, "--who-points-at", "make_leaf", "--who-points-at", "keep_in_register")
    program.work()
    with seized(program.pid) as debugger:
        report = ask(trace)
        assert f"process {debugger} (" in report["scans"][0]["failed"]
        assert report["complete"] and site(report, "make_large").live == (2 * LARGE * LARGE_COUNT, 2 * LARGE_COUNT)
        assert pointers(report, "make_leaf") == ["no memory was looked at"]
        assert program.work() == [{"lines": 1, "held": 1}]
    report = trace.stop().report
    assert report["scans"][0]["failed"] is None
    assert_pointed(report)
    assert pointers(report, "make_leaf")[0] == "global shelf+0x10 [pointed]"
    # Of a process that runs, the registers of all threads count, and what lies below their stacks does not.
    root, block = pointers(report, "keep_in_register")
    assert re.fullmatch(r"register r12 of thread \d+ in keep_in_register\(\)", root)
    assert block == "block of 92 bytes allocated by keep_in_register()"
    assert of(report, "keep_in_register") == some(reachable=(92, 1))
    assert program.work() == [{"lines": 2, "held": 1}]


def test_who_points_at_an_address(build: Build, run_program: Callable[..., RunningProgram], leaktrace: Starter) -> None:
    """Of an address anywhere in a block, known to the byte where it is, the way to that block is named."""
    # Not position-independent, and its heap where the kernel does not move it: so that the address is known beforehand.
    program = build("pointed.c", *POINTED, "-no-pie", name="fixed")
    words = ("setarch", "-R", str(program))
    first = run_program(*words).work()[0]
    second = run_program(*words)
    trace = leaktrace.attach(second, "--who-points-at", first["in_leaf"], "--who-points-at", first["outside"])
    assert second.work()[0] == first
    report = trace.stop().report
    assert pointers(report, first["in_leaf"]) == ["global shelf+0x10 [fixed]", "block of 800 bytes allocated by make_table() at +0x28",
                                                  "block of 64 bytes allocated by make_leaf()"]
    assert pointers(report, first["outside"]) == ["it lies in no block that was allocated while leaktrace traced"]


# ---- many processes


def test_each_child_is_looked_at_in_the_end(build: Build, tmp_path: Path) -> None:
    """What followed children lose is found at the end of each, and what a thread's frame holds then is reachable."""
    report = run(tmp_path, build("pointed_forks.c", "-pthread"), "4", options=("--follow-forks", "--reachability"))
    assert of(report, "child_loses") == some(definitely=(4 * 30, 4), indirectly=(4 * 60, 8))
    assert of(report, "child_keeps") == some(reachable=(4 * 70, 4))
    assert of(report, "thread_holds") == some(reachable=(500, 1))
    assert of(report, "parent_keeps") == some(reachable=(1000, 1))
    assert_adds_up(report)
    assert {scan["pid"] for scan in report["scans"]} == {target["pid"] for target in report["targets"]}
    assert len(report["scans"]) == 6 and [scan["failed"] for scan in report["scans"]] == [None] * 6


def test_followed_processes_that_run(build: Build, run_program: Callable[..., RunningProgram], leaktrace: Starter) -> None:
    """While the threads of a family are followed, each of its processes is looked at, and all go on and end as they should."""
    program = run_program(build("follow_family.c", "-pthread"))
    trace = leaktrace.attach(program, "--follow-forks", "--reachability")
    for step in (1, 2):
        ended = {one["pid"] for one in program.work()}
        report = ask(trace)
        assert [scan["failed"] for scan in report["scans"]] == [None] * 9
        assert len(ended) == 6 and ended < {scan["pid"] for scan in report["scans"]}
        assert_adds_up(report)
        # A variable of each process holds its newest one; where the others' addresses still lie is chance.
        assert site(report, "member_keeps").live == (6 * step * 300, 6 * step)
        assert of(report, "member_keeps")["reachable"][1] >= 3
        assert of(report, "newborn_keeps") == some(reachable=site(report, "newborn_keeps").live)
    trace.stop()
    assert len(program.work()) == 6
    assert program.process.stdin
    program.process.stdin.close()
    assert program.process.wait(PATIENCE) == 7
