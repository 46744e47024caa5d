"""The plain report, byte for byte: programs read it as memleak's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO

import pytest

from symbolizer.frame import Frame, Why
from tracer.report.model import Block, Finding, Report, Target
from tracer.report.text import describe, write

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]


def written(report: Report) -> str:
    out = StringIO()
    write(report, out)
    return out.getvalue()


def remarks(report: Report) -> str:
    """Return what stands behind a report's only finding."""
    line = next(line for line in written(report).splitlines() if "allocations from stack" in line)
    return line.partition("allocations from stack")[2]


def test_a_whole_report(report: MakeReport, finding: MakeFinding) -> None:
    """The time, then each site with its stack, in memleak's form: tab, bytes, count; two tabs, a frame."""
    second = finding(rank=2, bytes=0, count=1, frames=(Frame(0x10, why=Why.UNMAPPED),))
    assert written(report(finding(), second)) == (
        "[09:05:07] Top 2 stacks with outstanding allocations:\n"
        "\t4096 bytes in 4 allocations from stack\n"
        "\t\t0x00007f0000001234 make_node+0x12 [libnode.so.1] src/node.c:7\n"
        "\t\t0x0000000000401136 main+0x36 [server]\n"
        "\t0 bytes in 1 allocations from stack\n"
        "\t\t0x0000000000000010 (nothing is mapped there)\n"
    )


def test_nothing_outstanding(report: MakeReport) -> None:
    """A report of nothing is its heading."""
    assert written(replace(report(), findings=())) == "[09:05:07] Top 0 stacks with outstanding allocations:\n"


def test_blocks(report: MakeReport, finding: MakeFinding) -> None:
    """With -a, each block stands before its site, in memleak's form."""
    text = written(report(finding(blocks=(Block(0x5555000010, 16), Block(0xFF, 0)), frames=())))
    assert text.splitlines()[1:] == [
        "\taddr = 5555000010 size = 16", "\taddr = ff size = 0", "\t4096 bytes in 4 allocations from stack"]


@pytest.mark.parametrize(("gained_bytes", "gained_count", "expected"), [
    (1024, 2, " (+1024 bytes, +2 allocations)"), (-5, -1, " (-5 bytes, -1 allocations)"),
    (0, 0, " (+0 bytes, +0 allocations)"), (None, None, ""),
])
def test_growth(report: MakeReport, finding: MakeFinding, gained_bytes: int | None, gained_count: int | None,
                expected: str) -> None:
    """From the second report on, each site says what it gained, with its sign, also where that is nothing."""
    assert remarks(report(finding(gained_bytes=gained_bytes, gained_count=gained_count))) == expected


def test_several_processes(report: MakeReport, finding: MakeFinding) -> None:
    """Where more than one process is traced, each site says whose it is; the remarks share one pair of parentheses."""
    two = (Target(4711, "server", None), Target(4712, "other", None))
    assert remarks(report(finding(), targets=two)) == " (site 1, pid 4711)"
    assert remarks(report(finding(gained_bytes=1, gained_count=1, error=0.25), targets=two)) == (
        " (+1 bytes, +1 allocations; ±25%; site 1, pid 4711)")


def test_estimates(report: MakeReport, finding: MakeFinding) -> None:
    """Sampled figures are marked as estimates: the kind and the total in the heading, the error at each site."""
    made = report(finding(error=0.0349), sampling="one in 10 allocations", total_error=0.012)
    assert written(made).splitlines()[1] == (
        "\t(estimates from one in 10 allocations, ±1% in total; ± is one standard error)")
    assert remarks(made) == " (±3%)"
    exact = report(finding(error=0.0), sampling="one in 10 allocations", total_error=0.0)
    assert written(exact).splitlines()[1] == "\t(estimates from one in 10 allocations; ± is one standard error)"
    assert remarks(exact) == ""


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        (Frame(0x1000, "f", 0, "/a/b.so"), "0x0000000000001000 f+0x0 [b.so]"),
        (Frame(0x1000, "f", None, "/a/b.so"), "0x0000000000001000 f [b.so]"),
        (Frame(0x1000, "f", 255, "b.so"), "0x0000000000001000 f+0xff [b.so]"),
        (Frame(0x1000, "f", 1), "0x0000000000001000 f+0x1"),
        (Frame(0x1000, "f", 1, "/x", None, "a.c", 12), "0x0000000000001000 f+0x1 [x] a.c:12"),
        (Frame(0x1000, "f", 1, "/x", None, "a.c", 0), "0x0000000000001000 f+0x1 [x] a.c"),
        (Frame(0x1000, "f", 1, "/x", None, "a.c", None), "0x0000000000001000 f+0x1 [x] a.c"),
        (Frame(0x1000, "f", 1, "/x", None, "a.c", 3, inlined=True), "0x0000000000001000 f [inlined] [x] a.c:3"),
        (Frame(0x1000, "f", None, "/x", inlined=True), "0x0000000000001000 f [inlined] [x]"),
        (Frame(0xFFFFFFFFFFFFFFFF, "f", 1), "0xffffffffffffffff f+0x1"),
        (Frame(0x1000, why=Why.UNMAPPED), "0x0000000000001000 (nothing is mapped there)"),
        (Frame(0x1000, module="/x/lib.so", why=Why.NO_SYMBOLS), "0x0000000000001000 (no symbols) [lib.so]"),
        (Frame(0x1000, module="/x/lib.so", why=Why.NOT_COVERED), "0x0000000000001000 (no symbol covers it) [lib.so]"),
        (Frame(0x1000, module="/x/lib.so", why=Why.GONE), "0x0000000000001000 (file gone) [lib.so]"),
        (Frame(0x1000, module="/x/lib.so", why=Why.UNREADABLE), "0x0000000000001000 (file unreadable) [lib.so]"),
        (Frame(0x1000, why=Why.UNWIND_STOPPED), "(the stack could not be followed further)"),
    ],
)
def test_frames(frame: Frame, expected: str) -> None:
    """Address, function and offset, module by its base name, source line; without a name, the reason."""
    assert describe(frame) == expected


@pytest.mark.parametrize("why", Why)
def test_every_reason_has_words(why: Why) -> None:
    """No reason for a missing name is without a text of its own."""
    assert "(" in describe(Frame(1, why=why))


def test_no_terminal_escapes(report: MakeReport, finding: MakeFinding) -> None:
    """The writer adds no control characters but tabs and newlines: it is read by programs."""
    text = written(report(finding(gained_bytes=1, gained_count=1, error=0.5, blocks=(Block(1, 1),)), sampling="x"))
    assert text.replace("\n", "").replace("\t", "").isprintable()
    assert text.endswith("\n")


def test_it_is_flushed(report: MakeReport) -> None:
    """Whoever reads through a pipe has each report when it is made."""

    class Out(StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    out = Out()
    write(report(), out)
    assert out.flushed == out.getvalue() != ""
