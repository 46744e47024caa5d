"""--comm, --cgroup, --container: all processes of a kind are traced, those that come later from their start, and no other."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from symbolizer.mappings import parse_maps
from tests.live.conftest import LONG, NEVER, PATIENCE, RunningProgram, Starter, Trace, functions, site
from tests.live.test_command import early
from tests.live.test_follow import held, live
from tests.live.test_options import run_tool
from tracer.attach.cgroup import Hierarchy, hierarchies
from tracer.errors import UsageError

pytestmark = pytest.mark.alone
Build = Callable[..., Path]
Run = Callable[..., RunningProgram]
#: Processes that come one after the other.
LATER = 100 if LONG else 10


def select(leaktrace: Starter, *arguments: str) -> Trace:
    """Start a leaktrace of what is selected, and return when it is attached."""
    trace = Trace((*arguments, NEVER))
    leaktrace.open.append(trace)
    trace.wait_attached()
    return trace


def targets_of(report: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the section of each process of a report that misses nothing but the start of a program.

    On a busy machine, leaktrace comes late to some: that is counted, and is what wait_until_traced() is for.
    """
    assert (set(report["losses"]) - {"late"}, report["untraced"]) == (set(), {})
    found = {target["pid"]: target for target in report["targets"]}
    assert len(found) == len(report["targets"])
    return found


def wait_until_traced(program: RunningProgram) -> None:
    """Wait until a process that came later has its probes."""
    deadline = time.monotonic() + PATIENCE
    while not changed(program.pid):
        assert time.monotonic() < deadline, f"{program.pid} is not traced"
        time.sleep(0.01)


def assert_seen_from_the_start(report: dict[str, Any], count: int, *, library: bool, told: bool = True) -> None:
    """Fail unless the early blocks of `count` processes are there: all, or all but those said to be missing.

    told: whether the kernel side tells who is selected. Without it, a process may have come and gone unnoticed.
    """
    found, unseen = early(report), report["losses"].get("late", 0) + sum(report["untraced"].values())
    if not told:
        unseen = count
    assert set(report["losses"]) <= {"late"}
    for name, size in (("library_constructor", 1111 if library else 0), ("Early::Early", 2222), ("main", 3333)):
        held_bytes, blocks = found[name]
        assert held_bytes == size * blocks
        assert not size or count - unseen <= blocks <= count


# ---- by name


@pytest.mark.parametrize("name", ["lt_chosen", "lt_chosen_of_a_long_name"])
def test_a_name_selects_present_and_later_ones(build: Build, run_program: Run, leaktrace: Starter, name: str) -> None:
    """Processes of the name are traced, those there are and those that start later, and none of another name."""
    program, other = build("live_life.c", name=name), build("live_life.c", name="lt_other")
    present, unselected = [run_program(program, "2"), run_program(program, "2")], run_program(other, "2")
    trace = select(leaktrace, "--comm", name)
    later, unselected_too = run_program(program, "2"), run_program(other, "2")
    wait_until_traced(later)
    for one in (*present, later, unselected, unselected_too):
        one.work()
    later.work()
    targets = targets_of(report := trace.stop().report)
    assert {pid: held(report, target, "old_keeps") for pid, target in targets.items()} == {
        present[0].pid: (3000, 3), present[1].pid: (3000, 3), later.pid: (6000, 6)}
    for one in (*present, unselected, unselected_too):
        one.work()
        assert one.finish() == 0


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["dynamic", "static"])
def test_later_ones_are_traced_from_their_start(build: Build, leaktrace: Starter, flags: tuple[str, ...]) -> None:
    """Of each that comes, blocks of before main are there, though it lives for a moment."""
    library = build("live_early.c", "-shared", "-fPIC", name="live_early.so")
    linked = () if flags else ("-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{library.parent}")
    program = build("live_first.cpp", *flags, *linked, name="lt_early")
    trace = select(leaktrace, "--comm", "lt_early")
    pids = [run_once(str(program)) for _ in range(LATER)]
    report = trace.stop().report
    assert_seen_from_the_start(report, LATER, library=not flags)
    # Each that is there at all is one of these, and was there once.
    assert {target["pid"] for target in report["targets"]} <= set(pids)


def run_once(*words: str) -> int:
    """Run a program to its end; return the pid that it had."""
    pid = os.posix_spawn(words[0], words, os.environ)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return pid


