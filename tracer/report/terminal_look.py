"""How text is shown: plain, or laid out for the terminal that it goes to. Imports what lays it out only then."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TextIO

from tracer.report import judged, text
from tracer.report.model import Report

#: What --color may be.
CHOICES = ("auto", "always", "never")
#: Columns: fewer leave no room for a name, and the eye does not find its way back in more.
LEAST, MOST, UNKNOWN = 40, 200, 80

Write = Callable[[Report, TextIO], None]


@dataclass(frozen=True, slots=True)
class Look:
    """How a terminal shows a report. width: columns. styles: escape sequences may be used; colours: colours too.

    exact: bytes as they are, in place of two or three digits and a unit.
    """

    width: int
    styles: bool
    colours: bool
    exact: bool = False


def look(out: TextIO, color: str = "auto", exact: bool = False, environ: Mapping[str, str] = os.environ) -> Look | None:
    """Return how to lay a report out that goes to out; None: it is to be plain, for it is no terminal.

    color: one of CHOICES; always also lays out what goes into a pipe. NO_COLOR (no-color.org) leaves bold and dim.
    """
    terminal = out.isatty()
    if not terminal and color != "always":
        return None
    styles = color == "always" or (color == "auto" and environ.get("TERM", "") not in ("", "dumb"))
    return Look(_width(out, environ), styles, styles and (color == "always" or not environ.get("NO_COLOR")), exact)


def text_writer(out: TextIO, color: str = "auto", exact: bool = False) -> Write:
    """Return what writes reports to out, plain or laid out."""
    return laid_out_writer(out, color, exact) or text.write


def laid_out_writer(out: TextIO, color: str = "auto", exact: bool = False) -> Write | None:
    """Return what writes reports to out laid out, None where they are to be plain."""
    found = look(out, color, exact)
    if found is None:
        return None
    from tracer.report import terminal

    return partial(terminal.write, found)


def judged_writer(out: TextIO, color: str = "auto", exact: bool = False) -> Callable[..., None]:
    """Return what writes judgements to out, with the arguments of judged.write."""
    found = look(out, color, exact)
    if found is None:
        return judged.write
    from tracer.report import terminal_judged

    return partial(terminal_judged.write, found)


def _width(out: TextIO, environ: Mapping[str, str]) -> int:
    given = environ.get("COLUMNS", "")
    columns = (_columns(out) or (int(given) if given.isdecimal() and len(given) < 6 else 0)
               # Into a pager: what it has is most likely where errors go as well.
               or _columns(sys.stderr) or UNKNOWN)
    return min(max(columns, LEAST), MOST)


def _columns(out: TextIO) -> int:
    """Return how many columns a terminal has, 0 for one that does not know, and for what is none."""
    try:
        return os.get_terminal_size(out.fileno()).columns
    except (OSError, ValueError):
        return 0
