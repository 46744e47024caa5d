"""The report as one HTML file that opens from disk without a network."""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from datetime import datetime
from math import isfinite
from typing import Any, BinaryIO, Protocol

from tracer.report import html_data
from tracer.report.html_page import page
from tracer.report.html_series import Series, curves
from tracer.report.html_source import excerpts
from tracer.report.html_stacks import Stacks, Texts
from tracer.report.model import Report

#: Sites that a page has unless more are asked for: so many take about 3 MB.
SITES = 10_000
#: Facts of a recording that the page names, and what it calls them.
_FACTS = (("command", "Command"), ("host", "Machine"), ("machine", "Architecture"), ("processors", "Processors"),
          ("started", "Started"), ("leaktrace", "leaktrace"))


class Recorded(Protocol):
    """A recording: its reports, how its sites developed, and facts (tracer.recorder.Facts)."""

    @property
    def facts(self) -> Any:
        """Return what the recording is of."""

    def __len__(self) -> int:
        """Return how many reports there are."""

    def report(self, number: int = -1, top: int | None = None, sort: str = "loss") -> Report:
        """Return one report; its table of sites has as keys the rows of the series."""

    def series(self) -> Series:
        """Return how the sites developed."""


def write_recorded(recorded: Recorded, number: int, top: int | None, sort: str, out: BinaryIO) -> None:
    """Write one report of a recording with the curves of its sites, and source lines where this machine has them."""
    number = range(len(recorded))[number]
    report = recorded.report(number, top, sort)
    facts = {name: _words(getattr(recorded.facts, fact, "")) for fact, name in _FACTS}
    facts["Command"] = _words(("leaktrace", *recorded.facts.command[1:]))
    series = recorded.series() if len(recorded) > 1 else None
    write(report, out, series=series, number=number, facts=facts, source=True)


def write(report: Report, out: BinaryIO, *, series: Series | None = None, number: int = -1,
          facts: Mapping[str, str] | None = None, source: bool = False) -> None:
    """Write one report as a page.

    series: how its sites developed, in rows that are the keys of its table of sites; number: which of its moments the
    report is. facts: more about the trace, by their names. source: read source lines, from whatever source files the
    frames name: not for a page that others see than the user who may read them.
    """
    texts = Texts()
    programs = frozenset(target.exe for target in report.targets if target.exe)
    stacks = Stacks(texts, programs)
    made = html_data.document(report, stacks, texts)
    made["facts"] = list((facts or {}).items())
    if source:
        found = excerpts(html_data.places(stacks.frames), report.taken.timestamp())
        made["excerpts"] = html_data.excerpts_document(found, texts)
    data = {}
    if series is not None and report.sites is not None:
        rows = report.sites.key[report.sites.order[: len(report.findings)]].astype(int)
        drawn = curves(series, rows, number % len(series.times))
        data["curves"] = drawn.packed
        made["curves"] = drawn.facts
    data["report"] = zlib.compress(_json(made))
    out.write(page(f"{made['title']} – leaktrace", data).encode("utf-8", "backslashreplace"))


def _json(made: Any) -> bytes:
    try:
        return json.dumps(made, allow_nan=False, separators=(",", ":")).encode()
    except ValueError:
        # No trace has a time that is infinite or no number, but a file that calls itself a recording may.
        return json.dumps(_finite(made), allow_nan=False, separators=(",", ":")).encode()


def _finite(value: Any) -> Any:
    """Return JSON's own types with None for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {name: _finite(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def _words(value: object) -> str:
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="seconds")
    return " ".join(map(str, value)) if isinstance(value, tuple | list) else str(value)