def test_exec_of_another_program_leaves_the_selection(build: Build, run_program: Run, leaktrace: Starter) -> None:
    """A process that becomes a program of another name is traced no longer, and left as it was; the others are traced on."""
    program, other = build("live_life.c", name="lt_chosen"), build("live_life.c", name="lt_other")
    leaves, stays = run_program(program, "1", other, "again", "2"), run_program(program, "2")
    trace = select(leaktrace, "--comm", "lt_chosen")
    leaves.work()
    stays.work()
    leaves.go()
    leaves.wait_ready()
    leaves.work()
    stays.work()
    assert not probed(leaves.pid) and tracer_of(leaves.pid) == 0
    targets = targets_of(report := trace.stop().report)
    assert {pid: live(target) for pid, target in targets.items()} == {stays.pid: (6000, 6)}
    assert site(report, "new_keeps").live == (0, 0)
    leaves.work()
    assert leaves.finish() == 0


def test_exec_of_a_selected_program_joins_it(build: Build, run_program: Run, leaktrace: Starter) -> None:
    """A process that was another program, and there before, is traced from when it becomes one of the name."""
    program, other = build("live_life.c", name="lt_chosen"), build("live_life.c", name="lt_other")
    joins = run_program(other, "1", program, "again", "2")
    trace = select(leaktrace, "--comm", "lt_chosen")
    joins.work()
    joins.go()
    joins.wait_ready()
    wait_until_traced(joins)
    joins.work()
    targets = targets_of(report := trace.stop().report)
    assert {pid: live(target) for pid, target in targets.items()} == {joins.pid: (231, 3)}
    assert site(report, "new_keeps").live == (231, 3) and site(report, "old_keeps").live == (0, 0)


def test_children_of_selected_ones(build: Build, run_program: Run, leaktrace: Starter, tmp_path: Path) -> None:
    """With --follow-forks, what a selected process makes is traced too, from its start, whatever it is called."""
    shell, leaf = tmp_path / "lt_maker", build("follow_tree.c", "-pthread", name="lt_made")
    shutil.copy2(os.path.realpath("/bin/sh"), shell)
    maker = run_program(shell, "-c", f"echo ready; read line; for i in 1 2 3 4; do {leaf} leaf $i; done; echo end; read line")
    trace = select(leaktrace, "--comm", "lt_maker", "--follow-forks")
    truth = maker.work()
    report = trace.stop().report
    assert report["losses"] == {} and len(truth) == 4
    targets = targets_of(report)
    assert set(targets) == {maker.pid, *(one["pid"] for one in truth)}
    for one in truth:
        target = targets[one["pid"]]
        assert (live(target), target["parent"], target["exit_code"]) == ((one["bytes"], one["count"]), maker.pid, one["exit_code"])
        assert held(report, target, one["function"]) == live(target)


# ---- who is not selected is not touched


def probed(pid: int) -> bool:
    """Return whether the kernel has put a probe into a process: its page for the displaced instructions is there."""
    return "[uprobes]" in Path(f"/proc/{pid}/maps").read_text()


def changed(pid: int) -> int:
    """Return in how many bytes the code of a process's libc is not that of the file."""
    found = 0
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        for each in parse_maps(Path(f"/proc/{pid}/maps").read_bytes()):
            if each.executable and "/libc" in each.path:
                memory.seek(each.start)
                code = memory.read(each.end - each.start)
                with open(f"/proc/{pid}/root{each.path}", "rb") as file:
                    file.seek(each.file_offset)
                    there = file.read(len(code)).ljust(len(code), b"\0")
                found += sum(one != other for one, other in zip(code, there, strict=True))
    return found


def tracer_of(pid: int) -> int:
    """Return the pid of the debugger of a process, 0 without one."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("TracerPid:")))


def test_others_of_the_same_libc_are_not_probed(build: Build, run_program: Run, leaktrace: Starter) -> None:
    """Processes that are not selected have no probe, no changed byte of libc's code and no debugger; selected ones do."""
    program, other = build("live_life.c", name="lt_chosen"), build("live_life.c", name="lt_other")
    before = [run_program(other, "1") for _ in range(3)]
    chosen = run_program(program, "1")
    trace = select(leaktrace, "--comm", "lt_chosen")
    later, others = run_program(program, "1"), [*before, run_program(other, "1")]
    wait_until_traced(later)
    for one in (chosen, later, *others):
        one.work()
    # Else the way of looking would show nothing.
    assert all(changed(one.pid) > 0 for one in (chosen, later))
    assert [(probed(one.pid), changed(one.pid), tracer_of(one.pid)) for one in others] == [(False, 0, 0)] * 4
    assert set(targets_of(trace.stop().report)) == {chosen.pid, later.pid}
    assert changed(chosen.pid) == 0 and tracer_of(chosen.pid) == 0


