"""The page of keys."""

from __future__ import annotations

from typing import ClassVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen
from textual.widgets import Static

TEXT = """\
 leaktrace, the live view                                    (? or Esc: back)

 Up Down PgUp PgDn Home End, j k   choose a site
 Enter       its whole stack with source lines; Tab goes between both parts
 < >         sort by the column to the left or right; the mark is beside it
 b c g l a   sort by bytes, count, growth, expected loss, age; again: reversed
 /           filter. All words must apply: parse module:libssl verdict:growing
             name: module: verdict: source: ask one part of a site only
 Esc         leave what is open; then end the filter
 p, space    pause: the screen stands still, the trace goes on
 z           zero line: from now on only what has changed since; again: anew
 x           without zero line: everything since the trace began
 s           record to a file from now on, and again to end that
 m           all lines on where resident memory is, or only the most important
 q, Ctrl-C   end the trace, with a last report

 growth/s    bytes a second since the report before, or since the zero line
 loss/s      what is lost from now on if nothing changes, by the verdict
 age         of the oldest block that is held
 trend       held bytes in the last reports, from lowest to highest
"""


class Help(ModalScreen[None]):
    """Shows the keys until it is left."""

    CSS = "Help { background: ansi_default; } Help VerticalScroll { height: 1fr; background: ansi_default; }"
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape,question_mark,q,enter", "dismiss_page", show=False)]

    def compose(self) -> ComposeResult:
        """Make the page."""
        with VerticalScroll():
            yield Static(TEXT, markup=False)

    def action_dismiss_page(self) -> None:
        """Go back."""
        self.dismiss()
