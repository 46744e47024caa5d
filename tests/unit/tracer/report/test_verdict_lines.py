"""Verdicts and what the looks at memory brought, a line each, for people."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest

from symbolizer.frame import Frame
from tracer.report.model import Finding, PointerNote, Reachability, Report, ScanNote
from tracer.report.verdict_lines import describe, kinds, write

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]


def written(report: Report) -> list[str]:
    out = StringIO()
    write(report, out)
    return out.getvalue().splitlines()


def test_a_verdict(finding: MakeFinding) -> None:
    """Its place, the verdict, how much in how many blocks, how fast it grows, where, and why."""
    line = describe(finding(verdict="growing", confidence="high", evidence="grows in 9 of 9 intervals", slope=(2048.0, 1.0, 3.0)))
    assert line.split() == ["#1", "growing", "4.0", "kB", "in", "4", "blocks,", "+2.0", "kB/s", "make_node:", "grows", "in", "9", "of", "9",
                            "intervals"]


@pytest.mark.parametrize(("verdict", "confidence", "shown"), [
    ("lost", "high", "lost 4.0"), ("lost", "medium", "lost (medium) 4.0"), ("steady", "low", "steady (low) 4.0"),
    ("undecided", "low", "undecided 4.0"), ("lost", None, "lost 4.0"),
])  # fmt: skip
def test_doubt_is_said(finding: MakeFinding, verdict: str, confidence: str | None, shown: str) -> None:
    """Beside a verdict that is not certain stands how certain it is; who is undecided doubts anyway."""
    assert f"#1 {shown} " in " ".join(describe(finding(verdict=verdict, confidence=confidence, evidence="x")).split())


@pytest.mark.parametrize(("slope", "shown"), [
    (None, ""), (0.4, ""), (-0.4, ""), (0.5, None), (0.6, ", +1 bytes/s"), (-700.0, ", -700 bytes/s"), (2048.0, ", +2.0 kB/s"),
    (-3 * 1024.0**2, ", -3.0 MB/s"),
])  # fmt: skip
def test_growth(finding: MakeFinding, slope: float | None, shown: str | None) -> None:
    """What is less than half a byte in a second is none; the rest has its sign."""
    line = describe(finding(verdict="growing", evidence="x", slope=None if slope is None else (slope, slope, slope)))
    assert "blocks," in line if shown is None else f"4 blocks{shown} " in line and (shown or "/s" not in line)


def test_columns_are_aligned(finding: MakeFinding) -> None:
    """The functions of several sites stand below each other, and a long verdict is not cut."""
    first, second = (describe(finding(rank=rank, bytes=size, verdict=verdict, confidence="high", evidence="x"))
                     for rank, size, verdict in ((1, 7, "lost"), (10, 1 << 30, "undecided")))
    assert first.index("make_node:") == second.index("make_node:")
    assert "growing (medium) 4.0 kB" in describe(finding(verdict="growing", confidence="medium", evidence="x"))


@pytest.mark.parametrize(("frames", "where"), [
    ((Frame(1, "operator new", module="/lib/libstdc++.so.6"), Frame(2, "make")), "make"), ((Frame(1, module="/usr/lib/libx.so"),), "libx.so"),
    ((Frame(1),), "no name"), ((), "no name"),
])  # fmt: skip
def test_where(finding: MakeFinding, frames: tuple[Frame, ...], where: str) -> None:
    """By its function, else by the library, else by nothing."""
    assert f" {where}: x" in describe(finding(frames=frames, verdict="lost", evidence="x"))


def test_sites_without_a_verdict_have_no_line(report: MakeReport, finding: MakeFinding) -> None:
    """Where nothing was judged or looked at, there is nothing to say."""
    assert written(report()) == []
    lines = written(report(finding(), finding(rank=2, verdict="lost", evidence="x")))
    assert len(lines) == 1 and lines[0].startswith("  #2 ")


def test_kinds() -> None:
    """All four kinds with bytes and blocks, the worst first."""
    assert kinds(Reachability((1024, 1), (2000, 20), (0, 0), (1_000_000, 3))) == (
        "definitely lost: 1,024 bytes in 1 block; indirectly lost: 2,000 bytes in 20 blocks; possibly lost: 0 bytes in 0 blocks; "
        "still reachable: 1,000,000 bytes in 3 blocks")


def test_scans(report: MakeReport) -> None:
    """How much was looked at and how long it took, or why it was not, and who points at what was asked for."""
    lines = written(report(
        reachability=Reachability((1, 1), (0, 0), (0, 0), (0, 0)),
        scans=(ScanNote(7, 3 << 20, 0.0123), ScanNote(8, 1 << 30, 2.0, streamed=True), ScanNote(9, failed="it ended")),
        pointers=(PointerNote("#3", ("register rbx of thread 7", "block of 8 bytes")),)))
    assert lines[0].startswith("  definitely lost: 1 bytes in 1 block")
    assert lines[1:] == [
        "  3.0 MB of pid 7 looked at; it stood still for 12 ms", "  1.0 GB of pid 8 looked at, piece by piece; it stood still for 2000 ms",
        "  the memory of pid 9 was not looked at: it ended", "  who points at #3:", "    register rbx of thread 7", "    block of 8 bytes"]


def test_what_a_look_could_not_see(report: MakeReport) -> None:
    """Memory that could not be read and threads that ran on are told of, since a pointer may be there."""
    lines = written(report(scans=(
        ScanNote(7, 4096, unreadable=8192), ScanNote(8, 4096, not_stopped=2), ScanNote(9, 4096))))
    assert [line.strip() for line in lines if "may have" in line] == [
        "8.0 kB of pid 7 could not be read: what is called lost may have a pointer there",
        "2 threads of pid 8 did not stop: what is called lost may have a pointer there"]
