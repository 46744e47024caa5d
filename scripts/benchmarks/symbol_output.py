"""The results as tables, and the figures that they decide on."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.figures import Figure
from benchmarks.symbol_experiments import Result
from benchmarks.symbol_tools import LEAKTRACE, LLVM

HEADINGS = {
    "first name": "first name, s",
    "cold": "fresh process, s",
    "peak": "peak memory, MB",
    "named": "named",
    "second process": "next process, s",
    "again": "the same again, s",
    "files open": "files open before, s",
}
_PLAIN = ("peak", "named")


def figures_of(results: Sequence[Result]) -> list[Figure]:
    """Return what leaktrace promises of the experiments that were made."""
    by_name = {result.name: result for result in results}
    figures = []
    if "libllvm" in by_name:
        figures.append(_figure("first name in libLLVM", by_name["libllvm"], "first name", "s", 0.5))
        figures.append(_figure("peak memory for it", by_name["libllvm"], "peak", "MB", 200))
    if "program" in by_name:
        values = by_name["program"].values
        mine, theirs = values[LEAKTRACE.name].get("cold"), values[LLVM.name].get("cold")
        ratio = mine / theirs if mine and theirs else None
        figures.append(Figure("C++ with DWARF, fresh process, of llvm-symbolizer's", ratio, "x", 1, _why(ratio)))
    if "libraries" in by_name:
        figures.append(_figure("10,000 addresses in 50 open libraries", by_name["libraries"], "files open", "s", 0.2))
    return figures


def _figure(what: str, result: Result, column: str, unit: str, limit: float) -> Figure:
    value = result.values[LEAKTRACE.name].get(column)
    return Figure(what, value, unit, limit, _why(value))


def _why(value: float | None) -> str:
    return "not measured" if value is None else ""


def as_text(result: Result) -> str:
    """Return the experiment as a Markdown table; behind a value stands its ratio to leaktrace's."""
    rows = [("", *(HEADINGS[name] for name in result.columns), "")]
    rows.append(("---",) * len(rows[0]))
    mine = result.values[LEAKTRACE.name]
    for tool, values in result.values.items():
        base = {} if tool == LEAKTRACE.name else {name: mine[name] for name in mine if name not in _PLAIN}
        cells = (cell(values.get(name), base.get(name)) for name in result.columns)
        rows.append((tool, *cells, result.notes.get(tool, "")))
    return "\n".join([result.title, "", *(f"| {' | '.join(row)} |" for row in rows)])


def cell(value: float | None, base: float | None) -> str:
    """Return a value in three digits, with its ratio to the base."""
    if value is None:
        return ""
    digits = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
    return f"{digits} ({value / base:.2g}x)" if base else digits
