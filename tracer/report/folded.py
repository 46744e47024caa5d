"""The report as folded stacks: a line for each, calls from the outermost on with semicolons between, then its bytes.

flamegraph.pl, speedscope and the Firefox Profiler read it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import TextIO

from symbolizer.frame import Frame
from tracer.report.flame_tree import NO_STACK, name_of
from tracer.report.model import Finding, Report

_NUMBER_AT_END = re.compile(r"\s+(?=\d+(?:\.\d*)?$)")


def write(report: Report, out: TextIO, value: Callable[[Finding], int] = lambda finding: finding.bytes) -> None:
    """Write every stack that holds anything, each once; value: what of a site is written, whole and more than 0."""
    stacks: dict[str, int] = {}
    for finding in report.findings:
        if (amount := value(finding)) > 0:
            stack = fold(finding.frames)
            stacks[stack] = stacks.get(stack, 0) + amount
    out.writelines(f"{stack} {amount}\n" for stack, amount in stacks.items())
    out.flush()


def fold(frames: Sequence[Frame]) -> str:
    """Return the names of frames, which are innermost first, from the outermost on.

    Spaces in names stay, as readers take the end of a line for its value; but one before a number at the end would make
    that number a value too, and becomes _. Semicolons become colons.
    """
    stack = ";".join([name_of(frame).replace(";", ":") for frame in reversed(frames)]) or NO_STACK
    return _NUMBER_AT_END.sub("_", stack)
