"""A differential flame graph: as wide as the larger of before and after, red where it grew and blue where it shrank."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TextIO

from symbolizer.frame import Frame
from tracer.report.diff_model import Difference, Row, percent
from tracer.report.diff_text import name_of_file
from tracer.report.flame_tree import Node, flame_tree
from tracer.report.flamegraph import draw
from tracer.report.model import Finding
from tracer.report.wording import short, size

#: Changes in percent of what the call held before from which on a colour is one step stronger.
STEPS = (0.0, 10.0, 50.0, 200.0)
#: Light enough for dark text; the last is for what is new, or gone.
RED = ("#fbe3e0", "#f7c3bc", "#f19d93", "#ea776b", "#e2564a")
BLUE = ("#e2ecfa", "#c2d7f4", "#9abdee", "#75a5e6", "#5b92df")
SAME = "#e4e4e0"
LEGEND = ((RED[4], "new"), (RED[2], "grew"), (SAME, "same"), (BLUE[2], "shrank"), (BLUE[4], "gone"))


def write(made: Difference, top: int | None, out: TextIO) -> None:
    """Write the graph of the first top sites, None: all, those that are gone included."""
    rows = made.rows[:top]
    findings = _filed(rows, made.files)
    first = rows[0].rank if rows else 1
    was, now = ([getattr(row, side).bytes for row in rows] for side in ("before", "after"))
    tree = flame_tree(findings, lambda each: max(was[each.rank - first], now[each.rank - first]))
    before = flame_tree(findings, lambda each: was[each.rank - first])
    after = flame_tree(findings, lambda each: now[each.rank - first])
    held = {id(node): (one.total, other.total) for node, one, other in _together(tree, before, after)}
    draw(tree, out, lambda node: colour(*held[id(node)]), "Change of live memory", _subtitle(made),
         lambda node: _say(made, node, *held[id(node)]), LEGEND)


def colour(was: float, now: float) -> str:
    """Return the colour of a call that held so many bytes before and holds so many after."""
    if was == now:
        return SAME
    if not was or not now:
        return RED[4] if now else BLUE[4]
    change = percent(was, now)
    # Down from 3 to 1 is as much as up from 1 to 3.
    amount = change if change > 0 else percent(now, was)
    step = sum(1 for least in STEPS if amount > least) - 1
    return (RED if change > 0 else BLUE)[step]


def _filed(rows: Sequence[Row], files: Mapping[str, str]) -> list[Finding]:
    """Return the stacks of rows with the same file by the same path in both traces."""
    # Recordings have each frame once.
    moved: dict[int, Frame] = {}

    def filed(frame: Frame) -> Frame:
        if frame.module is None or frame.module not in files:
            return frame
        if id(frame) not in moved:
            moved[id(frame)] = replace(frame, module=files[frame.module])
        return moved[id(frame)]

    return [replace(row.finding, frames=tuple([filed(frame) for frame in row.finding.frames])) for row in rows]


def _together(*trees: Node) -> Iterator[tuple[Node, ...]]:
    """Yield each call of trees of the same stacks, with itself in the others, whose order is their own."""
    waiting = [trees]
    while waiting:
        nodes = waiting.pop()
        yield nodes
        others = [{(child.name, child.module): child for child in node.children} for node in nodes[1:]]
        waiting += [(child, *(each[child.name, child.module] for each in others)) for child in nodes[0].children]


def _say(made: Difference, node: Node, was: float, now: float) -> str:
    where = f"\n{node.module}" if node.module else ""
    per = f" per {made.per.name}" if made.per else ""
    grown = percent(was, now)
    share = f" ({grown:+.0f}%)" if was else ""
    return f"{node.name}\n{'+' if now >= was else ''}{size(now - was)}{per}{share}: {size(was)} -> {size(now)}{where}"


def _subtitle(made: Difference) -> str:
    held = ((made.before, made.total_before), (made.after, made.total_after))
    said = " -> ".join([f"{short(name_of_file(side.source), 40)} {size(total.bytes)}" for side, total in held])
    if made.per:
        said += f", per {made.per.name}"
    if any(warned.decides for warned in made.warnings):
        said = f"NOT COMPARABLE: {next(warned.text for warned in made.warnings if warned.decides)[:100]}"
    return said
