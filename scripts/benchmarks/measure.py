"""One measurement: a workload's steady rate under one tool; and how many pairs an operation makes."""

from __future__ import annotations

import shutil
import statistics
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Child, Failure
from benchmarks.tools import Tool, write_bpftrace_script
from benchmarks.workloads import Running, Workload, first_sample

SETTLE_S = 2.0
MEASURE_S = 3.0
# Under memcheck some operations take longer than the interval, so the window grows until it holds two samples.
PATIENCE_S = 20.0
FIRST_RATE_TIMEOUT_S = 60.0
MEMLEAK_REPORT_TIMEOUT_S = 25.0


@dataclass(frozen=True, slots=True)
class Places:
    """Where things are: the compiled programs and other scratch, and the leaktrace under test."""

    scratch: Path
    leaktrace: Path


@dataclass(frozen=True, slots=True)
class Measurement:
    """A steady rate in operations a second, or the reason why there is none; `note` is what the tool found."""

    rate: float | None
    why: str = ""
    note: str = ""


def measure(workload: Workload, tool: Tool, places: Places) -> Measurement:
    """Run a workload under a tool and return its steady rate; never raises Failure."""
    try:
        return _measure(workload, tool, places)
    except (Failure, OSError) as failure:
        return Measurement(None, why=str(failure))


def _measure(workload: Workload, tool: Tool, places: Places) -> Measurement:
    allocator = workload.allocator_path(places.scratch)
    values = {"leaktrace": str(places.leaktrace), "scratch": str(places.scratch), "allocator": str(allocator)}
    env = dict(workload.env)
    if tool.private_libraries:
        private = private_copy(allocator, places.scratch)
        env["LD_LIBRARY_PATH"] = str(private.parent)
        values["script"] = str(write_bpftrace_script(places.scratch, private))
    prefix = tool.arguments(values) if tool.wraps else []
    with ExitStack() as stack:
        running = workload.start(places.scratch, prefix, env)
        if tool.leaves:
            stack.callback(Path(tool.leaves.format(pid=running.pid)).unlink, missing_ok=True)
        stack.enter_context(running)
        began = first_sample(running, FIRST_RATE_TIMEOUT_S)
        if tool.wraps or not tool.command:
            return Measurement(steady_rate(running, began, None))
        tracer = stack.enter_context(Child(tool.arguments({**values, "pid": str(running.pid)}), _tool_env()))
        attached, _ = tracer.wait_for(tool.attached, tool.attach_timeout_s)
        rate = steady_rate(running, attached, tracer)
        note = _what_it_found(tracer, tool) if workload.holds_blocks and tool.report else ""
        return Measurement(rate, note=note)


def _tool_env() -> dict[str, str]:
    # bpftrace's maps hold 4096 keys unless told; memleak's hold this many.
    return {"BPFTRACE_MAP_KEYS_MAX": "1000000"}


def steady_rate(running: Running, began: float, tracer: Child | None) -> float:
    """Return the median rate of the intervals that lie within MEASURE_S after SETTLE_S after `began`."""
    begin, end = began + SETTLE_S, began + SETTLE_S + MEASURE_S
    give_up = end + PATIENCE_S
    while True:
        running.check()
        if tracer:
            tracer.check()
        now = time.monotonic()
        rates = [rate for when, rate in running.samples() if when > begin + 0.1]
        if now >= end and len(rates) >= 2:
            return statistics.median(rates)
        if now >= give_up:
            raise Failure(f"fewer than two rates in {give_up - begin:.0f} s")
        time.sleep(0.05)


def _what_it_found(tracer: Child, tool: Tool) -> str:
    header, _ = tracer.wait_for(tool.report, MEMLEAK_REPORT_TIMEOUT_S)
    try:
        tracer.wait_for(tool.finding, 2.0, after=header)
    except Failure:
        return "finds nothing"
    return ""


def private_copy(library: Path, scratch: Path) -> Path:
    """Copy a library into a folder for LD_LIBRARY_PATH, under the name that programs ask for; return the copy."""
    folder = scratch / "private"
    folder.mkdir(exist_ok=True)
    copy = folder / library.name
    if not copy.exists():
        shutil.copy2(library, copy)
    return copy


def pairs_per_operation(workload: Workload, places: Places) -> float:
    """Count a workload's malloc calls with a preloaded counter; return how many there are to one operation."""
    counter = places.scratch / "count"
    counter.write_bytes(bytes(8))
    env = {**workload.env, "LD_PRELOAD": str(places.scratch / "count.so"), "BENCH_COUNT_FILE": str(counter)}
    with workload.start(places.scratch, [], env) as running:
        first_sample(running, FIRST_RATE_TIMEOUT_S)
        before, count = time.monotonic(), _count(counter)
        time.sleep(SETTLE_S)
        now, total = time.monotonic(), _count(counter)
        running.check()
        rates = [rate for when, rate in running.samples() if when > before]
    if not rates:
        raise Failure("the workload told no rate while its blocks were counted")
    return (total - count) / (now - before) / statistics.fmean(rates)


def _count(counter: Path) -> int:
    return int.from_bytes(counter.read_bytes()[:8], "little")
