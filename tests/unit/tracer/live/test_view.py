"""The view as textual's pilot sees it: keys, what is on the screen, and how much of it is made."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
from textual import events
from textual.pilot import Pilot

from tests.unit.tracer.live import made_up
from tests.unit.tracer.report import many_sites
from tracer.live.app import LiveView
from tracer.live.head import State
from tracer.live.look import Look
from tracer.live.messages import Arrived, Over, Said
from tracer.report.memory_model import MemoryHead, MemoryPart
from tracer.report.model import Finding, LossNote, Report

NAMES = ["load_order", "fill_cache", "connect"]
FIRST = made_up.report([3000, 2000, 1000], 1.0, names=NAMES, verdicts=["growing", "steady", "undecided"])
SECOND = made_up.report([3000, 2500, 9000], 2.0, names=NAMES, verdicts=["growing", "steady", "undecided"], before=FIRST)
LOSS = LossNote("outstanding_full", 12, 0, "blocks found no room", "ask for more with --max-outstanding")


class Control:
    """Writes down what is asked of the trace."""

    def __init__(self) -> None:
        self.recordings = 0

    def record(self) -> str | None:
        self.recordings += 1
        if self.recordings == 3:
            raise OSError(28, "No space left on device")
        return "/tmp/made.leaktrace" if self.recordings % 2 else None


def screen(view: LiveView) -> list[str]:
    """Return the lines of the screen as text."""
    return ["".join(segment.text for segment in strip).rstrip() for strip in view.screen._compositor.render_strips()]


Steps = Callable[[LiveView, Pilot[None]], Awaitable[None]]


def play(steps: Steps, *reports: Report, size: tuple[int, int] = (80, 24), look: Look = Look()) -> LiveView:  # noqa: B008  # frozen
    """Show reports, then take steps."""
    view = LiveView(Control(), look, State())

    async def run() -> None:
        async with view.run_test(size=size) as pilot:
            for each in reports:
                view.post_message(Arrived(each))
            await pilot.pause()
            await steps(view, pilot)

    asyncio.run(run())
    return view


def rows(view: LiveView) -> list[str]:
    """Return the sites that are shown, by name, in their order."""
    return [name for line in screen(view) for name in NAMES if line.endswith(name) and "0x" not in line]


@pytest.mark.parametrize("size", [(80, 24), (140, 40), (60, 12), (200, 60)])
def test_it_fits(size: tuple[int, int]) -> None:
    """On screens small and large all parts are there, and no line is wider than the screen."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        lines = screen(view)
        assert len(lines) == size[1] and max(map(len, lines)) <= size[0]
        assert "server (pid 77)" in lines[0] and "14 kB held in" in lines[1]
        assert "quit" in lines[-1]
        assert sum("connect" in line for line in lines) >= 1

    play(steps, FIRST, SECOND, size=size)


def test_sort_keys() -> None:
    """Letters sort by their column, and the mark moves with it."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("b")
        assert rows(view) == ["connect", "load_order", "fill_cache"]
        await pilot.press("b")
        assert rows(view) == ["fill_cache", "load_order", "connect"]
        assert any("▲bytes" in line for line in screen(view))
        await pilot.press("g")
        assert rows(view)[0] == "connect"
        await pilot.press("greater_than_sign")
        assert view.board.sort == "loss"

    play(steps, FIRST, SECOND)


def test_filter_as_it_is_typed() -> None:
    """Each letter narrows, letters are no commands then, Enter keeps it, what comes after is a command, Esc ends it."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"cache")
        assert rows(view) == ["fill_cache"] and view.board.sort == "loss"
        await pilot.press("enter", "p")
        assert view.state.paused and rows(view) == ["fill_cache"]
        assert " filter cache" in screen(view)[0]
        await pilot.press("escape")
        assert sorted(rows(view)) == sorted(NAMES)

    play(steps, FIRST, SECOND)


def test_filter_in_one_go() -> None:
    """What is typed so fast that it comes together is still all of the filter, and what is behind it a command."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        for key in ("slash", *"cache", "enter", "p"):
            name = {"slash": "/", "enter": "\r"}.get(key, key)
            view.post_message(events.Key(key, name))
        await pilot.pause()
        assert rows(view) == ["fill_cache"] and view.state.paused and not view.screen.has_class("large")

    play(steps, FIRST, SECOND)


def test_nothing_fits_the_filter() -> None:
    """An empty table says why it is empty."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("slash", *"zzz", "enter")
        assert "No site is like that; Esc shows all." in "\n".join(screen(view))

    play(steps, FIRST)


def test_pause() -> None:
    """While it stands still reports are not shown; then the newest is."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("p")
        view.post_message(Arrived(SECOND))
        await pilot.pause()
        assert view.board.report is FIRST and "paused" in screen(view)[0]
        await pilot.press("p")
        assert view.board.report is SECOND and "paused" not in screen(view)[0]

    play(steps, FIRST)


def test_zero_line() -> None:
    """After z only what has changed since is shown, and the line above says so; x shows all again."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("z")
        assert "Nothing has changed since the zero line." in "\n".join(screen(view))
        view.post_message(Arrived(SECOND))
        await pilot.pause()
        assert sorted(rows(view)) == ["connect", "fill_cache"]
        assert "since 1 s" in screen(view)[0] and "8.3 kB gained in" in screen(view)[1]
        await pilot.press("x")
        assert sorted(rows(view)) == sorted(NAMES)

    play(steps, FIRST)


