"""A difference as plain text: what was compared and what to beware of, the sites that changed, and the sums."""

from __future__ import annotations

from collections.abc import Iterator
from math import isinf
from typing import TextIO

from tracer.report import kernel_lines
from tracer.report.diff_model import Difference, Held, Row, Side, State, percent
from tracer.report.text import describe

#: The first word of a site's line.
_WORDS = {State.NEW: "new", State.GROWTH: "grew", State.SHRINKAGE: "shrank", State.GONE: "gone", State.SAME: "same"}


def write(made: Difference, top: int | None, out: TextIO) -> None:
    """Write a difference with the first top sites that changed, None: all."""
    out.writelines(f"{line}\n" for line in lines(made, top))
    out.flush()


def lines(made: Difference, top: int | None) -> Iterator[str]:
    """Yield the lines of a difference."""
    yield f"before: {describe_side(made.before)}"
    yield f"after:  {describe_side(made.after)}"
    if made.per is not None:
        yield (f"figures are per {made.per.name}: {number(made.per.before)} before, {number(made.per.after)} after")
    for warned in made.warnings:
        yield f"WARNING: {warned.text}."
    changed = [row for row in made.rows if row.state is not State.SAME]
    shown = changed[:top]
    yield f"Top {len(shown)} of {len(changed)} call sites that changed:" if changed else "No call site changed."
    for row in shown:
        yield f"\t{_site(made, row)}"
        about = kernel_lines.describe(row.finding)
        if about is not None:
            yield f"\t\t{about}"
        yield from (f"\t\t{describe(frame)}" for frame in row.finding.frames)
    yield f"Sites: {sites(made)}."
    yield f"In total: {change(made, made.total_before, made.total_after)}{_reach(made.total_error)}."
    judgement = made.judgement
    if judgement is not None and judgement.conclusion:
        yield from (f"over budget in total: {text}" for text in judgement.totals)
        yield judgement.conclusion


def describe_side(side: Side) -> str:
    """Return a file, what it is of, how long that took and when it ended."""
    targets = [f"{target.comm} ({target.pid})" for target in side.report.targets]
    whose = ", ".join(targets[:3]) + (f" and {len(targets) - 3} more" if len(targets) > 3 else "") or "the kernel"
    estimates = f", estimates from {side.report.sampling}" if side.report.sampling else ""
    return f"{side.source}: {whose}, {side.report.elapsed_s:.1f} s, {side.report.taken:%Y-%m-%d %H:%M:%S}{estimates}"


def name_of_file(path: str) -> str:
    """Return the name of a file without its folder."""
    return path.rpartition("/")[2]


def sites(made: Difference) -> str:
    """Return how many sites are in each state."""
    return ", ".join(f"{len(made.of(state))} {_WORDS[state]}" for state in _WORDS)


def change(made: Difference, was: Held, now: Held) -> str:
    """Return the change from one to the other in words."""
    grown = percent(was.bytes, now.bytes)
    share = "" if isinf(grown) else f" ({grown:+.0f}%)"
    return (f"{signed(now.bytes - was.bytes)} {made.unit}{share}: {number(was.bytes)} -> {number(now.bytes)} bytes in "
            f"{number(was.count)} -> {number(now.count)} allocations ({signed(now.count - was.count)})")


def number(value: float) -> str:
    """Return a whole number as it is, another one with as many digits as say something."""
    if isinstance(value, int) or value == int(value):
        return str(int(value))
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.3g}"


def signed(value: float) -> str:
    """Return a change with its sign; none has one as well."""
    return number(value) if value < 0 else f"+{number(value)}"


def _site(made: Difference, row: Row) -> str:
    said = f"{_WORDS[row.state]} {change(made, row.before, row.after)}"
    return said + "".join(f"; {remark}" for remark in _remarks(made, row))


def _remarks(made: Difference, row: Row) -> Iterator[str]:
    if row.error:
        yield f"±{_error(row.error)}" + ("" if row.significant else ", NO MORE THAN CHANCE")
    was, now = row.before.verdict, row.after.verdict
    if was or now:
        yield f"verdict {now or was}" if was == now or not was or not now else f"verdict {was} -> {now}"
    if max(row.before.sites, row.after.sites) > 1:
        yield f"{row.before.sites} -> {row.after.sites} stacks of these names"
    if made.judgement is not None and row.rank in made.judgement.failed:
        yield f"OVER BUDGET {made.judgement.failed[row.rank]}"


def _reach(error: float) -> str:
    return f"; ±{_error(error)}" if error else ""


def _error(error: float) -> str:
    return number(round(error) if error >= 100 else error)
