"""The sites of a report as a table for a terminal: aligned numbers, their units below each other."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from tracer.report import wording
from tracer.report.model import Finding
from tracer.report.terminal_look import Look
from tracer.report.terminal_names import cut, middle
from tracer.report.terminal_page import HEADING, QUIET, STRONG, VERDICTS, safe
from tracer.report.text import where

#: From this width on there is a column for the place in the source, of at most so many columns.
_WIDE, _PLACE = 100, 36
#: Columns between two columns, and those that a function's name has at least.
_BETWEEN, _LEAST_NAME = 2, 12
#: Columns of numbers alone, and those of numbers with a unit.
_NUMBERS, _AMOUNTS = ("#", "blocks", "±"), ("held", "growth")
#: A growth of fewer bytes a second is none.
_LEAST_GROWTH = 0.5


def amount(size: float, exact: bool, *, signed: bool = False) -> str:
    """Return bytes with their unit."""
    sign = "+" if signed and size >= 0 else ""
    return f"{sign}{size:,.0f} bytes" if exact else f"{sign}{wording.size(size)}"


def sites(findings: Sequence[Finding], look: Look, *, several: bool) -> Table:
    """Return a table with a row for each site; several: it says which process holds it."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, _BETWEEN // 2), pad_edge=False,
                  show_edge=False, header_style=HEADING)
    columns: list[tuple[str, list[str]]] = [("#", [str(each.rank) for each in findings])]
    columns += [("verdict", [verdict(each) for each in findings])] * any(each.verdict for each in findings)
    columns += [("held", _aligned([amount(each.bytes, look.exact) for each in findings])),
                ("blocks", [f"{each.count:,}" for each in findings])]
    growth = [_growth(each, look.exact) for each in findings]
    columns += [("growth", _aligned(growth))] * any(growth)
    columns += [("±", [f"{each.error:.0%}" if each.error else "" for each in findings])] * any(
        each.error for each in findings)
    columns += [("process", [where(each) for each in findings])] * several
    places = [_place(each) for each in findings] if look.width >= _WIDE else []
    used = sum(_width(*column) + _BETWEEN + 1 for column in columns)
    if any(places):
        used += _width("at", places) + _BETWEEN + 1
    room = max(_LEAST_NAME, look.width - used)
    columns += [("function", [cut(function(each), room) for each in findings])]
    columns += [("at", places)] * any(places)
    for name, _ in columns:
        # What is padded already must not be padded again: it would lose its spaces.
        right = name in _NUMBERS
        table.add_column(Text(name, justify="right" if right or name in _AMOUNTS else "left"), no_wrap=True,
                         overflow="ellipsis", justify="right" if right else "left")
    for row, finding in enumerate(findings):
        table.add_row(*(Text(cells[row], _style(name, finding)) for name, cells in columns))
    return table


def verdict(finding: Finding) -> str:
    """Return a verdict, and how sure it is where it is not."""
    doubt = finding.confidence not in (None, "high") and finding.verdict != "undecided"
    return f"{finding.verdict or ''}{f' ({finding.confidence})' if doubt else ''}"


def function(finding: Finding) -> str:
    """Return what a reader knows a site by: a function, else a file."""
    if found := wording.known_by(finding.frames):
        return safe(found)
    module = finding.frames[0].module if finding.frames else None
    return safe(module.rpartition("/")[2]) if module else "no name"


def _style(column: str, finding: Finding) -> str:
    if column == "verdict":
        return VERDICTS.get(finding.verdict or "", "")
    return {"#": QUIET, "held": STRONG, "function": STRONG if finding.verdict in ("lost", "growing") else "",
            "at": "cyan"}.get(column, "")


def _growth(finding: Finding, exact: bool) -> str:
    loses = finding.verdict in ("lost", "growing") and finding.slope is not None
    slope = finding.slope[0] if loses and finding.slope is not None else 0.0
    return f"{amount(slope, exact, signed=True)}/s" if abs(slope) >= _LEAST_GROWTH else ""


def _place(finding: Finding) -> str:
    name = wording.known_by(finding.frames)
    frame = next((each for each in finding.frames if each.function == name), None) if name else None
    if frame is None or frame.file is None:
        return ""
    file = safe(frame.file.rpartition("/")[2])
    return middle(f"{file}:{frame.line}" if frame.line else file, _PLACE)


def _aligned(texts: Sequence[str]) -> list[str]:
    """Return numbers with their units so padded that numbers end, and units begin, below each other."""
    pieces = [text.partition(" ") for text in texts]
    numbers, units = (max((len(piece[at]) for piece in pieces), default=0) for at in (0, 2))
    return [f"{number:>{numbers}} {unit:<{units}}" if number else "" for number, _, unit in pieces]


def _width(name: str, cells: Sequence[str]) -> int:
    return max(len(name), *(len(cell) for cell in cells), 0)
