"""The formats of `leaktrace report`, by name."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO, Protocol, TextIO

from symbolizer.frame import Frame
from tracer.report import flamegraph, folded, html, json, openmetrics, pprof, speedscope, text
from tracer.report.html_series import Series
from tracer.report.model import Report


class Facts(Protocol):
    """What a recording is of."""

    @property
    def leaktrace(self) -> str:
        """Return the version that made it."""

    @property
    def command(self) -> tuple[str, ...]:
        """Return the command line that made it, with the program's own name."""


class Recorded(Protocol):
    """A recording: reports by number, each with the first top sites (None: all) in an order."""

    @property
    def facts(self) -> Facts:
        """Return what it is of."""

    def __len__(self) -> int:
        """Return how many reports there are."""

    def series(self) -> Series:
        """Return how the sites developed."""

    def report(self, number: int = -1, top: int | None = None, sort: str = "loss") -> Report:
        """Return one report."""


@dataclass(frozen=True, slots=True)
class Format:
    """One format. top: how many sites it has unless told otherwise, None: all. many: several reports may follow.

    binary: it is no text.
    """

    meaning: str
    write: Callable[[Recorded, int, int | None, str, BinaryIO], None]
    top: int | None = None
    many: bool = False
    binary: bool = False


def _as_text(write: Callable[[Report, TextIO], None]) -> Callable[..., None]:
    """Return a writer of one report's text."""

    def run(recorded: Recorded, number: int, top: int | None, sort: str, out: BinaryIO) -> None:
        lines = io.TextIOWrapper(out, "utf-8", "backslashreplace", write_through=True)
        write(recorded.report(number, top, sort), lines)
        lines.detach()

    return run


def _pprof(recorded: Recorded, number: int, top: int | None, sort: str, out: BinaryIO) -> None:
    command = ("leaktrace", *recorded.facts.command[1:])
    pprof.write(recorded.report(number, top, sort), out, command, recorded.facts.leaktrace)


FORMATS = {
    "text": Format("as it was shown", _as_text(text.write), top=10, many=True),
    "json": Format("one document, schema leaktrace/1", _as_text(json.write), many=True),
    "html": Format("one page for a browser, without a network", html.write_recorded, top=html.SITES),
    "pprof": Format("a gzipped profile for pprof, Pyroscope and Parca", _pprof, binary=True),
    "folded": Format("a line for each stack with its bytes, for flamegraph.pl and others", _as_text(folded.write)),
    "speedscope": Format("JSON for speedscope", _as_text(speedscope.write)),
    "flamegraph": Format("an SVG of live bytes, for a browser", _as_text(flamegraph.write)),
    "openmetrics": Format("figures for Prometheus, with their time", _as_text(partial(openmetrics.write, stamped=True)),
                          top=openmetrics.SITES),
}


def naming_sites(fingerprint: Callable[[tuple[Frame, ...]], str]) -> Format:
    """Return the format openmetrics that names sites by fingerprint, as a trace does that is scraped."""
    write = partial(openmetrics.write, fingerprint=fingerprint, stamped=True)
    return replace(FORMATS["openmetrics"], write=_as_text(write))
