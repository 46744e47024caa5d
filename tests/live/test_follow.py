"""--follow-forks: every process of a tree is traced from its first instruction, exactly, and none of them notices."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.live.conftest import (
    LONG,
    NEVER,
    PATIENCE,
    ROOT,
    Lines,
    RunningProgram,
    RunningTool,
    Starter,
    functions,
    site,
)
from tests.live.test_allocators import preload
from tests.live.test_exact import LIBRARIES
from tests.live.test_options import WORDS
from tracer.limits import MAX_SLOTS

Build = Callable[..., Path]
#: Children of one run, each of which lives for less than a millisecond.
CHILDREN = 500 if LONG else 30
#: A run that makes many processes takes longer than a step of a conversation.
RUN_PATIENCE = 20 * PATIENCE if LONG else 3 * PATIENCE


@dataclass(frozen=True, slots=True)
class Followed:
    """One `leaktrace run --follow-forks` that has ended."""

    code: int
    report: dict[str, Any]
    out: str
    err: str

    @property
    def truth(self) -> list[dict[str, Any]]:
        """What the processes said of themselves."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]

    @property
    def targets(self) -> dict[int, dict[str, Any]]:
        """The section of each process, of which there is one."""
        found = {target["pid"]: target for target in self.report["targets"]}
        assert len(found) == len(self.report["targets"])
        return found


def follow(
    folder: Path, *command: str | Path, options: Sequence[str] = (), environment: Mapping[str, str] | None = None,
    files: int | None = None,
) -> Followed:
    """Run a command and what it makes under leaktrace to the end; files: how many may be open at most."""
    path = folder / "report.json"
    path.unlink(missing_ok=True)
    limited = ["prlimit", f"--nofile={files}:{files}"] if files else []
    words = [*limited, *WORDS, "run", "--follow-forks", "--format", "json", "--output", str(path), *options, "--", *map(str, command)]
    answer = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False,
                            timeout=RUN_PATIENCE, env={**os.environ, **(environment or {})})
    assert path.exists() and path.read_text(), answer.stderr
    return Followed(answer.returncode, json.loads(path.read_text()), answer.stdout, answer.stderr)


def held(report: dict[str, Any], target: dict[str, Any], function: str) -> tuple[int, int]:
    """Return the bytes and blocks that one process holds at the sites of a function."""
    ranks = {each["rank"] for each in report["sites"] if function in functions(each)}
    shares = [share for share in target["sites"] if share["rank"] in ranks]
    return sum(share["bytes"] for share in shares), sum(share["count"] for share in shares)


def live(target: dict[str, Any]) -> tuple[int, int]:
    """Return the bytes and blocks that one process holds."""
    return target["totals"]["live_bytes"], target["totals"]["live_count"]


def assert_adds_up(report: dict[str, Any], *, compiles: bool = False) -> None:
    """Fail unless nothing was missed, and sites, processes and totals tell the same, nowhere less than nothing.

    compiles: a compiler is among the processes, which begins with so many new stacks that some are cut, no block missed.
    """
    lost = {name for name in report["losses"] if not (compiles and name.startswith("stack_"))}
    assert (lost, report["untraced"]) == (set(), {}) and (compiles or report["complete"])
    assert [target for target in report["targets"] if target["children"]] == []
    totals = {name: figure for name, figure in report["totals"].items() if name not in ("relative_error", "reachability")}
    assert {name: sum(target["totals"][name] for target in report["targets"]) for name in totals} == totals
    # Sites that hold nothing are not shown.
    assert (sum(each["bytes"] for each in report["sites"]), sum(each["count"] for each in report["sites"])) == (
        totals["live_bytes"], totals["live_count"])
    for target in report["targets"]:
        assert (sum(share["bytes"] for share in target["sites"]), sum(share["count"] for share in target["sites"])) == live(target)
        assert min(target["totals"].values()) >= 0
    for each in report["sites"]:
        shares = [share for target in report["targets"] for share in target["sites"] if share["rank"] == each["rank"]]
        assert (sum(share["bytes"] for share in shares), sum(share["count"] for share in shares)) == (each["bytes"], each["count"])
        assert each["processes"] == len(shares)


# ---- every process is traced from its first instruction


