"""Stacks are whole and right: address for address those of a debugger, through whatever a compiler or a kernel makes."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import LONG, PROGRAMS, Starter, functions, site

Build = Callable[..., Path]
#: The sizes that live_paths asks for.
OWN_SIZES = range(50000, 50100)
#: gdb's side of the comparison: at every malloc of such a size, write the return addresses down.
GDB_SCRIPT = """
import gdb, json
for setting in ("pagination off", "confirm off", "breakpoint pending on", "print thread-events off",
                "debuginfod enabled off", "backtrace past-main on"):
    try:
        gdb.execute("set " + setting)
    except gdb.error:
        pass
out = open("{out}", "w")
class AtMalloc(gdb.Breakpoint):
    def stop(self):
        size = int(gdb.parse_and_eval("$rdi"))
        if {low} <= size < {high}:
            addresses, frame = [], gdb.newest_frame().older()
            while frame is not None:
                if frame.type() != gdb.INLINE_FRAME:
                    addresses.append(frame.pc())
                frame = frame.older()
            out.write(json.dumps([size, addresses]) + chr(10))
            out.flush()
        return False
AtMalloc("malloc")
gdb.execute("run < {lines}")
"""


def addresses(one: dict[str, Any]) -> list[int]:
    """Return the return addresses of a site, innermost first; inlined calls have none of their own."""
    return [int(frame["address"], 16) for frame in one["frames"]
            if not frame["inlined"] and frame["why"] != "unwind_stopped"]


def by_size(report: dict[str, Any]) -> dict[int, dict[str, Any]]:
    """Return the sites that hold one block, by its size."""
    return {each["bytes"]: each for each in report["sites"] if each["count"] == 1}


def of_gdb(program: Path, folder: Path) -> dict[int, list[int]]:
    """Return the stacks at malloc that gdb sees, by size."""
    lines, out, script = folder / "lines", folder / "stacks", folder / "script.py"
    lines.write_text("\n" * 10)
    script.write_text(GDB_SCRIPT.format(out=out, lines=lines, low=OWN_SIZES[0], high=OWN_SIZES[-1] + 1))
    answer = subprocess.run(["gdb", "-nx", "-batch", "-x", script, program], capture_output=True, text=True,
                            stdin=subprocess.DEVNULL, timeout=120, check=False)
    assert out.exists() and out.stat().st_size, answer.stdout + answer.stderr
    return {size: stack for size, stack in map(json.loads, out.read_text().splitlines())}


def build_paths(build: Build, *flags: str, library: tuple[str, ...] = ("-s",)) -> Path:
    """Compile live_paths with its library."""
    between = build("live_between.c", "-shared", "-fPIC", *library, name="live_between.so")
    return build("live_paths.cpp", str(between), f"-Wl,-rpath,{between.parent}", *flags)


@pytest.mark.parametrize(("kind", "symbols"), [
    pytest.param("-pie", ("-s",), id="pie-stripped"), pytest.param("-no-pie", (), id="no_pie-symbols"),
    *([pytest.param("-pie", (), id="pie-symbols"), pytest.param("-no-pie", ("-s",), id="no_pie-stripped")] if LONG else []),
])
def test_every_address_is_the_one_that_gdb_finds(
    build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path, kind: str, symbols: tuple[str, ...]
) -> None:
    """Optimized C++ without frame pointers, through a stripped library: the same return addresses as in gdb, all."""
    if shutil.which("gdb") is None:
        pytest.skip("needs gdb")
    program = build_paths(build, kind, "-fPIE" if kind == "-pie" else "-fno-pie", *symbols)
    expected = of_gdb(program, tmp_path)
    # As gdb runs it: without randomized addresses, so that they can be compared as they are.
    running = run_program("setarch", "-R", program)
    trace = leaktrace.attach(running)
    truth = running.work()
    report = trace.stop().report
    sites = by_size(report)
    found = {each["bytes"]: addresses(sites[each["bytes"]]) for each in truth}
    assert found == {each["bytes"]: expected[each["bytes"]] for each in truth}
    assert report["losses"] == {}
    if not symbols:
        assert all(each["function"] in functions(sites[each["bytes"]]) for each in truth)


def own(one: dict[str, Any], program: Path) -> list[str]:
    """Return the functions of a site that are the program's own, without those of whoever starts it or its threads."""
    mine = [frame for frame in one["frames"] if frame["module"] in (str(program), None) or
            frame["module"].endswith("live_between.so")]
    return [frame["function"] for frame in mine if frame["function"] != "_start"]


