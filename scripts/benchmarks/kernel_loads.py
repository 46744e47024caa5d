"""Loads that have the kernel allocate and free, and the time that a round of each takes under a tool.

Beside a round's time there is its processor time. It is the same on a machine that does nothing else, but where a round
sleeps or runs on two processors; on one that does, it leaves out what others took.
"""

from __future__ import annotations

import math
import re
import statistics
import subprocess
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Child, Failure
from benchmarks.kernel_tools import Tool, others, tracing
from benchmarks.workloads import PrintingProgram, first_sample

SETTLE_S = 1.0
MEASURE_S = 2.0
FIRST_RATE_TIMEOUT_S = 20.0
#: How often a load is measured until nobody else traces meanwhile.
TRIES = 2
#: Seconds that one measurement takes beside those of its load, and that are left between the last one and the report.
AROUND_S = 1.0
REPORT_TIMEOUT_S = 90.0


@dataclass(frozen=True, slots=True)
class Load:
    """One kind of tests/programs/kernel_load.c."""

    kind: str
    round: str

    @property
    def processor(self) -> str:
        """What its processor time is called, as its kind is what its time is called."""
        return f"{self.kind}, processor time"


LOADS = (
    Load("devices", "/dev/null opened and closed, a socketpair made and closed"),
    Load("files", "a file on tmpfs made and removed"),
    Load("processes", "a pipe, a fork and an exec"),
)


@dataclass(frozen=True, slots=True)
class Round:
    """What one run of a tool gave: µs per round by what was measured, or the reason why there is nothing."""

    us: Mapping[str, float]
    why: str = ""


def compile_load(source: Path, scratch: Path) -> Path:
    """Build the load; return the program."""
    program = scratch / source.stem
    done = subprocess.run(["gcc", "-O2", "-o", str(program), str(source)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"gcc could not build {source.name}: {done.stderr.strip()}")
    return program


def measure(tool: Tool, loads: Sequence[Load], program: Path, values: Mapping[str, str],
            beside: Collection[int] = ()) -> Round:
    """Run every load under a tool, which is started once; never raises Failure.

    values: for the tool's command line. beside: processes that trace too, under all tools alike. Where a tool prints
    reports, its first one must name stacks: it was attached.
    """
    why = tool.missing()
    if why:
        return Round({}, why)
    try:
        if not tool.command:
            return Round(_all(loads, program, None, beside))
        with tracing(tool, {**values, "interval": report_after(len(loads))}) as tracer:
            attached = time.monotonic()
            us = _all(loads, program, tracer, beside)
            if tool.finding:
                told, _ = tracer.wait_for(tool.finding, REPORT_TIMEOUT_S)
                if told - attached < (SETTLE_S + MEASURE_S) * len(loads):
                    return Round({}, "its first report came while the loads were measured")
            return Round(us)
    except (Failure, OSError) as failure:
        return Round({}, str(failure))


def report_after(loads: int) -> str:
    """Return when a tool reports, in seconds: once all loads are measured, or its cost would be in the figures."""
    return str(math.ceil((SETTLE_S + MEASURE_S + AROUND_S) * TRIES * loads + AROUND_S))


def _all(loads: Sequence[Load], program: Path, tracer: Child | None, beside: Collection[int]) -> dict[str, float]:
    known = {*beside, tracer.pid} if tracer else beside
    us: dict[str, float] = {}
    for load in loads:
        for left in reversed(range(TRIES)):
            seen = others(known)
            told = round_us(load, program, tracer)
            seen = seen or others(known)
            if not seen:
                us |= told
                break
            if not left:
                raise Failure(f"process {seen[0]} traced the kernel too")
    return us


def round_us(load: Load, program: Path, tracer: Child | None) -> dict[str, float]:
    """Return the median µs of a round, and of its processor time, over the intervals of MEASURE_S after SETTLE_S."""
    with PrintingProgram([str(program), load.kind]) as running:
        begin = first_sample(running, FIRST_RATE_TIMEOUT_S) + SETTLE_S
        time.sleep(max(0.0, begin + MEASURE_S - time.monotonic()))
        running.check()
        if tracer:
            tracer.check()
        rates = [rate for when, rate in running.samples() if when > begin and rate > 0]
        used = processor_us(running, begin)
    if not rates or not used:
        raise Failure(f"the load told no rate in {MEASURE_S:g} s")
    return {load.kind: 1e6 / statistics.median(rates), load.processor: statistics.median(used)}


def processor_us(running: Child, begin: float) -> list[float]:
    """Return the processor time of a round, in µs, of each interval that ended after a time."""
    found = [(when, re.fullmatch(r"processor ([0-9.]+)", line)) for when, line in list(running.lines)]
    return [float(match[1]) for when, match in found if match and when > begin]