WAYS = ("fork", "clone", "silent", "thread", "fork_exec", "vfork_exec", "spawn", "system", "deep")


def assert_tree_exact(run: Followed, count: int) -> None:
    """Fail unless each process of a follow_tree has its section, with what it says of itself and nothing else."""
    assert run.code == 7 and run.truth[-1]["wrong"] == 0, run.err
    assert len(run.truth) == count + 1
    assert_adds_up(run.report)
    targets = run.targets
    for one in run.truth:
        target = targets[one["pid"]]
        # The root's own parent is not of the tree.
        assert target["parent"] == (None if one["function"] == "root_keeps" else one["parent"])
        assert (*held(run.report, target, one["function"]), target["exit_code"]) == (one["bytes"], one["count"], one["exit_code"])
        totals, freed = target["totals"], 0 if one["function"] == "root_keeps" else 1
        # The C library keeps what a thread had for the next one.
        of_library = held(run.report, target, "pthread_create")[1]
        assert (totals["live_count"], totals["allocated_count"], totals["freed_count"]) == (
            one["count"] + of_library, one["count"] + of_library + freed, freed)
    for name in {one["function"] for one in run.truth}:
        assert site(run.report, name).live == (sum(one["bytes"] for one in run.truth if one["function"] == name),
                                               sum(one["count"] for one in run.truth if one["function"] == name))
    assert all(target["ended"] for target in targets.values())


@pytest.mark.parametrize("together", [0, 1] if LONG else [1])
@pytest.mark.parametrize("way", WAYS)
def test_short_lives_are_seen_whole(build: Build, tmp_path: Path, way: str, together: int) -> None:
    """However a child is made, and be it over in a moment, its section has its blocks to the byte, its maker, its exit code."""
    made = CHILDREN if way not in ("deep", "system") else CHILDREN // 3
    run = follow(tmp_path, build("follow_tree.c", "-pthread"), way, str(made), str(together))
    others = {"system": made}.get(way, 0)
    assert_tree_exact(run, 3 * made if way == "deep" else made)
    assert len(run.targets) == len(run.truth) + others
    execs = {"fork_exec": made, "vfork_exec": made, "spawn": made, "system": 2 * made, "deep": 2 * made}.get(way, 0)
    assert sum(target["execs"] for target in run.targets.values()) == execs


# ---- what a child has from its parent


@pytest.mark.parametrize("what", ["inherit", "exec", "vfork", "vfork_exit", "share"])
def test_memory_is_whose_it_is(build: Build, tmp_path: Path, what: str) -> None:
    """What a child has by fork is said to be inherited, is not its own, and ends with exec; by vfork, all is its parent's."""
    run = follow(tmp_path, build("follow_memory.c"), what)
    assert run.code == 0
    assert_adds_up(run.report)
    for one in run.truth:
        target = run.targets[one["pid"]]
        assert {name: list(held(run.report, target, name)) for name in one["held"]} == one["held"]
        assert live(target) == (sum(each[0] for each in one["held"].values()), sum(each[1] for each in one["held"].values()))
        if "inherited" in one:
            inherited, dropped = target["inherited"], target["dropped"]
            assert (inherited and [inherited["bytes"], inherited["count"]]) == one["inherited"]
            assert [dropped["bytes"], dropped["count"]] == one["dropped"]
    assert len(run.targets) == (3 if what == "inherit" else 2)


def test_exec_drops_what_was_there(build: Build, tmp_path: Path) -> None:
    """After fork and exec, nothing is inherited; the child's own blocks of before are counted as dropped, and only these."""
    run = follow(tmp_path, build("follow_memory.c"), "exec")
    again = run.targets[next(one["pid"] for one in run.truth if "again_keeps" in one["held"])]
    assert (again["inherited"], again["dropped"], again["execs"]) == (None, {"bytes": 154, "count": 2}, 1)


@pytest.mark.parametrize("what", ["vfork", "vfork_exit", "share"])
def test_a_borrower_of_memory_has_none(build: Build, tmp_path: Path, what: str) -> None:
    """A child that worked in its parent's memory has a section in which nothing of that is held, inherited or dropped."""
    run = follow(tmp_path, build("follow_memory.c"), what)
    (parent,) = [one["pid"] for one in run.truth if "parent_keeps" in one["held"]]
    (child,) = [target for pid, target in run.targets.items() if pid != parent]
    assert live(child) == ((22, 2) if what == "vfork" else (0, 0))
    assert (child["inherited"], child["dropped"]) == (None, {"bytes": 0, "count": 0})


