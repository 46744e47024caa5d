"""What a trace of the kernel takes by itself: from start to its first report, and while it runs."""

from __future__ import annotations

import os
import re
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from benchmarks.child import Child, Failure
from benchmarks.figures import Figure
from benchmarks.holding import map_bytes
from benchmarks.kernel_tools import FINDING, LEAKTRACE, MEMLEAK, TOOLS, Tool, tracing

START_RUNS = 5
START_TIMEOUT_S = 90.0
#: What a report of either begins with, or near; in so short a time there may be nothing outstanding.
REPORT = r"^slab +[\d,]+|stacks with outstanding allocations"
#: Time for leaktrace's first report, and for rules to be learnt.
SETTLE_S = 6.0
IDLE_S = 60.0
#: Where leaktrace keeps what can be made again.
CACHE = "LEAKTRACE_CACHE"


def measured_alone(leaktrace: str, quick: bool) -> Iterable[Figure]:
    """Measure the figures that need no load, one after another."""
    runs = 2 if quick else START_RUNS
    memleak = next(tool for tool in TOOLS if tool.command[:1] == (MEMLEAK,))
    ours = next(tool for tool in TOOLS if tool.name == LEAKTRACE)
    command = [leaktrace, "kernel", "0.1", "1"]
    reported = ("leaktrace kernel 0.1 1: start to first report", "memleak 1 1: start to first report, less its 1 s")
    yield from _attempt(f"{reported[0]}, cache warm", "s", lambda: _first_report(command, runs))
    yield from _attempt(f"{reported[0]}, cache empty", "s", lambda: _first_report_anew(command, runs))
    if memleak.missing():
        yield Figure(reported[1], None, "s", why=memleak.missing())
    else:
        yield from _attempt(reported[1], "s", lambda: _first_report([MEMLEAK, "1", "1"], runs) - 1)
    for tool in (ours, memleak):
        yield from _while_it_runs(tool, leaktrace, 15.0 if quick else IDLE_S)


def _attempt(what: str, unit: str, value: Callable[[], float]) -> Iterable[Figure]:
    try:
        yield Figure(what, value(), unit)
    except (Failure, OSError) as failure:
        yield Figure(what, None, unit, why=str(failure))


def _first_report(command: Sequence[str], runs: int) -> float:
    """Return the median seconds from a tool's exec to the end of its one report; a run before them warms caches."""
    return statistics.median([report_time(command) for _ in range(runs + 1)][1:])


def _first_report_anew(command: Sequence[str], runs: int) -> float:
    times = []
    for _ in range(runs):
        with TemporaryDirectory(prefix="leaktrace-cache-") as cache:
            times.append(report_time(command, {CACHE: cache}))
    return statistics.median(times)


def report_time(command: Sequence[str], env: Mapping[str, str] | None = None) -> float:
    """Return the seconds from a tool's exec to its last line. Raises Failure if it printed no report."""
    with Child(command, env) as tracer:
        tracer.process.wait(START_TIMEOUT_S)
        # The threads that read may have the last lines still to take.
        time.sleep(0.2)
        if not tracer.find(REPORT):
            raise Failure(f"{tracer.name} printed no report: {tracer.last_words()}")
        return max(when for when, _ in tracer.lines) - tracer.started


def _while_it_runs(tool: Tool, leaktrace: str, seconds: float) -> Iterable[Figure]:
    """Measure a tool's own processor time and memory while nothing but what the machine does by itself is traced."""
    what = f"{tool.name}, by default, for {seconds:.0f} s"
    try:
        if tool.missing():
            raise Failure(tool.missing())
        with tracing(tool, {"leaktrace": leaktrace, "interval": "5"}) as tracer:
            time.sleep(SETTLE_S)
            before, began = processor_s(tracer.pid), time.monotonic()
            time.sleep(seconds)
            used, took = processor_s(tracer.pid) - before, time.monotonic() - began
            tracer.wait_for(FINDING, 1.0)
            rss, maps = rss_bytes(tracer.pid), map_bytes(tracer.pid)
    except (Failure, OSError) as failure:
        yield Figure(f"{what}: its own processor time", None, "%", why=str(failure))
        return
    yield Figure(f"{what}: its own processor time", used / took * 100, "% of a core")
    yield Figure(f"{what}: RSS", rss / 1e6, "MB")
    yield Figure(f"{what}: maps in the kernel", maps / 1e6, "MB")


def processor_s(pid: int) -> float:
    """Return the user and system time of a process so far, in seconds (utime and stime in proc_pid_stat(5))."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Return the resident memory of a process. Raises Failure if it has none."""
    match = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if not match:
        raise Failure(f"process {pid} has no VmRSS")
    return int(match[1]) * 1024
