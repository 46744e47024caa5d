"""The comparison of gates as a Markdown table and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

from benchmarks.gate_tools import PLAIN, Run
from benchmarks.gate_verdicts import Row, amount, median_s, summary


def as_text(rows: Sequence[Row], tools: Sequence[str]) -> str:
    """Return the table: what is lost, the plain program's time, and each tool's answer and time; then the sums."""
    lines = [("program", "lost at its end", PLAIN, *tools), ("---",) * (len(tools) + 3)]
    for row in rows:
        functions = (row.truth.function,)
        lost = amount(row.truth.bytes, row.truth.blocks, functions)
        lines.append((f"`{row.program.name}`", lost, seconds(median_s(row.plain)), *(_cell(row, one) for one in tools)))
    right = (f"**{sum(row.is_right(tool) for row in rows)} of {len(rows)}**" for tool in tools)
    lines.append(("right", "", "", *right))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(row: Row, tool: str) -> str:
    # How long it took to refuse says nothing.
    judged = [run for run in row.runs[tool] if not run.reading.error]
    return ", ".join(part.replace("|", "\\|") for part in (summary(row, tool), seconds(median_s(judged))) if part)


def seconds(value: float | None) -> str:
    """Return seconds in two digits, from a tenth of a millisecond on."""
    if value is None:
        return ""
    digits = 0 if value >= 9.95 else 1 if value >= 0.995 else 2 if value >= 0.0995 else 3 if value >= 0.00995 else 4
    return f"{value:.{digits}f} s"


def as_json(rows: Sequence[Row]) -> list[dict[str, object]]:
    """Return everything that was measured, ready for json.dump."""
    return [
        {
            "program": row.program.name,
            "truth": asdict(row.truth),
            "plain": [{"seconds": run.seconds, "code": run.code} for run in row.plain],
            "tools": {tool: [_run(row, run) for run in runs] for tool, runs in row.runs.items()},
            "failures": dict(row.failures),
        }
        for row in rows
    ]


def _run(row: Row, run: Run) -> dict[str, object]:
    reading = {**asdict(run.reading), "functions": sorted(run.reading.functions)}
    return {"seconds": run.seconds, "code": run.code, "verdict": row.verdict(run).value, **reading}