# ---- other programs, other allocators


LEAVES = [
    pytest.param("gcc", ("-static",), id="glibc_static"),
    pytest.param("gcc", ("-static-pie", "-fPIE"), id="glibc_static_pie"),
    pytest.param("musl-gcc", ("-static",), id="musl_static"),
    pytest.param("musl-gcc", (), id="musl"),
    pytest.param("gcc", ("-Wl,--no-as-needed", "-ljemalloc"), id="jemalloc"),
    pytest.param("gcc", ("-Wl,--no-as-needed", "-lmimalloc"), id="mimalloc"),
    pytest.param("gcc", (f"{LIBRARIES}/libjemalloc.a", "-lm", "-lstdc++"), id="jemalloc_inside"),
]


def assert_leaves_exact(run: Followed, count: int) -> None:
    """Fail unless each process of a follow_tree holds what it says; its allocator may have asked for more at its start."""
    assert run.code == 7 and len(run.truth) == count + 1 and run.truth[-1]["wrong"] == 0, run.err
    assert_adds_up(run.report)
    for one in run.truth:
        target = run.targets[one["pid"]]
        assert (*held(run.report, target, one["function"]), target["exit_code"]) == (one["bytes"], one["count"], one["exit_code"])


@pytest.mark.parametrize("way", ["fork_exec", "vfork_exec", "spawn"] if LONG else ["vfork_exec"])
@pytest.mark.parametrize(("compiler", "flags"), LEAVES)
def test_children_with_allocators_of_their_own(
    build: Build, tmp_path: Path, way: str, compiler: str, flags: tuple[str, ...]
) -> None:
    """A child that becomes a program with another allocator, in it or in a library, is exact from its first instruction."""
    leaf = build("follow_tree.c", "-pthread", *flags, compiler=compiler, name="leaf")
    run = follow(tmp_path, build("follow_tree.c", "-pthread"), way, "10", "0", leaf)
    assert_leaves_exact(run, 10)
    assert {Path(run.targets[one["pid"]]["exe"]).name for one in run.truth} == {"follow_tree", "leaf"}


@pytest.mark.parametrize("name", ["jemalloc", "tcmalloc", "mimalloc"])
def test_children_with_a_preloaded_allocator(build: Build, tmp_path: Path, name: str) -> None:
    """An allocator of LD_PRELOAD is that of children too, by fork and by exec, each block counted once."""
    program = build("follow_tree.c", "-pthread")
    run = follow(tmp_path, program, "deep", "5", "1", environment=preload(name))
    assert_leaves_exact(run, 15)


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_children_are_traced_from_their_start(build: Build, tmp_path: Path, flags: tuple[str, ...]) -> None:
    """In a followed child too, blocks of a library's constructor, a global object's and main's first line are all there."""
    library = build("live_early.c", "-shared", "-fPIC", name="live_early.so")
    linked = () if flags else ("-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{library.parent}")
    program = build("live_first.cpp", *flags, *linked)
    rounds = 100 if LONG else 10
    run = follow(tmp_path, "sh", "-c", f"i=0; while [ $i -lt {rounds} ]; do {program} || exit 1; i=$((i+1)); done")
    assert run.code == 0
    assert_adds_up(run.report)
    found = [{name: held(run.report, target, name) for name in ("library_constructor", "Early::Early", "main")}
             for target in run.targets.values() if target["exe"] == str(program)]
    constructed = (0, 0) if flags else (1111, 1)
    assert found == [{"library_constructor": constructed, "Early::Early": (2222, 1), "main": (3333, 1)}] * rounds


NO_ALLOCATOR = "void _start(void) {{ {0} for (;;) ; }}\n"
#: exit_group(23), in 64 and in 32 bits.
ENDS = {"-m64": 'asm volatile("syscall" : : "a"(231), "D"(23));', "-m32": 'asm volatile("int $0x80" : : "a"(252), "b"(23));'}


