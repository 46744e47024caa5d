"""The target is sacred: it computes what it would have computed, and nothing of leaktrace outlives leaktrace."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import LONG, NEVER, PATIENCE, ROOT, Lines, Starter, site
from tests.live.test_options import run_tool

Build = Callable[..., Path]
#: By the best way to attach, and by each other.
KILLS, OTHER_KILLS = (50, 5) if LONG else (6, 2)
#: Beginnings of names that leaktrace gives to its BPF programs.
OWN_NAMES = ("heap_", "process_", "bare_", "leaktrace")
UPROBE_EVENTS = Path("/sys/kernel/tracing/uprobe_events")


def held_programs() -> set[int]:
    """Return the ids of the BPF programs that a file descriptor of a living process holds, links' ones included."""
    held = set()
    for info in Path("/proc").glob("[0-9]*/fdinfo/*"):
        try:
            lines = info.read_text().splitlines()
        except OSError:
            # Closed meanwhile, or the process has ended.
            continue
        held |= {int(line.split()[1]) for line in lines if line.startswith("prog_id:")}
    return held


def listed(kind: str) -> list[dict[str, Any]]:
    """Return what bpftool lists of a kind (prog, link)."""
    if shutil.which("bpftool") is None:
        pytest.skip("needs bpftool")
    answer = subprocess.run(["bpftool", "-j", kind, "show"], capture_output=True, text=True, check=True)
    found = json.loads(answer.stdout or "[]")
    return list(found) if isinstance(found, list) else []


def left_behind() -> dict[int, str]:
    """Return leaktrace's programs that exist though no process holds them, by id, and whether links to them exist."""
    programs, links = listed("prog"), {each.get("prog_id") for each in listed("link")}
    # Asked for last: what another leaktrace opened meanwhile is held now.
    held = held_programs()
    return {each["id"]: each["name"] + (" and a link" if each["id"] in links else "") for each in programs
            if each.get("name", "").startswith(OWN_NAMES) and each["id"] not in held}


def assert_nothing_left() -> None:
    """Fail if anything of leaktrace is still in the kernel once that has had time to take it away."""
    deadline = time.monotonic() + PATIENCE
    left = left_behind()
    # The kernel frees programs after all processors have passed a quiet state: a moment after the last close.
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        present = left_behind()
        left = {number: name for number, name in left.items() if number in present}
    assert left == {}
    if UPROBE_EVENTS.exists():
        assert not [line for line in UPROBE_EVENTS.read_text().splitlines() if "leaktrace" in line or "heap_" in line]


def tracer_of(pid: int) -> int:
    """Return the pid of the debugger of a process, 0 without one."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("TracerPid:")))


def attach_and_kill(pid: int, *arguments: str) -> None:
    """Start a leaktrace, and end it with SIGKILL as soon as it is attached."""
    words = [sys.executable, "-m", "tracer.cli", "-p", str(pid), *arguments, NEVER]
    with subprocess.Popen(words, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stderr
            Lines(process.stderr).until(lambda line: "attached by" in line)
        finally:
            process.kill()
            process.wait(PATIENCE)


@pytest.mark.alone
@pytest.mark.parametrize(("arguments", "kills"), [((), KILLS), (("--attach", "multi"), OTHER_KILLS), (("--attach", "perf"), OTHER_KILLS)],
                         ids=["best", "multi", "perf"])
def test_a_busy_program_survives_kills_unharmed(
    build: Build, run_program: Any, arguments: tuple[str, ...], kills: int
) -> None:
    """Attached to and killed again and again while four threads work: no wrong byte, no lost speed, nothing left."""
    program = run_program(build("live_busy.c", "-pthread"))
    (before,) = program.work()
    program.go()
    for _ in range(kills):
        attach_and_kill(program.pid, *arguments)
        assert program.process.poll() is None
        assert tracer_of(program.pid) == 0
    (meanwhile,) = program.work()
    assert_nothing_left()
    (after,) = program.work()
    assert (before["wrong"], meanwhile["wrong"], after["wrong"]) == (0, 0, 0)
    assert before["rounds"] == after["rounds"] and meanwhile["rounds"] > before["rounds"]
    # Probes that stayed would make it several times as slow.
    assert after["ns"] < 2 * before["ns"]


@pytest.mark.alone
def test_a_program_is_as_fast_as_before_when_the_trace_has_ended(
    build: Build, run_program: Any, leaktrace: Starter
) -> None:
    """After a trace that ended as it should, the same work takes the same time, and nothing is attached."""
    program = run_program(build("live_busy.c", "-pthread"))
    (before,) = program.work()
    trace = leaktrace.attach(program)
    program.go()
    trace.stop()
    (meanwhile,) = program.work()
    assert_nothing_left()
    (after,) = program.work()
    assert (before["wrong"], meanwhile["wrong"], after["wrong"]) == (0, 0, 0)
    assert after["ns"] < 2 * before["ns"]


def state_of(pid: int) -> str:
    """Return the one-letter state of a process (proc_pid_stat(5))."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_a_stopped_program_can_be_traced_and_stays_stopped(build: Build, run_program: Any) -> None:
    """A program that SIGSTOP holds is attached to and reported on, is stopped all the while, and goes on when told."""
    program = run_program(build("live_sizes.c"))
    os.kill(program.pid, signal.SIGSTOP)
    # Until it is stopped; and from then on, it is, whatever is done to it.
    os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
    answer = run_tool("-p", str(program.pid), "--format", "json", "0.2", "2")
    assert answer.returncode == 0, answer.stderr
    assert [json.loads(line)["totals"]["live_count"] for line in answer.stdout.splitlines()] == [0, 0]
    assert state_of(program.pid) == "T" and tracer_of(program.pid) == 0
    os.kill(program.pid, signal.SIGCONT)
    assert len(program.work()) == 6


def test_a_program_that_is_continued_is_traced(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """What a program allocates after it was stopped, attached to and continued is counted."""
    program = run_program(build("live_sizes.c"))
    os.kill(program.pid, signal.SIGSTOP)
    os.waitid(os.P_PID, program.pid, os.WSTOPPED | os.WNOWAIT)
    trace = leaktrace.attach(program)
    os.kill(program.pid, signal.SIGCONT)
    program.work()
    report = trace.stop().report
    assert site(report, "one_large").live == (30000, 1) and site(report, "many_small").live == (5000, 50)


def test_no_debugger_is_attached_while_tracing(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """With -p and with -c, the target has no debugger while it is traced, so that another may attach."""
    program = run_program(build("live_sizes.c"))
    leaktrace.attach(program)
    assert tracer_of(program.pid) == 0
    trace, command = leaktrace.command([build("live_sizes.c")])
    (child,) = Path(f"/proc/{trace.process.pid}/task/{trace.process.pid}/children").read_text().split()
    assert tracer_of(int(child)) == 0
    command.work()


def test_a_command_outlives_a_killed_leaktrace(build: Build, leaktrace: Starter) -> None:
    """A command that runs goes on when leaktrace is killed with SIGKILL."""
    trace, command = leaktrace.command([build("live_sizes.c")])
    command.work()
    trace.process.kill()
    trace.process.wait(PATIENCE)
    assert len(command.work()) == 6
    assert_nothing_left()
