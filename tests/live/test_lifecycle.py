"""Targets end, are killed, become other programs, load and unload libraries; and how a trace itself ends."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import ALL_SITES, NEVER, Starter, functions, site
from tests.live.test_options import Tools, run_tool, shown, tools  # noqa: F401  # a fixture

Build = Callable[..., Path]


def kept(report: dict[str, Any], name: str) -> tuple[int, int]:
    """Return what a function of live_life holds."""
    return site(report, name).live


@pytest.mark.parametrize("end", ["exit", "SIGKILL", "SIGSEGV"])
def test_the_targets_end_brings_the_last_report(
    build: Build, run_program: Any, leaktrace: Starter, end: str
) -> None:
    """When the target ends, by itself or by a signal, one last report says what it held, and the exit code is 0."""
    program = run_program(build("live_life.c"), "1")
    trace = leaktrace.attach(program)
    program.work()
    if end == "exit":
        assert program.finish() == 0
    else:
        os.kill(program.pid, signal.Signals[end])
    result = trace.wait()
    assert [report["last"] for report in result.reports] == [True]
    assert kept(result.report, "old_keeps") == (3000, 3)
    assert result.report["totals"] | {"relative_error": None} == {
        "live_bytes": 3000, "live_count": 3, "allocated_bytes": 3500, "allocated_count": 4, "freed_count": 1,
        "relative_error": None}
    assert [functions(each)[-1] for each in result.report["sites"]] == ["_start"]


def test_exec_begins_a_new_image(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """Blocks of before an exec are dropped, and stderr says how many; those of the new program are counted exactly."""
    program = build("live_life.c")
    running = run_program(program, "1", program, "again", "2")
    trace = leaktrace.attach(running)
    running.work()
    running.go()
    running.wait_ready()
    running.work()
    running.work()
    result = trace.stop()
    report = result.report
    assert kept(report, "new_keeps") == (462, 6) and kept(report, "old_keeps") == (0, 0)
    # All that the program itself allocates is asked of malloc in its own functions; the loader has its own.
    assert (report["totals"]["live_bytes"], report["totals"]["live_count"]) == (462, 6)
    assert report["losses"] == {}
    said = [line for line in result.stderr.splitlines() if "exec" in line]
    assert len(said) == 1 and re.search(r"\b3 blocks\b", said[0]) and "3000 bytes" in said[0]
    assert running.finish() == 0


def test_exec_of_a_program_with_another_allocator(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """After an exec of a static program, its own allocator is found and attached, and what it then keeps is counted."""
    static = build("live_life.c", "-static", name="live_static")
    running = run_program(build("live_life.c"), "1", static, "again", "2")
    trace = leaktrace.attach(running)
    running.work()
    running.go()
    running.wait_ready()
    trace.err.until(lambda line: "live_static" in line and "malloc" in line)
    running.work()
    report = trace.stop().report
    assert kept(report, "new_keeps") == (231, 3) and kept(report, "old_keeps") == (0, 0)
    assert all(functions(each)[-1] == "_start" for each in report["sites"])
    assert report["target"]["exe"] == str(static)


def test_a_command_may_exec(build: Build, leaktrace: Starter) -> None:
    """A command that a shell starts with exec is followed: its blocks are counted, the shell's are not."""
    trace, program = leaktrace.command(["/bin/sh", "-c", f"exec {build('live_life.c')} 1"])
    program.work()
    report = trace.stop().report
    assert kept(report, "old_keeps") == (3000, 3)
    assert (report["totals"]["live_bytes"], report["totals"]["live_count"]) == (3000, 3)


def libraries(build: Build) -> tuple[Path, Path]:
    """Return two libraries that differ in the name of their one function."""
    return (build("live_library.c", "-shared", "-fPIC", "-DKEEPS=first_keeps", name="first.so"),
            build("live_library.c", "-shared", "-fPIC", "-DKEEPS=second_keeps", name="second.so"))


@pytest.mark.parametrize("between", ["a_report", "nothing"])
def test_libraries_come_and_go(build: Build, run_program: Any, leaktrace: Starter, between: str) -> None:
    """Stacks through a library that was unloaded keep its names, also where another one has taken its addresses."""
    running = run_program(build("live_loader.c"), *libraries(build))
    trace = leaktrace.attach(running, interval="0.3" if between == "a_report" else NEVER)
    truth = []
    for _ in range(4):
        truth += running.work()
        if between == "a_report":
            # The first of them may have been under way during the step.
            trace.next_report()
            trace.next_report()
    report = trace.stop().report
    found = {name: site(report, name).live for name in ("first_keeps", "second_keeps")}
    if between == "a_report":
        assert found == {each["function"]: (each["bytes"], each["count"]) for each in truth}
        assert report["losses"] == {}
    else:
        # Unloaded before its mappings were read, a library has no name, and its stacks end there.
        for each in truth:
            assert found[each["function"]] in ((each["bytes"], each["count"]), (0, 0))
    for name in found:
        for each in site(report, name).sites:
            assert functions(each)[:2] == [name, "use"] and functions(each)[-1] == "_start"


def test_no_name_is_given_to_blocks_of_another_library(
    build: Build, run_program: Any, leaktrace: Starter
) -> None:
    """Two libraries at the same addresses within a moment: what cannot be named has no name; the sums are exact."""
    running = run_program(build("live_loader.c"), *libraries(build), "at_once")
    trace = leaktrace.attach(running)
    truth = running.work()
    report = trace.stop().report
    for each in truth:
        assert site(report, each["function"]).live in ((each["bytes"], each["count"]), (0, 0))
    own = [each for each in report["sites"] if "dlopen" not in functions(each)]
    assert sum(each["bytes"] for each in own) == 3330
    for each in own:
        assert functions(each)[-1:] == ["_start"] or each["frames"][-1]["why"] == "unwind_stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("output", ["text", "json"])