@pytest.mark.parametrize("width", ENDS)
def test_children_without_an_allocator(tmp_path: Path, width: str) -> None:
    """A child that allocates nothing, having nothing for it, is no error: it has an empty section with its exit code."""
    source, program = tmp_path / "bare.c", tmp_path / "bare"
    source.write_text(NO_ALLOCATOR.format(ENDS[width]))
    answer = subprocess.run(["gcc", width, "-O1", "-ffreestanding", "-nostdlib", "-static", source, "-o", program], check=False)
    if width == "-m32" and (answer.returncode or subprocess.run([program], check=False).returncode != 23):
        # Neither every compiler nor every kernel does that, and nothing here is about either.
        return
    run = follow(tmp_path, "sh", "-c", f"{program}; echo $?")
    assert (run.code, run.out) == (0, "23\n"), run.err
    assert_adds_up(run.report)
    (bare,) = [target for target in run.targets.values() if target["exe"] == str(program)]
    assert (live(bare), bare["exit_code"]) == ((0, 0), 23)


# ---- threads


def test_threads_allocate_and_fork(build: Build, tmp_path: Path) -> None:
    """Four threads of a followed child allocate and fork at the same time: each process's blocks are its own, and all."""
    run = follow(tmp_path, build("follow_threads.c", "-pthread"))
    assert run.code == 6 and len(run.truth) == 21, run.err
    assert_adds_up(run.report)
    for one in run.truth:
        target = run.targets[one["pid"]]
        assert (*held(run.report, target, one["function"]), target["parent"], target["exit_code"]) == (
            one["bytes"], one["count"], one["parent"], one["exit_code"])


def test_a_thread_becomes_another_program(build: Build, tmp_path: Path) -> None:
    """When one thread of four execs while the others work, the old blocks are dropped and the new program's are exact."""
    for _ in range(50 if LONG else 1):
        run = follow(tmp_path, build("follow_threads.c", "-pthread"), build("follow_tree.c", "-pthread"))
        assert run.code == 12 and len(run.truth) == 21, run.err
        assert_adds_up(run.report)
        for one in run.truth:
            target = run.targets[one["pid"]]
            assert (*held(run.report, target, one["function"]), target["parent"], target["exit_code"]) == (
                one["bytes"], one["count"], one["parent"], one["exit_code"])
        (leaf,) = [one["pid"] for one in run.truth if one["function"] == "leaf_keeps"]
        assert live(run.targets[leaf]) == (336, 3)
        # The C library's own blocks for threads come to these, and at most one block of each thread at work.
        assert run.targets[leaf]["dropped"]["bytes"] >= 4000 and 20 <= run.targets[leaf]["dropped"]["count"] <= 30
        assert run.targets[leaf]["execs"] == 1


# ---- nobody notices


PARTS = ("children", "stops", "threads", "signals", "pipes", "terminal", "others")