def test_record_key() -> None:
    """s begins a recording, which the top line names, and ends it; where none can be, the reason is shown."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("s")
        assert "records made.leaktrace" in screen(view)[0]
        await pilot.press("s")
        assert "records" not in screen(view)[0]
        await pilot.press("s")
        assert "No space left on device" in "\n".join(screen(view))

    play(steps, FIRST)


def test_the_chosen_site(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Its verdict, evidence and stack are shown, with the line of its source; Enter shows more of all, Esc goes back."""
    source = tmp_path_factory.mktemp("source") / "order.c"
    source.write_text("int before;\n    return malloc(500);\nint behind;\n")
    os.utime(source, (0, 0))

    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        shown = "\n".join(screen(view))
        assert "growing (high confidence)" in shown and "grew all the time" in shown
        assert "int before;" not in shown
        await pilot.press("enter")
        shown = "\n".join(screen(view))
        assert "int before;" in shown and ">     2      return malloc(500);" in shown and "main+0x20" in shown
        await pilot.press("escape")
        assert "int before;" not in "\n".join(screen(view))

    play(steps, made_up.report([3000], verdicts=["growing"], file=str(source)), size=(100, 30))


def test_the_choice_stays_with_its_site() -> None:
    """When the order changes, the same site is chosen."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("b", "down", "down")
        assert next(line for line in screen(view) if line.startswith(">")).endswith("connect")
        view.post_message(Arrived(SECOND))
        await pilot.pause()
        assert next(line for line in screen(view) if line.startswith(">")).endswith("connect")
        assert rows(view)[0] == "connect"

    play(steps, FIRST)


def test_losses_and_what_is_said() -> None:
    """What the trace has lost stands above the table as long as it counts, in a warning's colour."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        strip = next(strip for strip in view.screen._compositor.render_strips() if "12 blocks found no room" in strip.text)
        style = next(segment.style for segment in strip if "blocks found" in segment.text)
        assert style and style.bold and style.color and style.color.name == "yellow"
        view.post_message(Said("a process could not be followed"))
        await pilot.pause()
        assert "a process could not be followed" in "\n".join(screen(view))

    play(steps, replace(FIRST, losses=(LOSS,)))


def test_resident_memory() -> None:
    """Where resident memory is stands above the table: in short on a small screen, in whole with m or on a tall one."""
    head = MemoryHead(77, "server", 50 << 20, 40 << 20, 50 << 20, 30 << 20, 30, (
        MemoryPart("outstanding", 30 << 20), MemoryPart("free", 15 << 20)))
    given = replace(FIRST, memory=(head,))

    async def small(view: LiveView, pilot: Pilot[None]) -> None:
        assert "50 MB resident" in screen(view)[2] and "15 MB  free inside" not in "\n".join(screen(view))
        await pilot.press("m")
        assert "15 MB  free inside" in "\n".join(screen(view))

    async def tall(view: LiveView, pilot: Pilot[None]) -> None:
        assert "15 MB  free inside" in "\n".join(screen(view))

    play(small, given)
    play(tall, given, size=(120, 40))


def test_without_colour_or_block_characters() -> None:
    """A terminal of before both gets neither: bold and reverse only, and the parts of ours in ASCII."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        colours = {segment.style.color for strip in view.screen._compositor.render_strips() for segment in strip
                   if segment.style and segment.style.color and not segment.style.color.is_default}
        assert colours == set()
        assert all(line.isascii() for line in screen(view))
        assert any(segment.style and segment.style.reverse for strip in view.screen._compositor.render_strips() for segment in strip)

    play(steps, FIRST, replace(SECOND, losses=(LOSS,)), look=Look(False, "_.-:=+*#", "^v"))


def test_the_targets_end() -> None:
    """When the trace is over the view says so and stays."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        view.post_message(Arrived(replace(SECOND, last=True, targets=(replace(SECOND.targets[0], ended=True),))))
        view.post_message(Over())
        await pilot.pause()
        assert "it has ended" in screen(view)[0] and rows(view) and view.is_running
        await pilot.press("q")
        assert not view.is_running

    play(steps, FIRST)


def test_help() -> None:
    """? shows the keys on a page that has room for them, and goes away again."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("question_mark")
        shown = "\n".join(screen(view))
        assert "zero line" in shown and "from lowest to highest" in shown
        await pilot.press("q")
        assert view.is_running and rows(view)

    play(steps, FIRST, SECOND)


def test_hostile_names() -> None:
    """What a program calls its functions neither styles nor steers the terminal."""
    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        await pilot.press("enter")
        text = "\n".join(screen(view))
        assert "\x1b" not in text and "\\x1b[31m[bold]x" in text

    play(steps, made_up.report([3000], names=["\x1b[31m[bold]x[/]\n"], evidence="\x1b]0;title\x07 [red]"))


def test_only_what_is_visible_is_made() -> None:
    """Of 10,000 sites the view puts those on the screen in words, at the start and when it moves to the end."""
    made = many_sites.report(many_sites.series(10_000, 3))
    asked: set[int] = set()

    def finding(row: int, rank: int) -> Finding:
        asked.add(row)
        assert made.sites is not None
        return made.sites.finding(row, rank)

    async def steps(view: LiveView, pilot: Pilot[None]) -> None:
        assert len(asked) <= 24
        await pilot.press("end")
        assert len(asked) <= 48 and int(view.board.rows[-1]) in asked

    assert made.sites is not None
    play(steps, replace(made, sites=replace(made.sites, finding=finding)))