# ---- by control group


def mounted() -> list[Hierarchy]:
    """Return one hierarchy of each version that there is."""
    try:
        found = hierarchies()
    except UsageError:
        return []
    versions: dict[int, Hierarchy] = {}
    for each in found:
        versions.setdefault(each.version, each)
    return list(versions.values())


class Group:
    """A control group of the test's own, which is taken away with it."""

    def __init__(self, folder: Path, parent: Path, version: int) -> None:
        self.folder, self._parent, self.version = folder, parent, version
        folder.mkdir()

    def below(self, name: str) -> Group:
        """Make a group in this one."""
        return Group(self.folder / name, self._parent, self.version)

    def add(self, pid: int) -> None:
        """Move a process here."""
        (self.folder / "cgroup.procs").write_text(str(pid))

    def entering(self, *words: str | Path) -> list[str]:
        """Return the words of a command that moves itself here before it becomes another program."""
        return ["/bin/sh", "-c", f'echo $$ > {self.folder}/cgroup.procs; exec "$0" "$@"', *map(str, words)]

    def close(self) -> None:
        for folder, _, _ in os.walk(self.folder, topdown=False):
            for pid in Path(folder, "cgroup.procs").read_text().split():
                with suppress(OSError):
                    (self._parent / "cgroup.procs").write_text(pid)
            os.rmdir(folder)


MOUNTED: list[Hierarchy | None] = [*mounted()] or [None]


@pytest.fixture(params=MOUNTED, ids=lambda each: f"v{each.version}" if each else "none")
def group(request: pytest.FixtureRequest) -> Iterator[Group]:
    """Return a control group, of each version that this machine has."""
    if request.param is None:
        pytest.skip("no control groups are mounted")
    hierarchy: Hierarchy = request.param
    made = Group(hierarchy.point / f"leaktrace_test_{secrets.token_hex(4)}", hierarchy.point, hierarchy.version)
    try:
        yield made
    finally:
        made.close()


def path_in(group: Group, way: str) -> str:
    """Return how a user names a group."""
    return str(group.folder) if way == "by_folder" else group.folder.name


@pytest.mark.parametrize("way", ["by_folder", "by_path"])
def test_a_group_selects_present_and_later_ones(
    build: Build, run_program: Run, leaktrace: Starter, group: Group, way: str
) -> None:
    """Processes in the group and those below it are traced, those there are and those that start in it, and no other."""
    program, below = build("live_life.c", name="lt_grouped"), group.below("below")
    present, outside = [run_program(program, "1"), run_program(program, "1")], run_program(program, "1")
    group.add(present[0].pid)
    below.add(present[1].pid)
    trace = select(leaktrace, "--cgroup", path_in(group, way))
    later = [run_program(*place.entering(program, "1")) for place in (group, below)]
    outside_too = run_program(program, "1")
    for one in later:
        wait_until_traced(one)
    for one in (*present, *later, outside, outside_too):
        one.work()
    assert not probed(outside.pid) and changed(outside_too.pid) == 0
    targets = targets_of(report := trace.stop().report)
    assert {pid: held(report, target, "old_keeps") for pid, target in targets.items()} == {
        one.pid: (3000, 3) for one in (*present, *later)}
    for one in (*present, *later, outside, outside_too):
        assert one.finish() == 0


def test_what_starts_in_a_group_is_traced_from_its_start(build: Build, run_program: Run, leaktrace: Starter, group: Group) -> None:
    """Of each program that starts in the group, blocks of before main are there, though it lives for a moment."""
    library = build("live_early.c", "-shared", "-fPIC", name="live_early.so")
    program = build("live_first.cpp", "-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{library.parent}")
    waiting = run_program(build("live_life.c"), "1")
    group.add(waiting.pid)
    trace = select(leaktrace, "--cgroup", str(group.folder))
    pids = [run_once(*group.entering(program)) for _ in range(LATER)]
    report = trace.stop().report
    assert_seen_from_the_start(report, LATER, library=True, told=group.version == 2)
    assert {target["pid"] for target in report["targets"]} <= {waiting.pid, *pids}


