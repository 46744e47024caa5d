"""From rates to rows: slowdown, added time per malloc/free pair, and ratios to memleak and to the bare traps."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.measure import Measurement

UNTRACED = "untraced"
BARE = "bare traps"
MEMLEAKS = ("memleak", "memleak -O jemalloc")


@dataclass(frozen=True, slots=True)
class Row:
    """A tool on a workload: medians over the rounds; None where there is nothing to say."""

    tool: str
    rate: float | None
    rates: tuple[float, ...]
    slowdown: float | None
    added_ns_per_pair: float | None
    vs_memleak: float | None
    vs_bare_traps: float | None
    why: str
    note: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tools on one workload."""

    name: str
    unit: str
    pairs_per_operation: float | None
    rows: tuple[Row, ...]

    def added_ns(self, tool: str) -> float | None:
        """Return a tool's added time per pair, in nanoseconds, or None if it was not measured."""
        return next((row.added_ns_per_pair for row in self.rows if row.tool == tool), None)


def compare(name: str, unit: str, pairs: float | None, measured: Mapping[str, Sequence[Measurement]]) -> Comparison:
    """Return the comparison of one workload's measurements, by tool, in the order given."""
    rates = {tool: tuple(one.rate for one in many if one.rate) for tool, many in measured.items()}
    medians = {tool: statistics.median(some) if some else None for tool, some in rates.items()}
    notes = {tool: next((one.note for one in many if one.note), "") for tool, many in measured.items()}
    # What does not see the blocks adds nothing to them, and is nothing to compare with.
    seeing = {tool: None if notes[tool] else rate for tool, rate in medians.items()}
    added = {tool: _added_ns(medians.get(UNTRACED), rate, pairs) for tool, rate in seeing.items()}
    base = next((added[tool] for tool in MEMLEAKS if added.get(tool)), None)
    rows = tuple(
        Row(
            tool=tool,
            rate=medians[tool],
            rates=rates[tool],
            slowdown=_ratio(medians.get(UNTRACED), medians[tool]),
            added_ns_per_pair=None if tool == UNTRACED else added[tool],
            vs_memleak=None if tool == UNTRACED else _ratio(added[tool], base),
            vs_bare_traps=None if tool == UNTRACED else _ratio(added[tool], added.get(BARE)),
            why=next((one.why for one in many if one.why), ""),
            note=notes[tool],
        )
        for tool, many in measured.items()
    )
    return Comparison(name, unit, pairs, rows)


def _added_ns(untraced: float | None, rate: float | None, pairs: float | None) -> float | None:
    if not (untraced and rate and pairs):
        return None
    return (1 / rate - 1 / untraced) / pairs * 1e9


def _ratio(value: float | None, base: float | None) -> float | None:
    return value / base if value is not None and base is not None and base > 0 else None