@pytest.mark.parametrize("part", PARTS)
def test_processes_observe_the_same(build: Build, tmp_path: Path, part: str) -> None:
    """Ends, stops, signals, pipes and a terminal's jobs look the same to processes that are followed, to the word."""
    program = build("follow_observes.c", "-pthread")
    alone = subprocess.run([program, part], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert alone.returncode == 9 and alone.stdout
    for _ in range(50 if LONG else 1):
        run = follow(tmp_path, program, part)
        assert (run.out, run.code) == (alone.stdout, 9)
        assert (run.report["untraced"], run.report["losses"]) == ({}, {})


@pytest.mark.parametrize(("command", "out", "code"), [
    ("timeout 0.2 sleep 100", "", 124), ("timeout -s KILL 0.2 sleep 100", "", 137), ("timeout 20 sh -c 'exit 3'", "", 3),
    ("timeout --foreground -s INT 0.2 sleep 100; echo $?", "124\n", 0),
    ("seq 1 20000 | tail -n 1 | tr 0 x", "2xxxx\n", 0), ("yes | head -n 1", "y\n", 0), ("(exit 4) | cat; exit 5", "", 5),
    ("seq 100 | xargs -n 10 -P 4 true", "", 0), ("kill -TERM $$", "", 143), ("sh -c 'kill -SEGV $$'; echo $?", "139\n", 0),
    ("trap 'echo got' USR1; sh -c \"kill -USR1 $$\"; echo on", "got\non\n", 0),
    ("sleep 100 & kill $!; wait $!; echo $?", "143\n", 0), ("cat <<END\nhere\nEND", "here\n", 0),
])  # fmt: skip
def test_a_shells_work_is_the_same(tmp_path: Path, command: str, out: str, code: int) -> None:
    """Pipelines, traps, jobs and time limits of a shell print and return what they do without leaktrace."""
    alone = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert (alone.stdout, alone.returncode if alone.returncode >= 0 else 128 - alone.returncode) == (out, code)
    run = follow(tmp_path, "sh", "-c", command)
    assert (run.out, run.code) == (out, code), run.err
    assert_adds_up(run.report)


# ---- leaktrace goes, they stay


def tracers(pid: int) -> set[int]:
    """Return the debuggers of all threads of a process, 0 for none; nothing once it has ended."""
    found = set()
    for tid in tasks(pid):
        with suppress(OSError):
            lines = Path(f"/proc/{pid}/task/{tid}/status").read_text().splitlines()
            found |= {int(line.split()[1]) for line in lines if line.startswith("TracerPid:")}
    return found


def tasks(pid: int) -> list[str]:
    """Return the threads of a process, none once it has ended."""
    try:
        return os.listdir(f"/proc/{pid}/task")
    except OSError:
        return []


def family(pid: int) -> list[int]:
    """Return a process and all that it and its children made and that run, whichever thread made them."""
    found = [pid]
    for each in found:
        for tid in tasks(each):
            with suppress(OSError):
                found += map(int, Path(f"/proc/{each}/task/{tid}/children").read_text().split())
    return found


def kill_after(pid: int, moment: float) -> bool:
    """Attach to a process and all it makes, and end leaktrace by SIGKILL a moment later; return whether it was attached."""
    words = [*WORDS, "-p", str(pid), "--follow-forks", NEVER]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
                          text=True) as process:
        try:
            assert process.stderr
            Lines(process.stderr).until(lambda line: "attached by" in line)
            time.sleep(moment)
        finally:
            attached = process.poll() is None
            process.kill()
            process.wait(PATIENCE)
    return attached


def test_a_tree_survives_kills_of_leaktrace(build: Build, run_program: Any) -> None:
    """Followed and abandoned by SIGKILL at random moments, a tree that makes processes without end loses none of them."""
    program = run_program(build("follow_forks.c", "-pthread"), "2")
    random = Random(15)
    for _ in range(50 if LONG else 1):
        assert kill_after(program.pid, random.random() / 4)
        assert program.process.poll() is None
        for pid in family(program.pid):
            assert tracers(pid) <= {0}
    (truth,) = program.work()
    assert truth["wrong"] == 0 and truth["children"] > 100
    assert program.process.wait(PATIENCE) == 7


