"""A comparison with the kernel's own books, as a table for people and in the document for programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from json import loads

import pytest

from tracer.report import json, judged, text
from tracer.report.cross_lines import documents, lines
from tracer.report.cross_model import CrossNote, CrossOnly, CrossRow
from tracer.report.model import Finding, Judgement, Report

MakeReport = Callable[..., Report]
GROW = CrossRow("tree_grow", 409600, 100, 409600, 100, "agrees", ("fs/tree.c:71",))
RING = CrossRow("ring_alloc", 8192, 2, 4096, 1, "differs", ("drivers/ring.c:9 [ring]", "drivers/ring.c:30 [ring]"))
COPY = CrossRow("copy", 64, 1, 96, 2, "inaccurate")
OLD = CrossRow("old", 0, 0, -64, -1, "older")
NOTE = CrossNote("allocinfo", (GROW, RING, COPY, OLD), (CrossOnly("mine", 4096, 1),), (CrossOnly("gone", -512, -2), CrossOnly("few", 8, 1)),
                 "Of 4 functions, one agrees.", ("Own ones are missing.",))
TEXT = """\
Compared with the kernel's own account (/proc/allocinfo):
\t leaktrace, bytes    blocks    kernel, bytes    blocks       difference    blocks  function
\t          409,600       100          409,600       100                0         0  tree_grow (fs/tree.c:71)
\t            8,192         2            4,096         1           +4,096        +1  ring_alloc (differs, drivers/ring.c:9 [ring], … (2 places))
\t               64         1               96         2              -32        -1  copy (not exact)
\t                0         0              -64        -1              +64        +1  old (older ones freed?)
\tin the trace only:
\t            4,096         1  mine
\tin the kernel's books only:
\t             -512        -2  gone
\t                8         1  few
Of 4 functions, one agrees.
Own ones are missing.
"""


def test_everything_is_in_columns(report: MakeReport) -> None:
    """Each function has its two figures and their difference in a line, then come those that one side knows only, and the sentences."""
    assert "".join(f"{line}\n" for line in lines(report(cross_checks=(NOTE,)), 10)) == TEXT


def test_no_list_is_longer_than_asked(report: MakeReport) -> None:
    """Each of the three lists ends after the number that was asked for, and says how many are left."""
    found = list(lines(report(cross_checks=(NOTE,)), 1))
    assert sum("tree_grow" in line or "ring_alloc" in line for line in found) == 1
    assert "\tand 3 more functions" in found and "\tand 1 more function" in found and not any(line.endswith("few") for line in found)


def test_what_the_detector_does_not_name_is_not_listed(report: MakeReport) -> None:
    """Blocks in use are no contradiction to kmemleak; in the document they are."""
    detected = replace(NOTE, book="kmemleak")
    found = list(lines(report(cross_checks=(detected,)), 10))
    assert found[0] == "Compared with the kernel's leak detector (kmemleak):"
    assert not any("mine" in line for line in found) and any("gone" in line for line in found)
    assert documents([detected])[0]["only_traced"] == ({"function": "mine", "bytes": 4096, "count": 1},)


def test_a_book_that_cannot_be_read(report: MakeReport) -> None:
    """Where there is nothing to compare, only the reason is said."""
    assert list(lines(report(cross_checks=(CrossNote("allocinfo", summary="It is off."),)), 10))[1:] == ["It is off."]


def test_it_is_in_every_form_of_the_report(report: MakeReport, finding: Callable[..., Finding]) -> None:
    """The plain report shows as many functions as it does sites, the judged one as many as it is told."""
    out = StringIO()
    text.write(report(cross_checks=(NOTE,)), out)
    assert "tree_grow" in out.getvalue() and "ring_alloc" not in out.getvalue()
    out = StringIO()
    text.write(report(finding(), finding(rank=2), finding(rank=3), finding(rank=4), cross_checks=(NOTE,)), out)
    assert TEXT in out.getvalue()
    out = StringIO()
    judged.write(report(cross_checks=(NOTE,)), Judgement((), (), 0), out, top=10)
    assert TEXT in out.getvalue()


def test_the_document_has_all_of_it(report: MakeReport) -> None:
    """Rows say both figures, their difference, how they stand and where in the source they are."""
    out = StringIO()
    json.write(report(cross_checks=(NOTE,)), out)
    (found,) = loads(out.getvalue())["cross_check"]
    assert found["book"] == "allocinfo" and found["summary"] == NOTE.summary and found["notes"] == list(NOTE.notes)
    assert [row["function"] for row in found["rows"]] == ["tree_grow", "ring_alloc", "copy", "old"]
    assert found["rows"][1] == {
        "function": "ring_alloc", "bytes": 8192, "count": 2, "kernel_bytes": 4096, "kernel_count": 1, "standing": "differs",
        "places": ["drivers/ring.c:9 [ring]", "drivers/ring.c:30 [ring]"], "difference_bytes": 4096, "difference_count": 1}
    assert found["only_kernel"][0] == {"function": "gone", "bytes": -512, "count": -2}


@pytest.mark.parametrize("write", [text.write, json.write])
def test_reports_without_a_comparison_have_none(report: MakeReport, write: Callable[[Report, StringIO], None]) -> None:
    """Where it was not asked for, nothing is said of it."""
    out = StringIO()
    write(report(), out)
    assert "ompared" not in out.getvalue() and "cross_check" not in out.getvalue()
