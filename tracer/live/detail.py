"""What is known of the chosen site: figures, verdict, evidence, and its stack with source lines."""

from __future__ import annotations

from collections.abc import Callable

from rich.text import Text

from symbolizer.frame import Frame
from tracer.live import amounts
from tracer.live.board import Board
from tracer.live.curves import LENGTH, spark
from tracer.live.look import Look
from tracer.report import wording
from tracer.report.html_source import Excerpt, excerpts
from tracer.report.model import Finding
from tracer.report.terminal_page import VERDICTS, safe
from tracer.report.terminal_stack import frame_lines, own_frames

#: Files that are kept once read.
_MOST = 500

Read = Callable[[str, int], Excerpt | None]


class Sources:
    """Lines of source files, each read once."""

    def __init__(self) -> None:
        self._read: dict[tuple[str, int], Excerpt | None] = {}

    def around(self, file: str, line: int, taken: float) -> Excerpt | None:
        """Return what stands around a line, None where the file is not here. taken: when it was reported, unix time."""
        if (file, line) not in self._read:
            if len(self._read) > _MOST:
                self._read.clear()
            self._read[file, line] = excerpts([(file, line)], taken).get(file)
        return self._read[file, line]


def detail(board: Board, row: int, look: Look, sources: Sources, width: int, *, large: bool) -> list[Text]:
    """Return the lines on the site of a row; large: with more source around each frame."""
    finding, report = board.finding(row), board.report
    if finding is None or report is None:
        return [Text(" This site is being looked at anew.", look.style("dim"))]
    known = board.known(row)
    lines = [Text.assemble((f" {known.name}", look.style("bold")), ("  " + known.module, look.style("dim")),
                           (f"  ({known.source})", look.style("dim")), no_wrap=True, overflow="ellipsis")]
    lines += _opinion(finding, look)
    lines += [_figures(board, row, finding), *_curve(board, row, look, large)]
    is_own = own_frames(report)
    own = [is_own(frame) for frame in finding.frames]
    for frame, mine in zip(finding.frames, own, strict=True):
        style = "bold" if mine else "dim" if any(own) else ""
        for line in frame_lines(frame, width - 2, style):
            line.stylize(look.style(""))
            lines.append(_recoloured(Text.assemble(" ", line), look))
        lines += _source(frame, look, sources, report.taken.timestamp(), large=large)
    return lines


def _opinion(finding: Finding, look: Look) -> list[Text]:
    if finding.verdict is None:
        return []
    expected = finding.expected_loss or 0.0
    loss = f", expected loss {wording.size(expected)}/s" if expected >= 0.5 else ""
    sure = f" ({finding.confidence} confidence)" if finding.confidence else ""
    return [Text.assemble(" ", (finding.verdict, look.style(VERDICTS.get(finding.verdict, ""))), f"{sure}{loss}: ",
                          safe(finding.evidence or ""))]


def _figures(board: Board, row: int, finding: Finding) -> Text:
    figures = board.figures
    allocated = figures.allocated[:, row]
    text = (f" {wording.size(int(figures.bytes[row]))} in {wording.blocks(int(figures.count[row]))}; "
            f"allocated {wording.size(int(allocated[0]))} in {int(allocated[1]):,}, freed {int(allocated[2]):,}")
    if finding.oldest_s is not None:
        text += f"; oldest {amounts.age(finding.oldest_s)}"
    if finding.slope is not None:
        middle, low, high = finding.slope
        text += f"; slope {wording.size(middle)}/s ({wording.size(low)} to {wording.size(high)})"
    if finding.error:
        text += f"; ±{finding.error:.0%}"
    if finding.stacks > 1:
        text += f"; {finding.stacks} stacks"
    if finding.processes > 1:
        text += f"; in {finding.processes} processes, most in {finding.pid}"
    return Text(text)


def _curve(board: Board, row: int, look: Look, large: bool) -> list[Text]:
    if not large:
        return []
    values = board.curves.values[row]
    gains = values[1:] - values[:-1]
    return [Text.assemble(f" {title:<7}", (spark(curve, LENGTH, look.marks), look.style("cyan")),
                          f"  {amounts.size(curve[-1])}")
            for title, curve in (("held", values), ("gained", gains))]


def _source(frame: Frame, look: Look, sources: Sources, taken: float, *, large: bool) -> list[Text]:
    if frame.file is None or not frame.line:
        return []
    found = sources.around(frame.file, frame.line, taken)
    if found is None:
        return []
    around = 2 if large else 0
    made = []
    for number in range(frame.line - around, frame.line + around + 1):
        if number not in found.lines:
            continue
        here = number == frame.line
        line = f"      {'>' if here else ' '} {number:>5}  {safe(found.lines[number].expandtabs(4))}"
        made.append(Text(line, look.style("green" if here else "dim"), no_wrap=True, overflow="ellipsis"))
    if found.changed and made:
        made.append(Text("                (this file is newer than the report)", look.style("yellow")))
    return made


def _recoloured(text: Text, look: Look) -> Text:
    """Return a text whose styles have no colour where there is to be none."""
    if not look.colours:
        text.spans = [span._replace(style=look.style(str(span.style))) for span in text.spans]
    return text