def test_a_command_survives_a_kill_of_leaktrace(build: Build, start: Callable[..., RunningTool]) -> None:
    """A command and what it makes go on after leaktrace was killed, to their own exit codes."""
    random = Random(15)
    program = build("follow_forks.c", "-pthread")
    for _ in range(30 if LONG else 1):
        tool = start("--follow-forks", "--", "sh", "-c", f"{program} 2; echo code $?")
        tool.out.until(lambda line: line == "ready")
        time.sleep(random.random() / 4)
        tool.process.kill()
        tool.process.wait(PATIENCE)
        tool.go()
        lines = tool.out.until(lambda line: line.startswith("code "))
        (truth,) = [json.loads(line) for line in lines if line.startswith("{")]
        assert (truth["wrong"], lines[-1]) == (0, "code 7") and truth["children"] > 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_end_leaves_all_as_they_were(build: Build, run_program: Any, leaktrace: Starter, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM end a trace that follows with a report; no thread of the tree has a debugger, and all go on."""
    family_of, forks = run_program(build("follow_family.c", "-pthread")), run_program(build("follow_forks.c", "-pthread"), "2")
    for _ in range(20 if LONG else 1):
        trace = leaktrace.attach(family_of, "-p", str(forks.pid), "--follow-forks")
        assert {tracer for pid in family(family_of.pid) for tracer in tracers(pid)} == {trace.process.pid}
        family_of.work()
        trace.process.send_signal(number)
        assert trace.wait().report["last"]
        for each in (family_of.pid, forks.pid):
            assert {tracer for pid in family(each) for tracer in tracers(pid)} == {0}
        family_of.work()
    (truth,) = forks.work()
    assert truth["wrong"] == 0
    assert (forks.process.wait(PATIENCE), end_of_input(family_of)) == (7, 7)


def end_of_input(program: RunningProgram) -> int:
    """Let a program come to its end by the end of its input; return the exit code."""
    assert program.process.stdin
    program.process.stdin.close()
    return program.process.wait(PATIENCE)


# ---- a tree that is there


class Family(RunningProgram):
    """A follow_family, whose processes say who they are before it is ready."""

    def members(self) -> list[dict[str, Any]]:
        """Return what they say, once all are there."""
        lines = self._lines.until(lambda line: line == "ready")
        return [json.loads(line) for line in lines if line.startswith("{")]


def test_a_tree_that_runs_is_attached_to_whole(build: Build, leaktrace: Starter) -> None:
    """-p --follow-forks traces the processes and threads that the process has made before, and all that any makes later."""
    program = Family([str(build("follow_family.c", "-pthread"))], {})
    leaktrace.open.append(program)
    before = program.members()
    assert len(before) == 3
    trace = leaktrace.attach(program, "--follow-forks")
    newborn = program.work() + program.work()
    report = trace.stop().report
    assert len(newborn) == 12
    assert_adds_up(report)
    targets = {target["pid"]: target for target in report["targets"]}
    assert set(targets) == {one["pid"] for one in before + newborn}
    for one in before:
        target = targets[one["pid"]]
        assert held(report, target, "member_keeps") == live(target) == (600 * one["threads"], 2 * one["threads"])
        assert not target["ended"] and target["exit_code"] is None and target["execs"] == 0
    for one in newborn:
        target = targets[one["pid"]]
        assert held(report, target, "newborn_keeps") == live(target) == (30, 1)
        assert (target["parent"], target["exit_code"]) == (one["parent"], 4)
    assert end_of_input(program) == 7


# ---- code that changes


def libraries(build: Build) -> tuple[Path, Path]:
    """Return two libraries that differ in the name of their one function."""
    return (build("live_library.c", "-shared", "-fPIC", "-DKEEPS=first_keeps", name="first.so"),
            build("live_library.c", "-shared", "-fPIC", "-DKEEPS=second_keeps", name="second.so"))


@pytest.mark.parametrize("later", [(), ("later",)], ids=["children_only", "the_parent_too"])
@pytest.mark.parametrize("when", ["in_turn", "at_once"])
def test_libraries_at_the_same_address(build: Build, tmp_path: Path, when: str, later: tuple[str, ...]) -> None:
    """Children that share their parent's code load different libraries at one address: each one's stacks name its own."""
    for _ in range(20 if LONG else 1):
        run = follow(tmp_path, build("follow_loads.c"), *libraries(build), when, *later)
        assert run.code == 0 and len(run.truth) == 2 + len(later), run.err
        # Else it would show nothing.
        assert len({one["address"] for one in run.truth}) == 1
        assert_adds_up(run.report)
        for one in run.truth:
            other = {"first_keeps": "second_keeps", "second_keeps": "first_keeps"}[one["function"]]
            target = run.targets[one["pid"]]
            assert held(run.report, target, one["function"]) == (one["bytes"], one["count"])
            assert held(run.report, target, other) == (0, 0)
        for name in ("first_keeps", "second_keeps"):
            for each in site(run.report, name).sites:
                assert functions(each)[:2] == [name, "use"] and functions(each)[-1] == "_start"


VERSION = """#include <stdlib.h>
static void *volatile block;
{lines}__attribute__((noinline)) static void {name}(void) {{ for (int i = 0; i < {count}; i++) block = malloc({size}); }}
int main(void) {{ {name}(); return {code}; }}
"""
#: Of each version of the program: the bytes of a block, of which it keeps as many as its number; it exits with that.
SIZES = {1: 100, 2: 200} | ({3: 300} if LONG else {})


@pytest.mark.parametrize(("way", "flags"), [
    ("compiled", ""), ("moved", "-static"), ("copied", ""),
    *([("compiled", "-static"), ("moved", ""), ("copied", "-static")] if LONG else [])])
def test_a_program_is_replaced(tmp_path: Path, way: str, flags: str) -> None:
    """Compile, run, compile anew under the same name, run: functions, files and lines are those of what ran each time."""
    script = [f"cd {tmp_path}"]
    for number, size in SIZES.items():
        (tmp_path / f"v{number}.c").write_text(VERSION.format(
            name=f"version_{number}_keeps", count=number, size=size, lines="\n" * 10 * number, code=number))
        script += {
            "compiled": [f"gcc -g -O1 {flags} v{number}.c -o a.out"],
            "moved": [f"gcc -g -O1 {flags} v{number}.c -o fresh", "mv fresh a.out"],
            # Into the same file, the same inode.
            "copied": [f"gcc -g -O1 {flags} v{number}.c -o fresh", "cat fresh > a.out", "chmod +x a.out"],
        }[way]
        script += ["./a.out", f"[ $? = {number} ] || exit 9"]
    run = follow(tmp_path, "sh", "-c", "\n".join(script))
    assert run.code == 0, run.err
    assert_adds_up(run.report, compiles=True)
    found = [target for target in run.targets.values() if target["exe"] and Path(target["exe"]).name.startswith("a.out")]
    assert [target["exit_code"] for target in found] == list(SIZES)
    for target, (number, size) in zip(found, SIZES.items(), strict=True):
        name = f"version_{number}_keeps"
        assert held(run.report, target, name) == (size * number, number)
        # A static program has blocks of the C library's start.
        assert flags or live(target) == (size * number, number)
        (each,) = site(run.report, name).sites
        # malloc itself is a frame where it is in the program.
        frame = next(frame for frame in each["frames"] if frame["function"] == name)
        assert (Path(frame["file"]).name, frame["line"]) == (f"v{number}.c", 3 + 10 * number)


# ---- a command that leaves


def test_a_daemon_is_followed_to_its_end(build: Build, start: Callable[..., RunningTool], tmp_path: Path) -> None:
    """A command that daemonizes is followed on: leaktrace ends when the process it left has, and reports on both."""
    path = tmp_path / "report.json"
    tool = start("--follow-forks", "--format", "json", "--output", str(path), "--", build("run_leaves.c"))
    left = int(tool.out.until(lambda line: line.startswith("left "))[-1].split()[1])
    tool.go()
    code, said = tool.wait()
    report = json.loads(path.read_text())
    assert code == 0 and "running" not in said
    assert_adds_up(report)
    targets = {target["pid"]: target for target in report["targets"]}
    assert len(targets) == 2 and all(target["ended"] and target["exit_code"] == 0 for target in targets.values())
    (parent,) = set(targets) - {left}
    assert held(report, targets[parent], "keeps_before_leaving") == (100, 1)
    assert (targets[left]["parent"], targets[left]["inherited"]) == (parent, {"bytes": 100, "count": 1})


# ---- many


def test_more_than_there_is_room_for(build: Build, tmp_path: Path) -> None:
    """Processes beyond the room are counted as untraced and unharmed; the others are exact; a judgement is impossible."""
    count = MAX_SLOTS + 44
    run = follow(tmp_path, build("follow_crowd.c"), str(count), options=("--fail-on", "total_bytes>1G"))
    assert len(run.truth) == count + 1 and run.truth[-1]["wrong"] == 0
    assert run.code == 4
    assert list(run.report["untraced"].values()) == [count + 1 - MAX_SLOTS]
    assert len(run.targets) == MAX_SLOTS
    traced = [one for one in run.truth if one["pid"] in run.targets]
    assert len(traced) == MAX_SLOTS
    for one in traced:
        target = run.targets[one["pid"]]
        assert (live(target), target["exit_code"]) == ((one["bytes"], 1), one["exit_code"])
    assert run.report["losses"] == {}
    assert run.report["totals"]["live_bytes"] == sum(one["bytes"] for one in traced)


@pytest.mark.parametrize("way", [(), ("--attach", "perf")])
def test_few_files_may_be_open(build: Build, tmp_path: Path, way: Sequence[str]) -> None:
    """Under a low limit of open files, processes that cannot be traced are counted once, and all go on to their ends."""
    run = follow(tmp_path, build("follow_crowd.c"), "60", options=("--fail-on", "total_bytes>1G", *way), files=400)
    assert len(run.truth) == 61 and run.truth[-1]["wrong"] == 0 and run.code == 4
    ((reason, count),) = run.report["untraced"].items()
    assert "files" in reason and count == 61 - len(run.targets) and len(run.targets) > 1
    for pid, target in run.targets.items():
        assert live(target) == (next(one["bytes"] for one in run.truth if one["pid"] == pid), 1)


def test_room_is_given_again(build: Build, tmp_path: Path) -> None:
    """Many more processes than there is room for, but one after the other, are all traced."""
    count = 2 * MAX_SLOTS if LONG else MAX_SLOTS + 20
    run = follow(tmp_path, build("follow_tree.c", "-pthread"), "fork", str(count), "0")
    assert_tree_exact(run, count)


def test_places_of_stacks_are_used_again(build: Build, tmp_path: Path) -> None:
    """With room for few stacks, each process takes the places of those that ended, and none of their blocks with them."""
    run = follow(tmp_path, build("follow_tree.c", "-pthread"), "spawn", str(CHILDREN), "0", options=("--max-stacks", "16"))
    assert_tree_exact(run, CHILDREN)


MAKEFILE = """SOURCES := {sources}
all: program {runs}
program: $(SOURCES:.c=.o)
\tgcc -g $^ -o $@
%.o: %.c
\tgcc -g -O1 -c $< -o $@
run%: program
\t./program $*
"""
#: Objects of the project, and runs of the program that they make.
SOURCES, PROGRAM_RUNS = (36, 60) if LONG else (3, 6)


@pytest.mark.parametrize(("budget", "last", "code"), [
    ("count>1", 0, 23), ("total_bytes>100G", 3, 2), *([("total_bytes>100G", 0, 0)] if LONG else [])])
def test_make_is_exact(tmp_path: Path, budget: str, last: int, code: int) -> None:
    """A parallel make that compiles a program and runs it: the sum over main is exact, and make's own exit code or 23 is given."""
    names = [f"part_{number}" for number in range(SOURCES)]
    for number, name in enumerate(names):
        (tmp_path / f"{name}.c").write_text(
            f"#include <stdlib.h>\nvoid *volatile block_{number};\n"
            f"void {name}(void) {{ for (int i = 0; i < {number + 1}; i++) block_{number} = malloc({10 + number}); }}\n")
    (tmp_path / "main.c").write_text(
        "#include <stdlib.h>\n#include <string.h>\n" + "".join(f"void {name}(void);\n" for name in names)
        + "int main(int argc, char **argv)\n{\n" + "".join(f"{name}();\n" for name in names)
        + f"return argc < 2 || !strcmp(argv[1], \"{PROGRAM_RUNS}\") ? {last} : 0;\n}}\n")
    (tmp_path / "Makefile").write_text(MAKEFILE.format(
        sources=" ".join(f"{name}.c" for name in [*names, "main"]),
        runs=" ".join(f"run{number}" for number in range(1, PROGRAM_RUNS + 1))))
    run = follow(tmp_path, "make", "-j2", "-C", str(tmp_path), options=("--fail-on", budget))
    assert run.code == code, run.err
    assert_adds_up(run.report, compiles=True)
    runs = [target for target in run.targets.values() if target["exe"] == str(tmp_path / "program")]
    assert sorted(target["exit_code"] for target in runs) == [0] * (PROGRAM_RUNS - bool(last)) + [last] * bool(last)
    one = sum((10 + number) * (number + 1) for number in range(SOURCES)), sum(range(1, SOURCES + 1))
    assert [held(run.report, target, "main") for target in runs] == [one] * PROGRAM_RUNS
    for number, name in enumerate(names):
        assert site(run.report, name).live == (PROGRAM_RUNS * (10 + number) * (number + 1), PROGRAM_RUNS * (number + 1))
    # make, and per source gcc, cc1 and as, and at the end gcc, collect2 and ld.
    assert len(run.targets) >= 1 + 3 * (SOURCES + 1) + 3 + PROGRAM_RUNS
