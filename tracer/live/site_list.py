"""The table of sites. Only the rows that are on the screen are made, so that their number does not matter."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

from rich.cells import set_cell_size
from rich.segment import Segment
from textual import events
from textual.message import Message
from textual.strip import Strip
from textual.widget import Widget

from tracer.live import amounts
from tracer.live.board import Board, verdict
from tracer.live.curves import spark
from tracer.live.look import Look
from tracer.report.terminal_names import cut
from tracer.report.terminal_page import VERDICTS

#: Columns: what it sorts by (None: nothing), heading, characters.
_COLUMNS = (("bytes", "bytes", 7), ("count", "blocks", 7), ("growth", "growth/s", 8), ("loss", "loss/s", 7),
            ("age", "age", 4), (None, "trend", 10), (None, "verdict", 9))
#: Characters of a trend where there is room, and from how many columns of the screen on.
_LONG_TREND, _ROOMY = 24, 110
#: Left out on screens of fewer columns than this.
_NARROW, _SPARE = 76, ("blocks", "age")
#: Of what is left, the part that names have; the rest is for modules.
_NAMES = 0.7


class SiteList(Widget, can_focus=True):
    """All sites of a board, one a line, one of them chosen."""

    DEFAULT_CSS = "SiteList { height: 1fr; }"

    class Chosen(Message):
        """Another site is chosen. large: it is to be looked at closely."""

        def __init__(self, large: bool = False) -> None:
            super().__init__()
            self.large = large

    _STEPS: ClassVar[dict[str, int]] = {"down": 1, "up": -1, "j": 1, "k": -1}

    def __init__(self, board: Board, look: Look, typed: Callable[[events.Key], bool] = lambda _: False) -> None:
        """typed: told of each key first; returns whether it was for somebody else."""
        super().__init__()
        self._typed = typed
        self.board, self.look = board, look
        #: The key of the site that is chosen, and its place in the order: where the site goes, so does the choice.
        self.key: int | None = None
        self._at = self._top = 0

    @property
    def row(self) -> int | None:
        """The row of the table that is chosen."""
        rows = self.board.rows
        return int(rows[self._at]) if self._at < len(rows) else None

    def renew(self) -> None:
        """Draw again, as the board has changed; the choice stays with its site while that is shown."""
        if self.board.sites is not None and self.key is not None:
            row = self.board.row_of(self.key)
            place = self.board.rank(row) if row is not None else 0
            if place:
                self._at = place - 1
        self._choose(self._at, follow=False)
        self.refresh()

    def move(self, steps: int) -> None:
        """Choose the site that is so many lines further down."""
        self._choose(self._at + steps)
        self.refresh()
        self.post_message(self.Chosen())

    def begin_at_top(self) -> None:
        """Choose the first site: the order is another."""
        self.key, self._at, self._top = None, 0, 0
        self.renew()
        self.post_message(self.Chosen())

    def _choose(self, place: int, *, follow: bool = True) -> None:
        rows, sites = self.board.rows, self.board.sites
        self._at = max(0, min(place, len(rows) - 1))
        if follow or self.key is None or (len(rows) and self.board.row_of(self.key) is None):
            self.key = int(sites.key[rows[self._at]]) if sites is not None and len(rows) else None
        lines = self._lines
        self._top = max(min(self._top, self._at, max(0, len(rows) - lines)), self._at - lines + 1, 0)

    @property
    def _lines(self) -> int:
        return max(1, self.size.height - 1)

    def on_key(self, event: events.Key) -> None:
        """Move the choice."""
        if self._typed(event):
            event.stop()
            return
        steps = self._STEPS | {"pagedown": self._lines, "pageup": -self._lines, "home": -len(self.board.rows),
                               "end": len(self.board.rows)}
        if event.key in steps:
            event.stop()
            self.move(steps[event.key])
        elif event.key == "enter":
            event.stop()
            self.post_message(self.Chosen(large=True))

    def on_click(self, event: events.Click) -> None:
        """Choose what is clicked on."""
        if event.y:
            self.move(self._top + event.y - 1 - self._at)

    def on_mouse_scroll_down(self) -> None:
        """Move the choice down."""
        self.move(3)

    def on_mouse_scroll_up(self) -> None:
        """Move the choice up."""
        self.move(-3)

    def on_resize(self) -> None:
        """Keep what is chosen on the screen."""
        self._choose(self._at, follow=False)

    def render_line(self, y: int) -> Strip:
        """Return one line as it is now."""
        width = self.size.width
        if y == 0:
            return self._heading(width)
        place = self._top + y - 1
        rows = self.board.rows
        if place < len(rows):
            return self._line(int(rows[place]), place == self._at, width)
        if y == 1 and not len(rows):
            return Strip([Segment(f" {self._why_empty()}", self.look.style("dim"))]).adjust_cell_length(width)
        return Strip.blank(width)

    def _why_empty(self) -> str:
        if self.board.report is None:
            return "The first report is on its way."
        if self.board.words:
            return "No site is like that; Esc shows all."
        return "Nothing has changed since the zero line." if self.board.zero else "Nothing is held."

    def _layout(self, width: int) -> tuple[dict[str, int], int, int]:
        """Return the characters of each column by its heading, of a name and of a module."""
        rooms = {title: _LONG_TREND if title == "trend" and width >= _ROOMY else room for _, title, room in _COLUMNS
                 if width >= _NARROW or title not in _SPARE}
        left = width - 1 - sum(rooms.values()) - len(rooms)
        name = max(8, int(left * _NAMES) if width >= _ROOMY else left)
        return rooms, name, max(0, left - name - 1)

    def _heading(self, width: int) -> Strip:
        rooms, name, module = self._layout(width)
        made = [Segment(" ", self.look.style("bold"))]
        for sort, title, _ in _COLUMNS:
            if title not in rooms:
                continue
            chosen = sort is not None and sort == self.board.sort
            mark = self.look.arrows[not self.board.reverse] if chosen else ""
            text = (mark + title).rjust(rooms[title]) if sort else title.ljust(rooms[title])
            made.append(Segment(f"{text} ", self.look.style("bold reverse" if chosen else "bold")))
        made.append(Segment("site".ljust(name), self.look.style("bold")))
        if module:
            made.append(Segment(" module", self.look.style("bold")))
        return Strip(made).adjust_cell_length(width)

    def _line(self, row: int, chosen: bool, width: int) -> Strip:
        known = self.board.known(row)
        rooms, name, module = self._layout(width)
        cells = self._cells(row, rooms["trend"])
        parts = [(cells[title][0].rjust(room), cells[title][1]) for title, room in rooms.items()]
        parts.append((set_cell_size(cut(known.name, name), name), "bold"))
        if module:
            parts.append((cut(known.module, module), "dim"))
        over = self.look.style("reverse" if chosen else "")
        made = [Segment(">" if chosen else " ", over)]
        made += [Segment(f"{text} ", over if chosen else self.look.style(style)) for text, style in parts]
        return Strip(made).adjust_cell_length(width, over if chosen else None)

    def _cells(self, row: int, trend: int) -> dict[str, tuple[str, str]]:
        """Return the figures of a row by column, each with its style."""
        sites, figures = self.board.sites, self.board.figures
        assert sites is not None
        opinion = verdict(sites, row)
        growth, loss = float(figures.growth[row]), float(sites.expected_loss[row])
        return {
            "bytes": (amounts.size(figures.bytes[row]), "bold"),
            "blocks": (amounts.number(int(figures.count[row])), ""),
            "growth/s": (amounts.change(growth), "yellow" if growth >= 0.5 else "green" if growth <= -0.5 else "dim"),
            "loss/s": (amounts.size(loss), "bold red") if loss >= 0.5 else ("-", "dim"),
            "age": (amounts.age(self._age(row)), ""),
            "trend": (spark(self.board.curves.values[row], trend, self.look.marks), "cyan"),
            "verdict": (opinion.ljust(9), VERDICTS.get(opinion, "")),
        }

    def _age(self, row: int) -> float:
        board, sites = self.board, self.board.sites
        assert sites is not None
        seconds = float(sites.oldest_s[row])
        if board.zero is not None and board.report is not None:
            seconds = min(seconds, board.report.elapsed_s - board.zero.elapsed_s)
        return seconds
