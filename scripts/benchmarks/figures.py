"""Figures with a limit: what leaktrace promises, what was measured, and whether it was reached."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmarks.child import Child, Failure
from benchmarks.comparison import BARE, Comparison
from benchmarks.holding import Held, memleak_report, memory, report_times
from benchmarks.measure import Places
from benchmarks.tools import LEAKTRACE_ATTACHED
from benchmarks.workloads import PrintingProgram

START_RUNS = 5
START_TIMEOUT_S = 30.0
HOLD_BLOCKS = 900_000
MEMORY_BLOCKS = 1_000_000
SITES = 10_000


@dataclass(frozen=True, slots=True)
class Figure:
    """One number. `limit` is the most it may be, None for one that is only there to compare with."""

    what: str
    value: float | None
    unit: str
    limit: float | None = None
    why: str = ""

    @property
    def reached(self) -> bool:
        """True if the value was measured and is within the limit; a figure without a limit is reached if measured."""
        return self.value is not None and (self.limit is None or self.value <= self.limit)


def from_comparisons(comparisons: Iterable[Comparison]) -> list[Figure]:
    """Return the figures that come from the malloc loop."""
    loop = next((one for one in comparisons if one.name == "malloc loop"), None)
    if loop is None:
        return []
    rows = (
        ("full tracing: added time, of memleak's", "leaktrace", "memleak", 1 / 4),
        ("full tracing: added time, of the bare traps'", "leaktrace", BARE, 1.5),
        ("sampling 512 KiB: added time, of memleak's", "leaktrace sampled", "memleak", 1 / 8),
    )
    figures = []
    for what, tool, base, limit in rows:
        added, other = loop.added_ns(tool), loop.added_ns(base)
        missing = " and ".join(name for name, value in ((tool, added), (base, other)) if value is None)
        value = added / other if added is not None and other else None
        figures.append(Figure(what, value, "x", limit, why=f"{missing} not measured" if missing else ""))
    return figures


def measured_alone(places: Places, quick: bool) -> Iterable[Figure]:
    """Measure the figures that need no comparison of rates, one after another."""
    runs = 2 if quick else START_RUNS
    yield from _attempt("leaktrace: start to attached", 0.6, "s", lambda: _start(places, "leaktrace", runs))
    yield from _attempt("memleak: start to 'Attaching'", None, "s", lambda: _start(places, "memleak", runs))
    yield from _reports(places, "hold", HOLD_BLOCKS, 0.5)
    yield from _attempt("memleak: report over 900,000 blocks", None, "s", lambda: memleak_report(places, HOLD_BLOCKS))
    yield from _reports(places, "sites", SITES, 0.1)
    yield from _memory(places)


def _attempt(what: str, limit: float | None, unit: str, value: Callable[[], float]) -> Iterable[Figure]:
    try:
        yield Figure(what, value(), unit, limit)
    except (Failure, OSError) as failure:
        yield Figure(what, None, unit, limit, why=str(failure))


def _start(places: Places, tool: str, runs: int) -> float:
    """Return the median seconds from a tool's exec until it says that it traces."""
    commands = {
        "leaktrace": ((str(places.leaktrace), "-p", "{pid}", "-d", "60", "30"), LEAKTRACE_ATTACHED),
        "memleak": (("/usr/sbin/memleak-bpfcc", "-p", "{pid}", "60"), "Attaching to pid"),
    }
    words, attached = commands[tool]
    times = []
    with PrintingProgram([str(places.scratch / "hold"), "1"], stdin=True) as target:
        target.wait_for("^ready", 10)
        for _ in range(runs):
            with Child([word.format(pid=target.pid) for word in words]) as tracer:
                when, _match = tracer.wait_for(attached, START_TIMEOUT_S)
                times.append(when - tracer.started)
    return statistics.median(times)


def _reports(places: Places, program: str, size: int, limit: float) -> Iterable[Figure]:
    """Time leaktrace's own reports: over blocks with -o, or over sites without."""
    old = program == "hold"
    what = "report over 900,000 blocks with -o" if old else "routine report, 10,000 sites, without symbols"
    try:
        took = report_times(places, program, size, ("-o", "1") if old else ())
    except (Failure, OSError) as failure:
        yield Figure(what, None, "s", limit, why=str(failure))
        return
    first, rest = took[0], took[1:]
    yield Figure(f"{what}, first", first.total - (0 if old else first.symbols), "s", limit)
    later = statistics.median(one.total - (0 if old else one.symbols) for one in rest)
    yield Figure(f"{what}, later", later, "s", limit)
    yield Figure(f"{what}: symbols of the first", first.symbols, "s")


def _memory(places: Places) -> Iterable[Figure]:
    """Measure memory, of leaktrace and of memleak, with a million blocks outstanding."""
    for tool, limit in (("leaktrace", 200.0), ("memleak", None)):
        what = f"{tool}: RSS with 1,000,000 blocks"
        try:
            held: Held = memory(places, tool, MEMORY_BLOCKS)
        except (Failure, OSError) as failure:
            yield Figure(what, None, "MB", limit, why=str(failure))
            continue
        yield Figure(what, held.rss_mb, "MB", limit)
        yield Figure(f"{tool}: BPF maps with 1,000,000 blocks", held.maps_mb, "MB")
