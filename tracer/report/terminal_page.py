"""A page of lines for a terminal; what comes from a traced program can neither style it nor steer the terminal."""

from __future__ import annotations

import re
from collections.abc import Iterable
from io import StringIO
from typing import TextIO

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.text import Text

from tracer.report.terminal_look import Look

#: Nothing here asks how high a terminal is.
_HEIGHT = 25
#: What a report says in colour.
WARNING, QUIET, STRONG, HEADING = "yellow", "dim", "bold", "bold cyan"
VERDICTS = {"lost": "bold red", "growing": "bold yellow", "steady": "green", "undecided": "cyan"}


class Page:
    """Collects what is shown, and writes it at once."""

    def __init__(self, look: Look) -> None:
        self.look = look
        self._made = StringIO()
        self._console = Console(
            file=self._made, width=look.width, height=_HEIGHT, force_terminal=look.styles, highlight=False,
            markup=False, emoji=False, color_system="standard" if look.styles else None,
            no_color=not look.colours, _environ={})

    @property
    def width(self) -> int:
        """Return how many columns there are."""
        return self.look.width

    def put(self, content: RenderableType, indent: int = 0) -> None:
        """Add something below what is there; longer lines go on at the same indent."""
        self._console.print(Padding(content, (0, 0, 0, indent), expand=False) if indent else content)

    def line(self, text: str, style: str = "", indent: int = 0) -> None:
        """Add a line of text."""
        self.put(plain(text, style), indent)

    def lines(self, texts: Iterable[str], style: str = "", indent: int = 0) -> None:
        """Add lines as the plain report has them; a tab or spaces in front indent all of a line."""
        for text in texts:
            shown = text.rstrip("\n").expandtabs(4)
            bare = shown.lstrip(" ")
            self.line(bare, style, indent + len(shown) - len(bare))

    def gap(self) -> None:
        """Add an empty line."""
        self._console.print()

    def write(self, out: TextIO) -> None:
        """Write the page; what the terminal's encoding lacks is written as its code."""
        encoding = getattr(out, "encoding", None) or "utf-8"
        # What is indented was filled up to the width.
        made = re.sub(" +$", "", self._made.getvalue(), flags=re.MULTILINE)
        out.write(made.encode(encoding, "backslashreplace").decode(encoding))
        out.flush()


def plain(text: str, style: str = "") -> Text:
    """Return a text of which nothing acts on the terminal."""
    return Text(safe(text), style, overflow="fold")


def joined(*parts: tuple[str, str]) -> Text:
    """Return one text of several, each with its style."""
    return Text.assemble(*((safe(text), style) for text, style in parts), overflow="fold")


def safe(text: str) -> str:
    """Return a text with everything in it that does not print written as its code."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
