"""The formats of `leaktrace diff`, by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, TextIO

from tracer.report import (
    diff_flamegraph,
    diff_folded,
    diff_html,
    diff_json,
    diff_pprof,
    diff_speedscope,
    diff_text,
)
from tracer.report.diff_model import Difference


@dataclass(frozen=True, slots=True)
class DiffFormat:
    """One format. top: how many sites it has unless told otherwise, None: all."""

    meaning: str
    write: Callable[[Difference, int | None, BinaryIO], None]
    top: int | None = None


def _as_text(
        write: Callable[[Difference, int | None, TextIO], None]) -> Callable[[Difference, int | None, BinaryIO], None]:
    """Return a writer of bytes for one of text."""

    def run(made: Difference, top: int | None, out: BinaryIO) -> None:
        lines = io.TextIOWrapper(out, "utf-8", "backslashreplace", write_through=True)
        write(made, top, lines)
        lines.detach()

    return run


DIFF_FORMATS = {
    "text": DiffFormat("the sites that changed", _as_text(diff_text.write), top=10),
    "json": DiffFormat("one document, schema leaktrace-diff/1", _as_text(diff_json.write)),
    "html": DiffFormat("one page with a table and a flame graph", _as_text(diff_html.write)),
    "flamegraph": DiffFormat("an SVG, red where it grew and blue where it shrank", _as_text(diff_flamegraph.write)),
    "folded": DiffFormat("stacks with their bytes before and after", _as_text(diff_folded.write)),
    "speedscope": DiffFormat("JSON for speedscope, gains and losses apart", _as_text(diff_speedscope.write)),
    "pprof": DiffFormat("a gzipped profile with before subtracted", diff_pprof.write),
}