def test_signals_end_with_a_last_report(
    build: Build, run_program: Any, tools: Tools, number: int, output: str  # noqa: F811  # the fixture
) -> None:
    """Ctrl-C and SIGTERM each give one more report, then exit code 0; the target goes on."""
    program = run_program(build("live_life.c"), "2")
    tool = tools.attach(program.pid, "--format", output, NEVER)
    program.work()
    lines = tool.stop(number)
    if output == "text":
        assert shown(lines) == [(3000, 3)]
    else:
        (report,) = map(json.loads, lines)
        assert report["last"] and kept(report, "old_keeps") == (3000, 3)
    program.work()
    assert program.finish() == 0


@pytest.mark.parametrize(
    ("arguments", "least", "most"),
    [(("-d", "1", "0.4"), 2, 3), (("-d", "0.5", NEVER), 1, 1), (("0.2", "3"), 3, 3), (("0.2", "1"), 1, 1),
     (("-d", "600", "0.2", "2"), 2, 2)],
)
def test_count_and_duration_end_a_trace(
    build: Build, run_program: Any, arguments: tuple[str, ...], least: int, most: int
) -> None:
    """COUNT is the number of reports, -d the time in seconds; whichever comes first ends the trace with exit code 0."""
    program = run_program(build("live_life.c"), "0")
    answer = run_tool("-p", str(program.pid), "--format", "json", *arguments)
    assert answer.returncode == 0, answer.stderr
    reports = [json.loads(line) for line in answer.stdout.splitlines()]
    assert least <= len(reports) <= most
    assert [report["last"] for report in reports] == [False] * (len(reports) - 1) + [True]
    interval = next(float(word) for word in arguments[-2:] if word not in ("-d", "600"))
    if interval < 1:
        assert all(report["elapsed_s"] >= number * interval - 0.01 for number, report in enumerate(reports[:-1], 1))
    assert program.finish() == 0


def test_two_processes_are_told_apart(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """Of two processes of one program in one trace, each has its share of a site, and one's end does not end the trace."""
    program = build("live_life.c")
    first, second = run_program(program, "1"), run_program(program, "3")
    trace = leaktrace.attach(first, "-p", str(second.pid))
    first.work()
    assert first.finish() == 0
    second.work()
    second.work()
    report = trace.stop().report
    (one,) = site(report, "old_keeps").sites
    assert (one["bytes"], one["count"], one["processes"], one["pid"]) == (9000, 9, 2, second.pid)
    found = {target["pid"]: [(share["bytes"], share["count"]) for share in target["sites"]
                             if share["rank"] == one["rank"]] for target in report["targets"]}
    assert found == {first.pid: [(3000, 3)], second.pid: [(6000, 6)]}
    assert [target["ended"] for target in report["targets"]] == [True, False]
    assert [target["pid"] for target in report["targets"]] == [first.pid, second.pid]
    assert report["totals"]["live_count"] == 9


def test_the_end_of_all_processes_ends_the_trace(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """A trace of two processes ends when both have ended, and reports on both."""
    program = build("live_life.c")
    first, second = run_program(program, "1"), run_program(program, "1")
    trace = leaktrace.attach(first, "-p", str(second.pid))
    for one in (first, second):
        one.work()
        assert one.finish() == 0
    report = trace.wait().report
    assert report["last"] and report["totals"]["live_bytes"] == 6000
    assert [target["totals"]["live_bytes"] for target in report["targets"]] == [3000, 3000]
    assert all(target["ended"] for target in report["targets"])


def test_later_reports_say_what_was_gained(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """From the second report on, JSON says per site how much more it is than in the one before: the gains add up."""
    program = run_program(build("live_life.c"), "2")
    trace = leaktrace.attach(program, interval="0.5")
    program.work()
    # The report that is being made meanwhile may have missed the step.
    while not kept(first := trace.next_report(), "old_keeps")[1]:
        pass
    program.work()
    reports = [first]
    while kept(reports[-1], "old_keeps")[1] < 6:
        reports.append(trace.next_report())
    reports.append(trace.next_report())
    gains = []
    for report in reports[1:]:
        (only,) = site(report, "old_keeps").sites
        gains.append((only["gained_bytes"], only["gained_count"]))
        assert (only["growth_bytes_per_s"] > 0) == (only["gained_bytes"] > 0)
    assert gains == [(0, 0)] * (len(gains) - 2) + [(3000, 3), (0, 0)]


def test_gains_are_in_the_text(
    build: Build, run_program: Any, tools: Tools  # noqa: F811  # the fixture
) -> None:
    """In text, the first report says nothing of gains, and the second how many bytes and allocations came."""
    program = run_program(build("live_life.c"), "2")
    tool = tools.attach(program.pid, *ALL_SITES, "1")
    program.work()
    tool.out.until(lambda line: line == "\t3000 bytes in 3 allocations from stack")
    tool.out.until(lambda line: line.endswith("(+0 bytes, +0 allocations)"))
    program.work()
    tool.out.until(lambda line: line == "\t6000 bytes in 6 allocations from stack (+3000 bytes, +3 allocations)")
    assert shown(tool.stop())[-1] == (6000, 6)
