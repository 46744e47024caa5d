"""The screen of a live trace: figures above, the table of sites, the chosen one below."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress
from typing import ClassVar

from rich.console import Group
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.widgets import Input, Static

from tracer.live.board import SORTS, Board
from tracer.live.detail import Sources, detail
from tracer.live.head import State, fitted, head
from tracer.live.help import Help
from tracer.live.look import Look
from tracer.live.messages import Arrived, Control, Over, Said
from tracer.live.site_list import SiteList
from tracer.report.model import Report

KEYS = " q quit  / filter  < > sort  Enter stack  p pause  z zero  s record  ? help"
#: Seconds between two goes at the names that a filter asks for.
_AGAIN = 0.05
#: Of the screen, what figures above and the chosen site below have at most.
_HEAD, _DETAIL = 0.4, 0.34


class FilterLine(Input):
    """Where a filter is typed. What is typed behind Enter is already for the table."""

    async def action_submit(self) -> None:
        """Go back to the table at once, and not after the keys that wait."""
        view = self.app
        assert isinstance(view, LiveView)
        view.close_filter()


class LiveView(App[None]):
    """The view. Messages Arrived, Over and Said may be posted by another thread."""

    CSS = """
    Screen { background: ansi_default; layout: vertical; }
    #head { height: 2; }
    #detail { height: 8; border-top: ascii ansi_default; scrollbar-size: 0 0; background: ansi_default; }
    #detail.blocks { border-top: solid ansi_default; }
    #stack { height: auto; }
    #filter { display: none; height: 1; border: none; padding: 0 1; background: ansi_default; }
    #keys { height: 1; }
    .large SiteList { height: 5; }
    .large #detail { height: 1fr; }
    """
    ENABLE_COMMAND_PALETTE = False
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+c,ctrl+q", "quit", show=False, priority=True),
        Binding("q", "quit", show=False),
        Binding("question_mark,h", "help", show=False),
        Binding("slash", "filter", show=False),
        Binding("escape", "leave", show=False),
        Binding("p,space", "pause", show=False),
        Binding("z", "zero", show=False),
        Binding("x", "all", show=False),
        Binding("s", "record", show=False),
        Binding("m", "memory", show=False),
        Binding("less_than_sign,left", "next_sort(-1)", show=False),
        Binding("greater_than_sign,right", "next_sort(1)", show=False),
        *(Binding(name[0], f"sort('{name}')", show=False) for name in SORTS),
    ]

    def __init__(self, control: Control, look: Look, state: State,
                 ready: Callable[[LiveView], None] = lambda _: None) -> None:
        """ready: called when the view can take messages."""
        super().__init__(ansi_color=True)
        self._begun = ready
        self.control, self.look, self.state = control, look, state
        self.board = Board()
        #: What stopped the view.
        self.problem: Exception | None = None
        self._sources = Sources()
        self._waiting: Report | None = None
        self._looking = False
        #: What the height of the lower part came from, when it was last laid out.
        self._shape: tuple[object, ...] = ()

    def compose(self) -> ComposeResult:
        """Make the parts of the screen."""
        yield Static(id="head")
        yield SiteList(self.board, self.look, self._typed)
        with VerticalScroll(id="detail", classes="blocks" if self.look.marks[0] > "~" else ""):
            yield Static(id="stack")
        # The focus can come behind what is typed, and must not have it replaced.
        yield FilterLine(placeholder="words that a site must have; name: module: verdict: source:", id="filter",
                         select_on_focus=False)
        yield Static(KEYS, id="keys", markup=False)

    def on_mount(self) -> None:
        """Begin."""
        self._list.focus()
        self._draw()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Outside of the main thread, as in some tests, there are none.
            with suppress(ValueError, RuntimeError):
                loop.add_signal_handler(number, self.exit)
        self._begun(self)

    def _handle_exception(self, error: Exception) -> None:
        """Keep the error for who runs the view; textual's own account of it is no help to users."""
        self.problem = self.problem or error
        super()._handle_exception(error)
        self._exit_renderables.clear()

    @property
    def _list(self) -> SiteList:
        return self.query_one(SiteList)

    def on_arrived(self, message: Arrived) -> None:
        """Show a report, unless the screen is to stand still."""
        if self.state.paused:
            self._waiting = message.report
        else:
            self._take(message.report)

    def on_over(self, message: Over) -> None:
        """Say that the trace has ended; where it failed there is nothing more to see."""
        self.state.ended = True
        if message.failed:
            self.exit()
        else:
            self._draw()

    def on_said(self, message: Said) -> None:
        """Show what the trace says."""
        self.state.notices.append(message.text)
        self._draw()

    def _take(self, report: Report) -> None:
        self.board.take(report)
        self._renew()

    def _renew(self) -> None:
        """Draw everything again, and look at more names if a filter waits for them."""
        if self.board.arrange() and not self._looking:
            self._looking = True
            self.set_timer(_AGAIN, self._look_on)
        self._list.renew()
        self._draw()

    def _look_on(self) -> None:
        self._looking = False
        self._renew()

    def _draw(self) -> None:
        """Draw what is above and below the table."""
        width, height = self.size
        lines = fitted(head(self.board, self.state, self.look, width, height), max(3, int(height * _HEAD)))
        above = self.query_one("#head", Static)
        if above.styles.height is None or above.styles.height.value != len(lines):
            above.styles.height = len(lines)
        above.update(Group(*lines), layout=False)
        large = self.screen_stack[0].has_class("large")
        below = self.query_one("#detail", VerticalScroll)
        room = max(6, int(height * _DETAIL))
        if not large and (below.styles.height is None or below.styles.height.value != room):
            below.styles.height = room
        row = self._list.row
        made = detail(self.board, row, self.look, self._sources, width - 1, large=large) if row is not None else []
        shape = (self._list.key, large, width, len(made))
        self.query_one("#stack", Static).update(Group(*made), layout=shape != self._shape)
        self._shape = shape

    def on_resize(self, event: events.Resize) -> None:
        """Draw for the new size."""
        self.call_after_refresh(self._draw)

    def on_site_list_chosen(self, message: SiteList.Chosen) -> None:
        """Show the site that is chosen now."""
        if message.large:
            self._enlarge(True)
        self.query_one("#detail", VerticalScroll).scroll_home(animate=False)
        self._draw()

    def _enlarge(self, large: bool) -> None:
        self.screen.set_class(large, "large")
        below = self.query_one("#detail", VerticalScroll)
        below.styles.height = "1fr" if large else None
        (below if large else self._list).focus()
        self._draw()

    def on_input_changed(self, event: Input.Changed) -> None:
        """Filter while it is typed, by what stands there by now: of what is typed fast, news come late."""
        self._filter()

    def _filter(self) -> None:
        self.board.filter(self.query_one("#filter", Input).value)
        self._renew()

    def close_filter(self) -> None:
        """Keep the filter, and go back to the table."""
        self.query_one("#filter", Input).display = False
        self.query_one("#keys", Static).display = True
        self.set_focus(self._list)
        self._filter()

    def action_filter(self) -> None:
        """Have a filter typed."""
        self.query_one("#keys", Static).display = False
        line = self.query_one("#filter", Input)
        line.display = True
        # At once: what is typed next is for the line.
        self.set_focus(line)

    def _typed(self, event: events.Key) -> bool:
        """Begin a filter, or add to it a key that was on its way to the table when it began."""
        line = self.query_one("#filter", Input)
        if event.key == "slash" and not line.display:
            self.action_filter()
        elif not line.display:
            return False
        elif event.key == "enter":
            self.close_filter()
        elif event.is_printable and event.character:
            line.insert_text_at_cursor(event.character)
        return True

    def action_leave(self) -> None:
        """Leave what is open, else the filter."""
        line = self.query_one("#filter", Input)
        if self.screen.has_class("large"):
            self._enlarge(False)
        else:
            line.value = ""
            self.close_filter()

    def action_help(self) -> None:
        """Show the keys."""
        self.push_screen(Help())

    def action_pause(self) -> None:
        """Stand still, or go on with the newest report."""
        self.state.paused = not self.state.paused
        if not self.state.paused and self._waiting is not None:
            self._take(self._waiting)
            self._waiting = None
        self._draw()

    def action_zero(self) -> None:
        """Count from now on."""
        self.board.begin_anew()
        self._renew()

    def action_all(self) -> None:
        """Count from the beginning."""
        self.board.count_all()
        self._renew()

    def action_memory(self) -> None:
        """Show all lines on memory, or the most important."""
        self.state.whole = not self.state.whole
        self._draw()

    def action_sort(self, column: str) -> None:
        """Sort by a column, or turn its order round."""
        self.board.sort_by(column)
        self._list.begin_at_top()

    def action_next_sort(self, step: int) -> None:
        """Sort by the next column."""
        self.action_sort(SORTS[(SORTS.index(self.board.sort) + step) % len(SORTS)])

    def action_record(self) -> None:
        """Begin a recording, or end it."""
        try:
            self.state.recording = self.control.record()
        except OSError as problem:
            self.state.notices.append(f"no recording: {problem.strerror or problem}")
        self._draw()
