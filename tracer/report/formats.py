"""The formats of `leaktrace report`, by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Protocol

from tracer.report import json, text
from tracer.report.model import Report


class Recorded(Protocol):
    """A recording: reports by number, each with the first top sites (None: all) in an order."""

    def report(self, number: int = -1, top: int | None = None, sort: str = "loss") -> Report:
        """Return one report."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format. top: how many sites it has unless told otherwise, None: all. many: several reports may follow."""

    meaning: str
    write: Callable[[Recorded, int, int | None, str, BinaryIO], None]
    top: int | None = None
    many: bool = False


def _as_text(write: Callable[[Report, io.TextIOWrapper], None]) -> Callable[..., None]:
    """Return a writer of one report's text."""

    def run(recorded: Recorded, number: int, top: int | None, sort: str, out: BinaryIO) -> None:
        lines = io.TextIOWrapper(out, "utf-8", "backslashreplace", write_through=True)
        write(recorded.report(number, top, sort), lines)
        lines.detach()

    return run


FORMATS = {
    "text": Format("as it was shown", _as_text(text.write), top=10, many=True),
    "json": Format("one document, schema leaktrace/1", _as_text(json.write), many=True),
}
