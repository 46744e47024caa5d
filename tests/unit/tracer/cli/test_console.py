"""What is said on stderr about a trace."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from tracer.attach.allocators import C_FUNCTIONS, CXX_FUNCTIONS, FoundFunction
from tracer.attach.links import PlannedProbe
from tracer.attach.probe_sites import ProbeSite
from tracer.cli.console import Console, describe_probe, summary
from tracer.listener import TraceLine
from tracer.report.model import LossNote, Report, Totals
from tracer.settings import Settings

ENTRIES = {entry.name: entry for entry in C_FUNCTIONS + CXX_FUNCTIONS}


def probe(name: str, site: ProbeSite = ProbeSite(0, True), exits: tuple[int, ...] = ()) -> PlannedProbe:  # noqa: B008  # frozen
    return PlannedProbe(FoundFunction(ENTRIES[name], name, 0x1000), site, 0x1000, ENTRIES[name], exits)


def test_summary() -> None:
    """C's functions by name; the operators, whose names are long, by their number."""
    assert summary([probe("malloc"), probe("free")]) == "malloc, free"
    assert summary([probe("malloc"), probe("_Znwm"), probe("_ZdaPv")]) == (
        "malloc and 2 forms of operator new and delete")


@pytest.mark.parametrize(("made", "expected"), [
    (probe("malloc"), "malloc+0x0, and its return"),
    (probe("free", ProbeSite(3, True)), "free+0x3"),
    (probe("free", ProbeSite(0, False)), "free+0x0, single-stepped"),
    (probe("_Znwm", ProbeSite(4, True), (1, 2)), "operator new(unsigned long)+0x4, and at 2 return instructions"),
])
def test_probes(made: PlannedProbe, expected: str) -> None:
    """Where a probe sits, and whether it costs a second trap, a return or return instructions."""
    assert describe_probe(made) == expected


@pytest.fixture
def lossy() -> Callable[[int], Report]:
    """Return a function that gives a report with so many lost events."""
    return lambda count: Report(datetime(2026, 3, 1, tzinfo=UTC), 1.0, "6.18", (), Totals(0, 0, 0, 0, 0), (),
                                (LossNote("event", count, 0, "events were lost", "do this"),) if count else (), True)


def test_losses_are_said_when_they_grow(capsys: pytest.CaptureFixture[str], lossy: Callable[[int], Report]) -> None:
    """Each report's losses are said once, and again only when there are more."""
    console = Console(Settings())
    said = []
    for count in (0, 3, 3, 5):
        console.losses(lossy(count))
        captured = capsys.readouterr()
        assert captured.out == ""
        said.append(captured.err)
    assert said == ["", "leaktrace: 3 events were lost: do this\n", "", "leaktrace: 5 events were lost: do this\n"]


def test_trace_lines(capsys: pytest.CaptureFixture[str]) -> None:
    """--trace prints in memleak's words, on stdout, when, who, how much and where."""
    console = Console(Settings())
    console.traced(TraceLine(1.5, 42, 43, True, 0x5555_0010, 64))
    console.traced(TraceLine(2.25, 42, 43, False, 0x5555_0010, 64))
    assert capsys.readouterr().out == ("(1.500000 pid 42 tid 43) alloc exited, size = 64, result = 55550010\n"
                                       "(2.250000 pid 42 tid 43) free entered, address = 55550010, size = 64\n")


def test_timing_is_for_the_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """How long things took is said with -v only."""
    Console(Settings()).listener().timing("slow")
    Console(Settings(verbose=True)).listener().timing("report took 1 s")
    assert capsys.readouterr().err == "leaktrace: report took 1 s\n"
