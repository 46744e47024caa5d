"""What stands above the table: the target, the sums, where its memory is, and what the trace has lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from rich.text import Text

from tracer.live import amounts
from tracer.live.board import Board
from tracer.live.look import Look
from tracer.live.query import describe
from tracer.report import memory_head, wording
from tracer.report.model import Report
from tracer.report.terminal_page import safe

#: Lines of the screen from which on the whole of the memory's head is shown without being asked for.
TALL = 34


@dataclass(slots=True)
class State:
    """What is said beside the figures. recording: the file that is written. whole: all lines on memory are wanted."""

    interval: float = 1.0
    paused: bool = False
    ended: bool = False
    whole: bool = False
    recording: str | None = None
    notices: list[str] = field(default_factory=list)


def head(board: Board, state: State, look: Look, width: int, height: int) -> list[Text]:
    """Return the lines above the table; width, height: of the screen."""
    report = board.report
    if report is None:
        return [Text(" leaktrace: tracing", look.style("bold"), no_wrap=True)]
    lines = [_title(report, board, state, look, width), _sums(board, look)]
    whole = state.whole or height >= TALL
    for each in report.memory[: 1 if not state.whole else None]:
        made = memory_head.lines(each)
        if len(report.targets) == 1:
            # That is said above.
            made[0] = made[0].removeprefix(f"Memory of {each.comm} (pid {each.pid}): ")
        if not whole:
            made = [made[0], *filter(None, [memory_head.conclusion(each)]), *memory_head.limit_lines(each.limit)]
        lines += [_line(line.rstrip(), look, "") for line in made]
    lines += [_line(text, look, "bold yellow") for text in warnings(report)]
    if state.notices:
        lines.append(_line(state.notices[-1], look, "yellow"))
    return lines


def warnings(report: Report) -> list[str]:
    """Return what the trace has lost, one line for each way."""
    return [f"! {loss.count:,} {loss.meaning}: {loss.remedy}" for loss in report.losses]


def _title(report: Report, board: Board, state: State, look: Look, width: int) -> Text:
    marks: list[tuple[str, str]] = []
    if report.last or state.ended:
        marks.append((_end(report), "bold reverse"))
    if state.paused:
        marks.append(("paused", "bold reverse"))
    if board.zero is not None:
        marks.append((f"since {memory_head.duration(board.zero.elapsed_s)}", "reverse"))
    if board.words:
        marks.append((f"filter {safe(describe(board.words))}", "reverse"))
    if state.recording is not None:
        marks.append((f"records {safe(state.recording.rpartition('/')[2])}", "reverse"))
    text = Text(no_wrap=True, overflow="ellipsis")
    text.append(f" {_targets(report)}", look.style("bold cyan"))
    text.append(f"  {memory_head.duration(report.elapsed_s)}, every {state.interval:g} s", look.style("dim"))
    for mark, style in marks:
        text.append("  ")
        text.append(f" {mark} ", look.style(style))
    text.truncate(width)
    return text


def _end(report: Report) -> str:
    if any(not target.ended for target in report.targets) or not report.targets:
        return "the trace has ended"
    return "it has ended" if len(report.targets) == 1 else "all have ended"


def _targets(report: Report) -> str:
    if not report.targets:
        return "the kernel" if report.sources else "no process yet"
    running = [target for target in report.targets if not target.ended] or report.targets
    first = f"{safe(running[0].comm)} (pid {running[0].pid})"
    return first if len(report.targets) == 1 else f"{first} and {len(report.targets) - 1} more"


def _sums(board: Board, look: Look) -> Text:
    report, figures, sites = board.report, board.figures, board.sites
    assert report is not None and sites is not None
    held, count = int(figures.bytes.sum()), int(figures.count.sum())
    growth, loss = float(np.nansum(figures.growth)), float(sites.expected_loss.sum())
    text = Text(" ", no_wrap=True, overflow="ellipsis")
    text.append(amounts.size(held), look.style("bold"))
    text.append(f" {'gained' if board.zero else 'held'} in {_blocks(count)}, ")
    total = int(((sites.bytes != 0) | (sites.count != 0)).sum())
    text.append(f"{len(board.rows):,} of " if len(board.rows) != total else "")
    text.append(f"{total:,} site{'' if total == 1 else 's'}")
    text.append(f", {amounts.change(growth)}/s" if abs(growth) >= 0.5 else ", level",
                look.style("bold yellow" if growth >= 0.5 else "green"))
    if loss >= 0.5:
        text.append(f", expected loss {amounts.size(loss)}/s", look.style("bold red"))
    allocated = figures.allocated
    text.append(f"; {amounts.number(int(allocated[1].sum()))} allocated, "
                f"{amounts.number(int(allocated[2].sum()))} freed", look.style("dim"))
    if report.sampling:
        text.append(f"; sampled: {report.sampling}", look.style("dim"))
    return text


def _blocks(count: int) -> str:
    return wording.blocks(count) if abs(count) < 1_000_000 else f"{amounts.number(count)} blocks"


def _line(text: str, look: Look, style: str) -> Text:
    return Text(f" {safe(text)}", look.style(style), no_wrap=True, overflow="ellipsis")


def fitted(lines: Sequence[Text], most: int) -> list[Text]:
    """Return lines in at most so many, the last of which says how many there are no room for."""
    if len(lines) <= most:
        return list(lines)
    return [*lines[: most - 1], Text(f" … and {len(lines) - most + 1} lines more", no_wrap=True)]
