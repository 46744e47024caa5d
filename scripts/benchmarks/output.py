"""The result, as tables for a terminal and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from benchmarks import machine as machine_facts
from benchmarks.comparison import Comparison, Row
from benchmarks.figures import Figure

HEADINGS = ("tool", "rate", "slowdown", "added ns/pair", "x memleak", "x bare traps", "")


def as_json(
    machine: Mapping[str, object], comparisons: Sequence[Comparison], figures: Sequence[Figure]
) -> dict[str, object]:
    """Return everything, ready for json.dump."""
    return {
        "machine": machine,
        "workloads": [asdict(one) for one in comparisons],
        "figures": [{**asdict(one), "reached": one.reached} for one in figures],
    }


def as_text(machine: Mapping[str, object], comparisons: Sequence[Comparison], figures: Sequence[Figure]) -> str:
    """Return everything for a person to read."""
    parts = ["machine", machine_facts.text(machine)]
    for one in comparisons:
        pairs = f", {one.pairs_per_operation:.4g} malloc/free pairs each" if one.pairs_per_operation else ""
        parts += ["", f"{one.name} ({one.unit}{pairs})", _table([HEADINGS, *map(_cells, one.rows)])]
    if figures:
        headings = ("figure", "value", "limit", "reached", "")
        parts += ["", "figures", _table([headings, *map(_figure_cells, figures)])]
    return "\n".join(parts)


def _cells(row: Row) -> tuple[str, ...]:
    return (
        row.tool,
        _number(row.rate, ",.0f" if (row.rate or 0) >= 100 else ".3g"),
        _number(row.slowdown, ".4g"),
        _number(row.added_ns_per_pair, ",.0f"),
        _number(row.vs_memleak, ".3f"),
        _number(row.vs_bare_traps, ".2f"),
        "; ".join(text for text in (row.note, row.why) if text),
    )


def _figure_cells(figure: Figure) -> tuple[str, ...]:
    limit = "" if figure.limit is None else f"<= {figure.limit:g} {figure.unit}"
    reached = "" if figure.limit is None else ("yes" if figure.reached else "no")
    value = "-" if figure.value is None else f"{figure.value:.3f} {figure.unit}"
    return figure.what, value, limit, reached, figure.why


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _table(rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns; the first and the last column start left, numbers end right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    last = len(widths) - 1
    lines = []
    for row in rows:
        cells = (
            cell if i == last else cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)
