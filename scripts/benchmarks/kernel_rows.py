"""From the times of rounds to rows: slowdown, added time, and what part of memleak's that is."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from benchmarks.kernel_loads import Load, Round
from benchmarks.kernel_tools import UNTRACED

BASE = "memleak"
HEADINGS = ("tool", "µs/round", "least-most", "slowdown", "added µs", "x memleak", "")


@dataclass(frozen=True, slots=True)
class Row:
    """A tool on a load: medians over the runs, and all of them, in µs; None where there is nothing to say.

    What is compared was measured in the same round, so that what changes on the machine from round to round is in no
    ratio.
    """

    tool: str
    us: tuple[float, ...]
    median_us: float | None
    slowdown: float | None
    added_us: float | None
    vs_memleak: float | None
    why: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """All tools at one thing that was measured: the time of a load's round, or its processor time."""

    what: str
    round: str
    rows: tuple[Row, ...]


def compare_all(loads: Sequence[Load], measured: Mapping[str, Sequence[Round]]) -> list[Comparison]:
    """Return what was measured at each load. measured: by tool the rounds, the same ones in the same order."""
    return [Comparison(what, load.round, compare(what, measured)) for load in loads
            for what in (load.kind, load.processor)]


def compare(what: str, measured: Mapping[str, Sequence[Round]]) -> tuple[Row, ...]:
    """Return the rows of one thing that was measured."""
    us = {tool: [one.us.get(what) for one in rounds] for tool, rounds in measured.items()}
    plain = us[UNTRACED]
    added = {tool: _pairs(times, plain, lambda one, other: one - other) for tool, times in us.items()}
    rows = []
    for tool, times in us.items():
        others = () if tool == UNTRACED else _pairs(added[tool], added.get(BASE, []), _part)
        rows.append(Row(
            tool=tool,
            us=tuple(one for one in times if one is not None),
            median_us=_median(times),
            slowdown=_median(_pairs(times, plain, _part)),
            added_us=None if tool == UNTRACED else _median(added[tool]),
            vs_memleak=_median(others),
            why=next((one.why for one in measured[tool] if one.why), ""),
        ))
    return tuple(rows)


def _part(one: float, other: float) -> float | None:
    return one / other if other > 0 else None


def _pairs(ones: Sequence[float | None], others: Sequence[float | None],
           make: Callable[[float, float], float | None]) -> list[float | None]:
    return [None if one is None or other is None else make(one, other)
            for one, other in zip(ones, others, strict=False)]


def _median(values: Sequence[float | None]) -> float | None:
    there = [one for one in values if one is not None]
    return statistics.median(there) if there else None


def cells(row: Row) -> tuple[str, ...]:
    """Return a row for a person to read, one text under each of HEADINGS."""
    spread = f"{min(row.us):,.4g}-{max(row.us):,.4g}" if row.us else "-"
    return (row.tool, _number(row.median_us, ",.4g"), spread, _number(row.slowdown, ".3f"),
            _number(row.added_us, ",.3g"), _number(row.vs_memleak, ".3f"), row.why)


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns; the first and the last column start left, numbers end right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        middle = (cell.rjust(width) for cell, width in zip(row[1:-1], widths[1:-1], strict=True))
        lines.append("  " + "  ".join((row[0].ljust(widths[0]), *middle, row[-1])).rstrip())
    return "\n".join(lines)
