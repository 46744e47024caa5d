"""Tracing programs that hold many blocks or have many sites: how long reports take, and how much memory it needs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Child, Failure
from benchmarks.measure import Places
from benchmarks.tools import LEAKTRACE_ATTACHED

REPORTS = 4
INTERVAL_S = 2
ATTACH_TIMEOUT_S = 30.0
FILL_TIMEOUT_S = 120.0
REPORT_TIMEOUT_S = 60.0
MEMLEAK = "/usr/sbin/memleak-bpfcc"
TOOK = r"report took (?P<total>[0-9.]+) s"
PART = r"(?P<name>\w+) (?P<seconds>[0-9.]+) s"


@dataclass(frozen=True, slots=True)
class ReportTime:
    """The seconds that one report took, as leaktrace tells them."""

    total: float
    symbols: float


@dataclass(frozen=True, slots=True)
class Held:
    """A tracer's memory in MB (10^6 bytes): its own, and that of its BPF maps."""

    rss_mb: float
    maps_mb: float


@contextmanager
def traced(places: Places, program: str, size: int, command: Sequence[str], attached: str) -> Iterator[Child]:
    """Start a program, attach a tracer, let the program fill its memory; yields the tracer when it is full."""
    with Child([str(places.scratch / program), str(size)], stdin=True) as target:
        target.wait_for("^ready", 10)
        with Child([word.format(pid=target.pid) for word in command]) as tracer:
            tracer.wait_for(attached, ATTACH_TIMEOUT_S)
            time.sleep(1.0)  # memleak says "Attaching" before it attaches
            target.say("go")
            target.wait_for("^held", FILL_TIMEOUT_S)
            yield tracer


def report_times(places: Places, program: str, size: int, options: Sequence[str]) -> list[ReportTime]:
    """Return the times of REPORTS reports of leaktrace that began after the program had filled its memory."""
    command = [str(places.leaktrace), "-p", "{pid}", "-v", *options, "-d", "120", str(INTERVAL_S)]
    with traced(places, program, size, command, LEAKTRACE_ATTACHED) as tracer:
        # A report that began before the memory was full ends within this.
        after = time.monotonic() + 0.5
        times: list[ReportTime] = []
        while len(times) < REPORTS:
            when, match = tracer.wait_for(TOOK, REPORT_TIMEOUT_S, after)
            times.append(parse_report_time(match.string))
            after = when + 1e-6
    return times


def parse_report_time(line: str) -> ReportTime:
    """Read `report took 0.123 s (drain 0.1 s, symbols 0.0 s)`."""
    total = re.search(TOOK, line)
    if not total:
        raise Failure(f"not a report's time: {line}")
    parts = {part["name"]: float(part["seconds"]) for part in re.finditer(PART, line)}
    return ReportTime(float(total["total"]), parts.get("symbols", 0.0))


def memleak_report(places: Places, blocks: int) -> float:
    """Return the seconds between memleak's report header and the end of that report."""
    command = [MEMLEAK, "-p", "{pid}", "-o", "1", "5"]
    with traced(places, "hold", blocks, command, "Attaching to pid") as tracer:
        full = time.monotonic()
        began, _ = tracer.wait_for("stacks with outstanding", REPORT_TIMEOUT_S, full)
        tracer.wait_for(r"\d+ bytes in \d+ allocations", REPORT_TIMEOUT_S, began)
        time.sleep(1.0)
        following = tracer.find("stacks with outstanding", began + 1e-6)
        end = following[0] if following else float("inf")
        return max(when for when, line in list(tracer.lines) if line.startswith("\t") and when < end) - began


def memory(places: Places, tool: str, blocks: int) -> Held:
    """Return a tracer's memory with so many blocks outstanding, after it has reported them at least once."""
    commands = {
        "leaktrace": ([str(places.leaktrace), "-p", "{pid}", "-v", "-o", "1", "-d", "120", "3"], LEAKTRACE_ATTACHED),
        "memleak": ([MEMLEAK, "-p", "{pid}", "-o", "1", "5"], "Attaching to pid"),
    }
    reported = {"leaktrace": TOOK, "memleak": r"\d+ bytes in \d+ allocations"}
    command, attached = commands[tool]
    with traced(places, "hold", blocks, command, attached) as tracer:
        tracer.wait_for(reported[tool], REPORT_TIMEOUT_S, time.monotonic() + 0.5)
        return Held(_rss_bytes(tracer.pid) / 1e6, map_bytes(tracer.pid) / 1e6)


def _rss_bytes(pid: int) -> int:
    match = re.search(r"^VmRSS:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    if not match:
        raise Failure(f"process {pid} has no VmRSS")
    return int(match[1]) * 1024


def map_bytes(pid: int) -> int:
    """Return the memory of a process's BPF maps: `memlock` in fdinfo, each map counted once (see proc(5))."""
    sizes: dict[str, int] = {}
    for entry in Path(f"/proc/{pid}/fdinfo").iterdir():
        try:
            text = entry.read_text()
        except OSError:
            continue  # closed since
        identity = re.search(r"^map_id:\s+(\d+)$", text, re.MULTILINE)
        memlock = re.search(r"^memlock:\s+(\d+)$", text, re.MULTILINE)
        if identity and memlock:
            sizes[identity[1]] = int(memlock[1])
    return sum(sizes.values())