def test_frame_pointers_lead_through_the_same_functions(
    build: Build, run_program: Any, leaktrace: Starter
) -> None:
    """--unwind fp of a program that keeps frame pointers names the same functions as unwinding without them."""
    flags = ("-fno-omit-frame-pointer", "-mno-omit-leaf-frame-pointer")
    program = build_paths(build, *flags, library=flags)
    running = run_program(program)
    by_rules, by_pointers = leaktrace.attach(running), leaktrace.attach(running, "--unwind", "fp")
    truth = running.work()
    sites, pointed = by_size(by_rules.stop().report), by_size(by_pointers.stop().report)
    for each in truth:
        names = own(sites[each["bytes"]], program)
        assert any(name.startswith(each["function"]) for name in names)
        assert names[-1] in ("main", "by_thread(void*)")
        assert own(pointed[each["bytes"]], program) == names


def test_a_depth_of_five_keeps_the_innermost_five(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """--depth 5 keeps the five innermost addresses of a deeper stack, and the stack says that it goes on."""
    running = run_program(build_paths(build))
    whole, cut = leaktrace.attach(running), leaktrace.attach(running, "--depth", "5")
    truth = running.work()
    sites, short = by_size(whole.stop().report), by_size(cut.stop().report)
    for each in truth:
        full = addresses(sites[each["bytes"]])
        kept = short[each["bytes"]]
        assert addresses(kept) == full[:5]
        stopped = [frame["why"] for frame in kept["frames"]].count("unwind_stopped")
        assert stopped == (1 if len(full) > 5 else 0)
        assert (kept["frames"][-1]["why"] == "unwind_stopped") == (len(full) > 5)
    assert len(addresses(sites[truth[0]["bytes"]])) > 5


def is_whole(one: dict[str, Any]) -> bool:
    """Whether a stack was followed to its end."""
    return bool(one["frames"][-1]["why"] != "unwind_stopped")


def test_interrupted_functions_are_on_the_stack(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """A block from a signal handler, on any stack, shows who was interrupted, also at a function's first byte.

    A first time on another stack may be cut, as no copy holds both stacks; that is counted, and no later one is.
    """
    running = run_program(build("live_signals.c"))
    trace = leaktrace.attach(running, interval="0.3")
    running.work()
    # The first of them may have been under way during the step.
    trace.next_report()
    cut = trace.next_report()
    truth = running.work()
    report = trace.stop().report
    for each in truth:
        sites = [one for one in report["sites"] if one["bytes"] == one["count"] * each["bytes"]]
        assert sum(one["count"] for one in sites) == 2
        whole = [functions(one) for one in sites if is_whole(one)]
        assert whole and (len(whole) == len(sites) or each["frames"][-1] == "on_other_stack")
        for names in whole:
            assert names[:2] == ["in_handler", "handle"] and names[-1] == "_start", names
            assert [name for name in names if name in each["frames"]] == each["frames"], names
            assert "before_fault" not in names
    short = sum(one["count"] for one in report["sites"] if not is_whole(one))
    assert report["losses"] == cut["losses"] == ({"stack_no_copy": short} if short else {})


def entry_point(path: str) -> int:
    """Return an executable's entry point as its header has it."""
    return int.from_bytes(Path(path).read_bytes()[24:32], "little")


def ends_at_a_start(one: dict[str, Any]) -> bool:
    """Whether the outermost frame is where a program or a thread begins, in the program's file or the C library."""
    last = one["frames"][-1]
    if last["function"] in ("_start", "clone3", "clone", "start_thread"):
        return True
    # Stripped: the call in _start follows soon behind the entry point. Pages are what a file is mapped by.
    distance = int(last["address"], 16) - entry_point(last["module"]) if last["module"] else -1
    return 0 < distance % 4096 < 64 and any(name == "__libc_start_main" for name in functions(one))


INTERPRETERS = [
    pytest.param(["/usr/bin/perl", "-e", "$| = 1; use strict; my %kept; $kept{$_} = [1 .. $_] for 1 .. 300;"
                  " my $sorted = join ',', sort { $a <=> $b } keys %kept; eval 'sub f { $_[0] ? f($_[0] - 1) : [1] }"
                  " push @main::all, f(20)'; print qq(ready\\n); <STDIN>; print qq(end\\n); <STDIN>;"], id="perl"),
    pytest.param(["/usr/bin/python3", "-S", "-c", "import json, re, collections\n"
                  "kept = [re.compile('a+' + str(i)) for i in range(20)]\n"
                  "more = sorted([json.loads('[1, {}]') for i in range(99)], key=lambda one: str(one))\n"
                  "print('ready', flush=True); input(); print('end', flush=True); input()"], id="python"),
]


@pytest.mark.alone
@pytest.mark.parametrize("words", INTERPRETERS)
def test_interpreters_have_whole_stacks(
    leaktrace: Starter, monkeypatch: pytest.MonkeyPatch, words: list[str]
) -> None:
    """The stacks of a distribution's stripped perl and python3, from their first instruction on, reach their start.

    While such a program starts, all its paths are new at once and the ring buffer may be full: up to 1% of the
    allocations may have a short stack for that, and every one of these is counted.
    """
    if not Path(words[0]).exists():
        pytest.skip(f"needs {words[0]}")
    monkeypatch.setenv("PYTHONMALLOC", "malloc")
    trace, program = leaktrace.command(words, "--depth", "127")
    # What it needs to read its first line is allocated now, and not while the report is made.
    program.work()
    report = trace.stop().report
    assert len(report["sites"]) > 50
    short = report["losses"].pop("stack_no_copy", 0)
    assert report["losses"] == {} and short <= report["totals"]["allocated_count"] / 100
    stopped = [each for each in report["sites"] if any(frame["why"] == "unwind_stopped" for frame in each["frames"])]
    assert len(stopped) <= short
    whole = [each for each in report["sites"] if each not in stopped]
    assert [each["frames"][-3:] for each in whole if not ends_at_a_start(each)] == []


def line_of(mark: str) -> int:
    """Return the number of the line of live_names.cpp that bears a mark."""
    lines = (PROGRAMS / "live_names.cpp").read_text().splitlines()
    return next(number for number, line in enumerate(lines, 1) if f"/* line: {mark} */" in line)


def test_names_are_those_that_were_written(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """C++ and both of Rust's manglings are undone, and no hash of the compiler is left in a name."""
    running = run_program(build("live_names.cpp"))
    trace = leaktrace.attach(running)
    truth = running.work()
    sites = by_size(trace.stop().report)
    found = [sites[each["bytes"]]["frames"][0]["function"] for each in truth]
    assert [re.sub(r"\[[0-9a-f]+\]", "", name) for name in found] == [each["name"] for each in truth]


def test_inlined_calls_have_frames_and_lines(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """Calls that the optimizer took apart are told, each with the line of its call, innermost first."""
    running = run_program(build("live_names.cpp"))
    trace = leaktrace.attach(running)
    running.work()
    frames = by_size(trace.stop().report)[2004]["frames"][:3]
    assert [frame["function"].partition("(")[0] for frame in frames] == ["innermost", "between", "outermost"]
    assert [frame["inlined"] for frame in frames] == [True, True, False]
    assert [frame["line"] for frame in frames] == [line_of("innermost"), line_of("between"), line_of("outermost")]
    assert {frame["file"].rpartition("/")[2] for frame in frames} == {"live_names.cpp"}
    assert len({frame["address"] for frame in frames}) == 1


def test_names_outlive_the_program_and_its_file(
    build: Build, run_program: Any, leaktrace: Starter, tmp_path: Path
) -> None:
    """A program that has ended, and whose file was deleted, is named all the same, with files and lines."""
    program = shutil.copy2(build("live_names.cpp"), tmp_path / "short_lived")
    running = run_program(program)
    trace = leaktrace.attach(running)
    Path(program).unlink()
    truth = running.work()
    assert running.finish() == 0
    sites = by_size(trace.wait().report)
    for each in truth:
        frames = sites[each["bytes"]]["frames"]
        assert frames[-1]["function"] == "_start" and frames[0]["line"], frames
        assert all(frame["why"] in (None, "not_covered") for frame in frames)


def test_unusual_frames_are_passed(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """A realigned stack pointer with alloca(), and an array of variable length, hide none of the callers."""
    running = run_program(build_paths(build))
    trace = leaktrace.attach(running)
    running.work()
    report = trace.stop().report
    for name in ("by_realigned_frame", "by_variable_array"):
        (only,) = site(report, name).sites
        names = functions(only)
        assert names[:4] == ["hold", name, "work", "main"] and names[-1] == "_start", names
