"""A difference as folded stacks with two values, before and after: what flamegraph.pl --negate and its like read."""

from __future__ import annotations

from typing import TextIO

from tracer.report.diff_model import Difference
from tracer.report.folded import fold


def write(made: Difference, top: int | None, out: TextIO) -> None:
    """Write a line for each stack with its bytes before and after, as difffolded.pl does; whole, or with 3 decimals."""
    stacks: dict[str, tuple[float, float]] = {}
    for row in made.rows[:top]:
        stack = fold(row.finding.frames)
        was, now = stacks.get(stack, (0, 0))
        stacks[stack] = was + row.before.bytes, now + row.after.bytes
    out.writelines(f"{stack} {_value(was)} {_value(now)}\n" for stack, (was, now) in stacks.items())
    out.flush()


def _value(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.3f}"
