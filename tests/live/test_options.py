"""The command line of memleak: every option changes what it says, and nothing else; and what the two formats look like."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import LONG, PATIENCE, ROOT, Lines, Starter, functions, site

Build = Callable[..., Path]
WORDS = (sys.executable, "-m", "tracer.cli")
KINDS = ("one_large", "some", "many_small", "grown", "shrunk")


def run_tool(
    *arguments: str, stdin: str | None = None, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run leaktrace to its end as it is, in text format unless told otherwise."""
    source = {"stdin": subprocess.DEVNULL} if stdin is None else {"input": stdin}
    return subprocess.run([*WORDS, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
                          env={**os.environ, **(environment or {})}, **source)


class Tool:
    """A leaktrace that runs as it is: without the format and the number of sites that other tests ask for."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self.process = subprocess.Popen([*WORDS, *arguments], cwd=ROOT, stdin=subprocess.DEVNULL, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout and self.process.stderr
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)

    def wait_attached(self) -> None:
        """Wait until everything that is allocated from now on is seen."""
        self.err.until(lambda line: "attached by" in line)

    def stop(self, number: int = signal.SIGTERM) -> list[str]:
        """Ask for the last report; return all lines of stdout."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> list[str]:
        """Wait for a good end; return all lines of stdout."""
        code = self.process.wait(PATIENCE)
        self.out.rest()
        self.err.rest()
        assert code == 0, "\n".join(self.err.seen)
        return self.out.seen

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


@dataclass(slots=True)
class Tools:
    """Starts leaktraces as they are, and ends them with the test."""

    open: list[Tool] = field(default_factory=list)

    def attach(self, pid: int, *arguments: str) -> Tool:
        tool = Tool(("-p", str(pid), *arguments))
        self.open.append(tool)
        tool.wait_attached()
        return tool


@pytest.fixture
def tools() -> Iterator[Tools]:
    """Return what starts leaktraces with exactly the arguments given."""
    starter = Tools()
    try:
        yield starter
    finally:
        for tool in starter.open:
            tool.close()


def live(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return bytes and blocks of every kind that a report shows."""
    found = {name: site(report, name).live for name in (*KINDS, "freed")}
    return {name: figures for name, figures in found.items() if figures != (0, 0)}


def expected(truth: list[dict[str, Any]], *names: str) -> dict[str, tuple[int, int]]:
    """Return the same of what the program says."""
    return {each["function"]: (each["size"] * each["count"], each["count"]) for each in truth
            if each["function"] in names}


def shown(lines: list[str]) -> list[tuple[int, int]]:
    """Return bytes and blocks of the sites of a text report, in their order."""
    found = [re.fullmatch(r"\t(\d+) bytes in (\d+) allocations from stack(?: \(.*\))?", line) for line in lines]
    return [(int(match[1]), int(match[2])) for match in found if match]


@pytest.mark.parametrize(
    ("arguments", "order"),
    [
        pytest.param((), [(30000, 1), (9000, 1), (5000, 50), (5000, 10), (700, 1)], id="by_size"),
        pytest.param(("--sort", "size", "-T", "2"), [(30000, 1), (9000, 1)], id="top_2"),
        pytest.param(("--sort", "count"), [(5000, 50), (5000, 10), (30000, 1), (9000, 1), (700, 1)], id="by_count"),
        pytest.param(("--sort", "count", "-T", "1"), [(5000, 50)], id="top_1_by_count"),
    ],
)
def test_text_is_in_memleaks_form_and_order(
    build: Build, run_program: Any, tools: Tools, arguments: tuple[str, ...], order: list[tuple[int, int]]
) -> None:
    """Sites come as many as asked for, in the order asked for, in lines that what reads memleak's output can read."""
    program = run_program(build("live_sizes.c"))
    tool = tools.attach(program.pid, *arguments, "3600")
    program.work()
    lines = tool.stop()
    assert shown(lines) == order
    # What leaktrace has to say beyond memleak stands before that line.
    head = next(number for number, line in enumerate(lines) if line.startswith("["))
    assert re.fullmatch(rf"\[\d\d:\d\d:\d\d\] Top {len(order)} stacks with outstanding allocations:", lines[head])
    if order[0] == (30000, 1):
        assert lines[head + 1] == "\t30000 bytes in 1 allocations from stack"
    frames = [line for line in lines if line.startswith("\t\t")]
    assert frames and all(re.match(r"\t\t0x[0-9a-f]{16} ", line) for line in frames)
    kinds = r"(one_large|some|many_small|grown|shrunk)"
    named = [line for line in frames if re.match(rf"\t\t0x[0-9a-f]{{16}} {kinds}\+0x[0-9a-f]+ \[live_sizes\] ", line)]
    assert len(named) == len(order)


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        pytest.param(("-z", "501"), ("one_large", "grown", "shrunk"), id="more_than"),
        pytest.param(("-Z", "499"), ("many_small",), id="less_than"),
        pytest.param(("-z", "8k", "-Z", "10k"), ("grown",), id="units"),
        pytest.param(("-z", "500", "-Z", "500"), ("some",), id="exactly"),
        # Each is a program of its own to compile, and each of these limits is one of those above.
        *([pytest.param(("-z", "500"), ("one_large", "some", "grown", "shrunk"), id="at_least"),
           pytest.param(("-Z", "500"), ("some", "many_small"), id="at_most"),
           pytest.param(("-z", "500", "-Z", "1000"), ("some", "shrunk"), id="between")] if LONG else []),
    ],
)
def test_size_filters_keep_what_is_within(
    build: Build, run_program: Any, leaktrace: Starter, arguments: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """-z and -Z include their limits; a block that realloc takes out of the range is gone, one that it brings is there."""
    program = run_program(build("live_sizes.c"))
    trace = leaktrace.attach(program, *arguments)
    truth = program.work()
    report = trace.stop().report
    assert live(report) == expected(truth, *names)
    assert report["totals"]["live_bytes"] == sum(size for size, _ in expected(truth, *names).values())
    assert report["losses"] == {}


def test_young_blocks_wait_for_their_age(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """-o MS: blocks are counted once they are that old, and until then they are not."""
    program = run_program(build("live_sizes.c"))
    trace = leaktrace.attach(program, "-o", "3000", interval="0.25")
    truth = program.work()
    while not (report := trace.next_report())["sites"]:
        assert report["totals"]["live_bytes"] == 0
    while live(report) != expected(truth, *KINDS):
        report = trace.next_report()
    assert all(each["oldest_s"] >= 3 for each in report["sites"])
    # The same once more: younger than three seconds in a report that is taken at once.
    program.work()
    report = trace.stop().report
    assert live(report) == expected(truth, *KINDS)


@pytest.mark.parametrize(("milliseconds", "seen"), [("0", True), ("86400000", False)])
def test_limits_of_age(
    build: Build, run_program: Any, leaktrace: Starter, milliseconds: str, seen: bool
) -> None:
    """-o 0 counts all blocks, and an age that no block has counts none."""
    program = run_program(build("live_sizes.c"))
    trace = leaktrace.attach(program, "-o", milliseconds)
    truth = program.work()
    report = trace.stop().report
    assert live(report) == (expected(truth, *KINDS) if seen else {})


def test_blocks_are_listed(build: Build, run_program: Any, leaktrace: Starter, tools: Tools) -> None:
    """-a lists the address and size of every block that is held, in JSON and in text, and of no other."""
    program = run_program(build("live_sizes.c"))
    trace, tool = leaktrace.attach(program, "-a"), tools.attach(program.pid, "-a", "3600")
    truth = {each["function"]: each for each in program.work()}
    report = trace.stop().report
    for name in KINDS:
        (only,) = site(report, name).sites
        blocks = sorted((int(block["address"], 16), block["size"]) for block in only["blocks"])
        assert blocks == sorted((int(address, 16), truth[name]["size"]) for address in truth[name]["addresses"])
    lines = [match for line in tool.stop() if (match := re.fullmatch(r"\taddr = ([0-9a-f]+) size = (\d+)", line))]
    assert sorted((int(match[1], 16), int(match[2])) for match in lines) == sorted(
        (int(address, 16), truth[name]["size"]) for name in KINDS for address in truth[name]["addresses"])


def test_events_are_printed_while_they_happen(build: Build, run_program: Any, tools: Tools) -> None:
    """-t prints every allocation and free, with thread, size and address, and does not wait for a report with it."""
    program = run_program(build("live_sizes.c"))
    tool = tools.attach(program.pid, "-t", "3600")
    truth = {each["function"]: each for each in program.work()}
    last = truth["freed"]["addresses"][-1].removeprefix("0x")
    lines = tool.out.until(lambda line: "free entered" in line and f"address = {last}" in line)
    own = rf"\(\d+\.\d+ pid {program.pid} tid {program.pid}\) "
    assert all(re.match(own, line) for line in lines)
    born = [re.fullmatch(own + r"alloc exited, size = (\d+), result = ([0-9a-f]+)", line) for line in lines]
    died = [re.fullmatch(own + r"free entered, address = ([0-9a-f]+), size = (\d+)", line) for line in lines]
    allocated = [(int(match[1]), match[2]) for match in born if match]
    assert allocated[:11] == [(truth[name]["size"], address.removeprefix("0x")) for name in KINDS[:2]
                              for address in truth[name]["addresses"]]
    # The two blocks that realloc replaced, and those of freed().
    assert [int(match[2]) for match in died if match] == [700, 9000, *[300] * 5]
    assert len(allocated) == 1 + 10 + 50 + 2 + 2 + 5


def test_ebpf_prints_the_program() -> None:
    """--ebpf prints the C of the kernel side, and traces nothing."""
    answer = run_tool("--ebpf", "-p", "1")
    assert (answer.returncode, answer.stderr) == (0, "")
    assert "int heap_free(struct pt_regs *ctx)" in answer.stdout


KEYS = {
    "": {"schema", "taken", "elapsed_s", "kernel", "target", "complete", "losses", "totals", "sites"},
    "target": {"pid", "comm", "exe"},
    "totals": {"live_bytes", "live_count", "allocated_bytes", "allocated_count", "freed_count"},
    "sites": {"rank", "source", "bytes", "count", "allocated_bytes", "allocated_count", "freed_count", "oldest_s",
              "growth_bytes_per_s", "verdict", "reachability", "frames"},
    "frames": {"address", "function", "offset", "module", "build_id", "file", "line", "inlined", "why"},
}


def test_json_has_the_schemas_keys(build: Build, run_program: Any, leaktrace: Starter) -> None:
    """Every document of a run is one line of JSON with all keys of schema leaktrace/1, filled with what they mean."""
    path = build("live_sizes.c")
    program = run_program(path)
    trace = leaktrace.attach(program, interval="0.5")
    program.work()
    trace.next_report()
    result = trace.stop()
    assert len(result.reports) > 1
    for report in result.reports:
        assert report["schema"] == "leaktrace/1" and KEYS[""] <= set(report)
        assert KEYS["totals"] <= set(report["totals"])
        assert report["target"].items() >= {"pid": program.pid, "comm": "live_sizes", "exe": str(path), "children": 0,
                                            "parent": None, "ended": False}.items()
        assert report["target"]["totals"].items() <= report["totals"].items()
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?[+-]\d\d:\d\d", report["taken"])
    assert [report["last"] for report in result.reports] == [False] * (len(result.reports) - 1) + [True]
    for rank, each in enumerate(result.report["sites"], 1):
        assert KEYS["sites"] <= set(each) and (each["rank"], each["source"]) == (rank, "heap")
        assert all(KEYS["frames"] <= set(frame) for frame in each["frames"])
        assert functions(each)[-1] == "_start"
        assert {frame["build_id"] for frame in each["frames"] if frame["module"] == str(path)} != {None}
    totals, sites = result.report["totals"], result.report["sites"]
    assert totals["live_bytes"] == sum(each["bytes"] for each in sites)
    assert totals["allocated_count"] - totals["freed_count"] == totals["live_count"]
