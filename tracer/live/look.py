"""How the view's terminal shows things: with colour or without, with block characters or ASCII."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

from rich.style import Style

from tracer.live import curves

#: Terminals of before colour, and before anything but ASCII.
_OLD = ("vt52", "vt100", "vt102", "vt220", "vt320", "dumb", "unknown", "")


@dataclass(frozen=True, slots=True)
class Look:
    """colours: colour may be used beside bold and reverse. marks: of a curve, from low to high. arrows: up and down."""

    colours: bool = True
    marks: str = curves.BLOCKS
    arrows: str = "▲▼"

    def style(self, name: str) -> Style:
        """Return the style of a name as rich has them ("bold red"), without its colours where there are none."""
        return _style(name, self.colours)


def look(environ: Mapping[str, str], color: str = "auto") -> Look:
    """Return how the terminal of these variables is drawn on; color: as --color has it."""
    old = environ.get("TERM", "") in _OLD
    plain = color == "never" or (color == "auto" and (old or bool(environ.get("NO_COLOR"))))
    locale = environ.get("LC_ALL") or environ.get("LC_CTYPE") or environ.get("LANG") or "C.UTF-8"
    wide = "UTF" in locale.upper() and not old
    return Look(not plain) if wide else Look(not plain, curves.ASCII, "^v")


@cache
def _style(name: str, colours: bool) -> Style:
    style = Style.parse(name) if name else Style.null()
    return style if colours else style.without_color