def test_a_process_that_is_moved_there_is_traced(build: Build, run_program: Run, leaktrace: Starter, group: Group) -> None:
    """A process that another moves into the group is found at the next report, and traced from then on."""
    program = build("live_life.c", name="lt_grouped")
    present, moved = run_program(program, "1"), run_program(program, "2")
    group.add(present.pid)
    trace = Trace(("--cgroup", str(group.folder), "0.5"))
    leaktrace.open.append(trace)
    trace.wait_attached()
    moved.work()
    group.add(moved.pid)
    while moved.pid not in {target["pid"] for target in trace.next_report()["targets"]}:
        pass
    moved.work()
    report = trace.stop().report
    assert live(targets_of(report)[moved.pid]) == (3000, 3)


def test_two_ways_to_select_add_up(build: Build, run_program: Run, leaktrace: Starter, group: Group) -> None:
    """A name and a group select what either does."""
    program, named = build("live_life.c", name="lt_grouped"), build("live_life.c", name="lt_chosen")
    in_group, by_name, neither = run_program(program, "1"), run_program(named, "1"), run_program(program, "1")
    group.add(in_group.pid)
    trace = select(leaktrace, "--cgroup", str(group.folder), "--comm", "lt_chosen")
    for one in (in_group, by_name, neither):
        one.work()
    targets = targets_of(trace.stop().report)
    assert {pid: live(target) for pid, target in targets.items()} == {in_group.pid: (3000, 3), by_name.pid: (3000, 3)}


# ---- by container


#: Characters of a container's id: all, those that docker shows, fewer.
LENGTHS = {"id": 64, "prefix": 7} | ({"short_id": 12} if LONG else {})


@pytest.mark.parametrize("length", LENGTHS.values(), ids=LENGTHS.keys())
def test_a_container_is_selected_by_its_id(
    build: Build, run_program: Run, leaktrace: Starter, group: Group, length: int
) -> None:
    """A group named as docker names them is a container: id and beginning of id select it, and its processes carry the id."""
    program, identity = build("live_life.c", name="lt_contained"), secrets.token_hex(32)
    container, another = group.below(f"docker-{identity}.scope"), group.below(f"docker-{secrets.token_hex(32)}.scope")
    present, elsewhere, outside = (run_program(program, "1") for _ in range(3))
    container.add(present.pid)
    another.add(elsewhere.pid)
    trace = select(leaktrace, "--container", identity[:length])
    later = run_program(*container.entering(program, "1"))
    wait_until_traced(later)
    for one in (present, later, elsewhere, outside):
        one.work()
    report = trace.stop().report
    targets = targets_of(report)
    assert {pid: (held(report, target, "old_keeps"), target["container"]["id"], target["container"]["runtime"])
            for pid, target in targets.items()} == dict.fromkeys((present.pid, later.pid), ((3000, 3), identity, "docker"))
    assert all(functions(each)[-1] == "_start" for each in report["sites"] if "old_keeps" in functions(each))


@pytest.mark.parametrize("arguments", [("--container", secrets.token_hex(32)), ("--container", "no-such-container"),
                                       ("--cgroup", "/no/such/group"), ("--cgroup", "")])
def test_unknown_ones_are_wrong_usage(arguments: tuple[str, ...]) -> None:
    """A container or a group that there is not gives exit code 2, one sentence that names it, and one that helps."""
    answer = run_tool(*arguments)
    assert (answer.returncode, answer.stdout) == (2, ""), answer.stderr
    assert "Traceback" not in answer.stderr and len(answer.stderr.splitlines()) >= 2
    assert arguments[1] in answer.stderr


def test_an_empty_group_is_wrong_usage(group: Group) -> None:
    """A group without any process gives exit code 2 and a sentence that names it."""
    answer = run_tool("--cgroup", str(group.folder))
    assert (answer.returncode, answer.stdout) == (2, ""), answer.stderr
    assert re.search(rf"no processes in {group.folder}", answer.stderr)


def test_an_ambiguous_beginning_is_wrong_usage(group: Group, run_program: Run, build: Build) -> None:
    """Two containers whose ids begin with the same: exit code 2, and both are named."""
    beginning = secrets.token_hex(6)
    ids = [beginning + secrets.token_hex(26) for _ in range(2)]
    for identity in ids:
        place = group.below(f"docker-{identity}.scope")
        place.add(run_program(build("live_life.c"), "1").pid)
    answer = run_tool("--container", beginning[:8])
    assert (answer.returncode, answer.stdout) == (2, ""), answer.stderr
    assert all(identity[:12] in answer.stderr for identity in ids)
