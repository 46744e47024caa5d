"""Stacks for a terminal: a line for each frame, and the program's own set off from those of libraries."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.text import Text

from symbolizer.frame import Frame
from tracer.report.model import Report
from tracer.report.terminal_names import cut
from tracer.report.terminal_page import QUIET, STRONG, Page, plain, safe
from tracer.report.text import describe

#: What frames of the kernel itself have for a module; those of its modules have theirs.
_KERNEL = "[kernel]"
#: Columns that a name has at least, however long what stands beside it.
_LEAST_NAME = 24

IsOwn = Callable[[Frame], bool]


def own_frames(report: Report) -> IsOwn:
    """Return what says whether a frame is of the program that was traced; of the kernel, whether it is of a module."""
    if report.sources:
        return lambda frame: frame.module not in (None, _KERNEL)
    programs = {target.exe for target in report.targets if target.exe}
    return lambda frame: frame.module in programs


def put_stack(page: Page, frames: Sequence[Frame], is_own: IsOwn, indent: int) -> None:
    """Add a stack, innermost first."""
    own = [is_own(frame) for frame in frames]
    # Where all is of libraries, nothing is set off.
    other = QUIET if any(own) else ""
    for frame, mine in zip(frames, own, strict=True):
        for line in frame_lines(frame, page.width - indent, STRONG if mine else other):
            page.put(line, indent)


def frame_lines(frame: Frame, width: int, style: str) -> list[Text]:
    """Return a frame as a line, or two where its place in the source does not fit beside its name."""
    if frame.function is None:
        return [plain(describe(frame), style or QUIET)]
    address = f"{frame.address:#018x} "
    offset = "" if frame.offset is None or frame.inlined else f"+{frame.offset:#x}"
    remarks = offset
    if frame.inlined:
        remarks += " [inlined]"
    if frame.repeats > 1:
        remarks += f" (x{frame.repeats})"
    if frame.module is not None:
        remarks += f" [{safe(frame.module.rpartition('/')[2])}]"
    name = safe(frame.function)
    place = None
    if frame.file is not None:
        place = safe(f"{frame.file}:{frame.line}" if frame.line else frame.file)
    room = max(_LEAST_NAME, width - len(address) - len(remarks))
    line = Text.assemble((address, QUIET), (cut(name, room), style), (remarks, QUIET), overflow="fold")
    if place is None:
        return [line]
    if line.cell_len + 1 + len(place) <= width:
        return [line.append(f" {place}", "cyan")]
    return [line, Text(" " * len(address), overflow="fold").append(place, "cyan")
            if len(address) + len(place) <= width else Text(f"  {place}", "cyan", overflow="fold")]
