"""The formats of `leaktrace report`: all there, each a whole document, and quick with as many sites as a trace has."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BytesIO

import pytest

from tests.unit.tracer.report.many_sites import report as many_sites
from tests.unit.tracer.report.many_sites import series as many_series
from tracer.report.formats import FORMATS
from tracer.report.html_series import Series
from tracer.report.model import Report
from tracer.report.pprof_messages import profile_class

MakeReport = Callable[..., Report]
#: Formats of stacks, blocks and figures; how long the page takes is tested with it.
MEASURED = ("json", "pprof", "folded", "speedscope", "flamegraph", "openmetrics")


@dataclass(frozen=True)
class Facts:
    leaktrace: str = "9.8.7"
    command: tuple[str, ...] = ("/somewhere/tracer/cli/__main__.py", "-p", "4711")


@dataclass(frozen=True)
class Recording:
    """A recording of one report."""

    only: Report
    facts: Facts = field(default_factory=Facts)

    def __len__(self) -> int:
        return 1

    def series(self) -> Series:
        raise NotImplementedError("these formats are of one moment")

    def report(self, number: int = -1, top: int | None = None, sort: str = "loss") -> Report:
        assert number == 0 and sort == "size"
        return self.only


def written(name: str, report: Report) -> bytes:
    out = BytesIO()
    FORMATS[name].write(Recording(report), 0, None, "size", out)
    assert not out.closed, "the caller's file is the caller's to close"
    return out.getvalue()


def test_the_formats_that_are_promised() -> None:
    """Each format of the command line's help is there, and only text and JSON have room for several reports."""
    assert set(FORMATS) == {"text", "json", "html", "pprof", "folded", "speedscope", "flamegraph", "openmetrics"}
    assert {name for name, form in FORMATS.items() if form.many} == {"text", "json"}


def test_each_is_what_its_readers_open(report: MakeReport) -> None:
    """Each format begins and ends as its readers expect."""
    assert written("folded", report()) == b"main;make_node 4096\n"
    assert json.loads(written("speedscope", report()))["profiles"][0]["weights"] == [4096]
    assert written("flamegraph", report()).startswith(b"<svg ") and written("flamegraph", report()).endswith(b"</svg>\n")
    assert written("openmetrics", report()).endswith(b"\n# EOF\n")


def test_a_profile_says_what_was_traced_and_by_what(report: MakeReport) -> None:
    """It has the command line of the recording, as one types it, and the version that recorded."""
    made = profile_class().FromString(gzip.decompress(written("pprof", report())))
    said = [made.string_table[place] for place in made.comment]
    assert said[:2] == ["leaktrace 9.8.7", "command: leaktrace -p 4711"]


def test_figures_of_a_recording_have_their_time(report: MakeReport) -> None:
    """What is recorded is past, so that each value says when it was taken."""
    lines = written("openmetrics", report()).decode().splitlines()
    stamp = f" {report().taken.timestamp():.3f}"
    assert all(line.endswith(stamp) for line in lines if not line.startswith("#"))


@pytest.fixture(scope="module")
def large() -> Report:
    """Return a report of 10,000 sites."""
    return many_sites(many_series(moments=2))


@pytest.mark.parametrize("name", MEASURED)
def test_ten_thousand_sites_are_quick(large: Report, name: str) -> None:
    """A report as large as they get takes a second; 4 s of processor time would be another algorithm."""
    written(name, large)
    begin = time.process_time()
    assert len(written(name, large)) > 10_000
    assert time.process_time() - begin < 4
