"""The stacks of a report for the page: every text, frame and call once, as columns of numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from symbolizer.frame import Frame, Why
from tracer.report.flame_tree import name_of, printable

#: Where a distribution keeps files that belong to no one program.
_SYSTEM = ("/usr/lib", "/lib", "/usr/local/lib", "/nix/store", "/snap")
#: Containers and smart pointers are made in every program that uses them.
_TEMPLATES = ("std::", "__gnu_cxx::", "_ZSt", "_ZNSt", "_ZNKSt", "_ZN9__gnu_cxx")
#: Characters of a text that are kept; no compiler's name is so long, but anybody can write a recording.
LONGEST = 4000
#: Bits of a frame's flags.
INLINED, LIBRARY, CUT = 1, 2, 4


def is_library(frame: Frame, programs: frozenset[str]) -> bool:
    """Whether a frame is a library's and not the program's own; programs: the paths of the traced programs."""
    name = frame.function or ""
    # A template's name begins with the type that it returns.
    returned, _, rest = name.partition(" ")
    if rest and not {"(", "<"} & set(returned):
        name = rest if rest.startswith(_TEMPLATES) else name
    if name == "_start" or name.startswith(_TEMPLATES):
        return True
    module = frame.module
    return module is not None and module not in programs and module.startswith(_SYSTEM)


class Texts:
    """All texts of a report, each by its number; None is -1."""

    def __init__(self) -> None:
        """Start without any."""
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str | None) -> int:
        """Return the number of a text, cut where it is too long, with escapes for signs that are not shown."""
        if text is None:
            return -1
        shown = printable(text if len(text) <= LONGEST else f"{text[:LONGEST]}…")
        return self._numbers.setdefault(shown, len(self._numbers))

    def document(self) -> list[str]:
        """Return all texts in the order of their numbers."""
        return list(self._numbers)


class Stacks:
    """All stacks of a report as one tree of calls: a stack is the number of its innermost call."""

    def __init__(self, texts: Texts, programs: frozenset[str]) -> None:
        """Start without any; programs: the paths of the traced programs."""
        self._texts, self._programs = texts, programs
        self._frames: dict[Frame, int] = {}
        self._calls: dict[tuple[int, int], int] = {}

    def add(self, frames: Sequence[Frame]) -> int:
        """Return the number of the innermost call of a stack, whose frames are innermost first; -1: there are none."""
        call = -1
        for frame in reversed(frames):
            number = self._frames.setdefault(frame, len(self._frames))
            call = self._calls.setdefault((call, number), len(self._calls))
        return call

    @property
    def frames(self) -> tuple[Frame, ...]:
        """Return all frames in the order of their numbers."""
        return tuple(self._frames)

    def document(self) -> dict[str, Any]:
        """Return the columns of all frames, and of all calls the numbers of caller (-1: none) and frame."""
        text, frames = self._texts, self.frames
        return {
            "frames": {
                "name": [text(name_of(frame)) for frame in frames],
                "module": [text(frame.module) for frame in frames],
                "file": [text(frame.file) for frame in frames],
                "line": [frame.line or 0 for frame in frames],
                # As text, because a kernel's address is no whole number in JavaScript.
                "address": [f"{frame.address:x}" for frame in frames],
                "offset": [-1 if frame.offset is None or frame.inlined else frame.offset for frame in frames],
                "why": [text(frame.why.value if frame.why else None) for frame in frames],
                "repeats": [frame.repeats for frame in frames],
                "flags": [self._flags(frame) for frame in frames],
            },
            "calls": {"caller": [caller for caller, _ in self._calls], "frame": [frame for _, frame in self._calls]},
        }

    def _flags(self, frame: Frame) -> int:
        return (INLINED * frame.inlined | LIBRARY * is_library(frame, self._programs)
                | CUT * (frame.why is Why.UNWIND_STOPPED))
