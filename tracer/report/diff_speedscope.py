"""A difference for speedscope, which has no negative widths: what was gained and what was given back, apart."""

from __future__ import annotations

import json
from typing import TextIO

from tracer.report.diff_model import Difference
from tracer.report.speedscope import profiles_of


def write(made: Difference, top: int | None, out: TextIO) -> None:
    """Write one JSON document: a profile of bytes gained and one of bytes given back, and the same of blocks."""
    rows = made.rows[:top]
    figures = {}
    for unit, what, changes in (("bytes", "bytes", [row.bytes for row in rows]),
                                ("none", "blocks", [row.after.count - row.before.count for row in rows])):
        figures[f"{what} gained"] = unit, changes
        figures[f"{what} given back"] = unit, [-change for change in changes]
    name = f"{made.before.source} -> {made.after.source}"
    json.dump(profiles_of(name, [row.finding for row in rows], figures), out, separators=(",", ":"))
    out.write("\n")
    out.flush()
