"""JUnit XML, as the test reporters of Jenkins, GitLab and GitHub read it."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO, TextIOWrapper
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.frame import Frame, Why
from tests.unit.tracer.report.conftest import FINDING, LOST, MISMATCH, MISUSES, REPORT
from tracer.report.junit import write
from tracer.report.misuse_model import Misuses
from tracer.report.model import Finding, Judged, Judgement, LossNote, Outcome, Report, Target

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]

LOSS = LossNote("outstanding_full", 12, 480, "allocations (480 bytes) are missing", "raise --max-outstanding")


def judged(finding: Finding, outcome: Outcome = Outcome.FAILED, reason: str = "bytes>0", fingerprint: str = "0123456789abcdef") -> Judged:
    return Judged(finding, outcome, reason, fingerprint)


def judgement(*sites: Judged, totals: tuple[str, ...] = (), unused: tuple[str, ...] = ()) -> Judgement:
    return Judgement(sites, totals, 23, unused)


def written(report: Report, judgement: Judgement) -> ElementTree.Element:
    out = StringIO()
    write(report, judgement, out)
    return ElementTree.fromstring(out.getvalue())


def counts(element: ElementTree.Element) -> list[str | None]:
    return [element.get(name) for name in ("tests", "failures", "errors", "skipped")]


def test_a_whole_document(report: MakeReport, finding: MakeFinding) -> None:
    """One suite for the process, one case for the site, with figures, budget and stack."""
    out = StringIO()
    write(report(), judgement(judged(finding())), out)
    assert out.getvalue() == (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        '<testsuites name="leaktrace" tests="1" failures="1" errors="0" time="5.012">\n'
        '  <testsuite name="server (pid 4711)" timestamp="2026-03-01T09:05:07" time="5.012" tests="1" failures="1" errors="0" skipped="0">\n'
        '    <testcase classname="leaktrace.server" name="make_node [01234567]">\n'
        '      <failure type="outstanding-memory" message="4096 bytes in 4 allocations not given back, over the budget: bytes&gt;0">'
        '4096 bytes in 4 allocations not given back, over the budget: bytes&gt;0\n'
        '0x7f0000001234 make_node+0x12 [/usr/lib/libnode.so.1] src/node.c:7\n'
        '0x401136 main+0x36 [/usr/bin/server]</failure>\n'
        '    </testcase>\n'
        '  </testsuite>\n'
        '</testsuites>\n'
    )


def test_no_leaks(report: MakeReport) -> None:
    """Where nothing was found there is one test, which passes: no test at all is a failure to many readers."""
    root = written(report(), judgement())
    (case,) = root.iter("testcase")
    assert case.get("name") == "no leaks" and len(case) == 0
    assert counts(root)[:3] == ["1", "0", "0"]


@pytest.mark.parametrize("outcome", [Outcome.SUPPRESSED, Outcome.KNOWN])
def test_what_is_accepted_is_skipped(report: MakeReport, finding: MakeFinding, outcome: Outcome) -> None:
    """A suppressed site and one of the baseline are skipped tests, with the reason where each reader looks for it."""
    root = written(report(), judgement(judged(finding(), outcome, "known since 2019")))
    (skipped,) = root.iter("skipped")
    assert skipped.get("message") == "known since 2019"
    assert skipped.text == "known since 2019\n4096 bytes in 4 allocations not given back"
    assert counts(root[0]) == ["1", "0", "0", "1"]


def test_what_is_within_the_budget_passes(report: MakeReport, finding: MakeFinding) -> None:
    """A site that fails no expression is a test that passes, and "no leaks" is not said."""
    root = written(report(), judgement(judged(finding(), Outcome.PASSED, "")))
    (case,) = root.iter("testcase")
    assert len(case) == 0 and case.get("name") == "make_node [01234567]"


def test_an_incomplete_measurement_is_an_error(report: MakeReport) -> None:
    """Losses that hide bytes are an error with their remedies, and no test says that there are no leaks."""
    root = written(report(complete=False, losses=(LOSS,)), judgement())
    (case,) = root.iter("testcase")
    assert case.get("name") == "the measurement is complete"
    error = case[0]
    assert (error.tag, error.get("type")) == ("error", "incomplete")
    assert error.text is not None and "12 allocations (480 bytes) are missing: raise --max-outstanding" in error.text
    assert counts(root)[:3] == ["1", "0", "1"]


def test_harmless_losses_are_no_error(report: MakeReport) -> None:
    """Losses that hide no bytes are written down, and the tests pass."""
    root = written(report(losses=(LOSS,)), judgement())
    assert counts(root)[:3] == ["1", "0", "0"]
    assert root.findtext(".//system-out") == "12 allocations (480 bytes) are missing: raise --max-outstanding"


def test_totals(report: MakeReport) -> None:
    """An expression over the sums is a failed test of the run, and no test says that there are no leaks."""
    root = written(report(), judgement(totals=("total_bytes>1k",)))
    (case,) = root.iter("testcase")
    assert (case.get("classname"), case.get("name")) == ("leaktrace.run", "total_bytes>1k")
    assert case[0].get("message") == "4096 bytes in 4 allocations not given back in total, over the budget: total_bytes>1k"
    assert counts(root)[:3] == ["1", "1", "0"]


def test_unused_suppressions(report: MakeReport) -> None:
    """A suppression that matched nothing is written down; it fails nothing."""
    root = written(report(), judgement(unused=("old one",)))
    assert root.findtext(".//system-out") == "suppression that nothing matched: old one"
    assert counts(root)[:3] == ["1", "0", "0"]


def test_one_suite_a_process(report: MakeReport, finding: MakeFinding) -> None:
    """Each process has its suite, also one without sites, and one that is gone from the targets."""
    root = written(report(targets=(Target(8, "a", None), Target(9, "b", None))),
                   judgement(judged(finding(pid=9)), judged(finding(pid=10))))
    assert [suite.get("name") for suite in root] == ["a (pid 8)", "b (pid 9)", "pid 10"]
    assert [counts(suite)[:2] for suite in root] == [["1", "0"], ["1", "1"], ["1", "1"]]
    assert [case.get("classname") for case in root.iter("testcase")] == ["leaktrace.a", "leaktrace.b", "leaktrace.process"]


def test_no_name_is_there_twice(report: MakeReport, finding: MakeFinding) -> None:
    """GitLab shows only the first of equal names: sites of one function differ, as do equal ones of two processes."""
    root = written(report(targets=(Target(8, "a", None), Target(9, "a", None))), judgement(
        judged(finding(pid=8), fingerprint="aaaa"), judged(finding(pid=8), fingerprint="bbbb"),
        judged(finding(pid=9), fingerprint="aaaa"), judged(finding(pid=9), fingerprint="")))
    assert [case.get("name") for case in root.iter("testcase")] == [
        "make_node [aaaa]", "make_node [bbbb]", "make_node [aaaa] (2)", "make_node"]


def test_names_outlast_a_build(report: MakeReport, finding: MakeFinding) -> None:
    """Neither address nor line are in a name, so that readers see the same test in the next run."""
    first, second = (
        [case.get("name") for case in written(report(), judgement(judged(finding(frames=(frame,))))).iter("testcase")]
        for frame in (Frame(0x10, "f", 1, "/a.so", "aa", "f.c", 7), Frame(0x20, "f", 2, "/a.so", "bb", "f.c", 8)))
    assert first == second


def test_a_dot_makes_no_package(report: MakeReport) -> None:
    """Jenkins splits at the last dot; python3.11 is not class 11."""
    (case,) = written(report(targets=(Target(1, "python3.11", None),)), judgement()).iter("testcase")
    assert case.get("classname") == "leaktrace.python3_11"


def test_frames(report: MakeReport, finding: MakeFinding) -> None:
    """A frame is written with all that is known of it, and a site without names has one all the same."""
    frames = (Frame(0x10, why=Why.UNMAPPED), Frame(0x20, "f", None, "/x", None, "a.c", 3, inlined=True),
              Frame(0x30, "g", 1, repeats=5), Frame(0x40, "h", 0, file="h.c"))
    root = written(report(), judgement(judged(finding(frames=frames))))
    text = root.findtext(".//failure")
    assert text is not None and text.splitlines()[1:] == [
        "0x10 (unmapped)", "0x20 f [inlined] [/x] a.c:3", "0x30 g+0x1 [5 times]", "0x40 h+0x0 h.c"]
    (case,) = written(report(), judgement(judged(finding(frames=())))).iter("testcase")
    assert case.get("name") == "unknown function [01234567]"


def test_words(report: MakeReport, finding: MakeFinding) -> None:
    """One allocation is one, and an estimate is called one."""
    (failure,) = written(report(), judgement(judged(finding(count=1, error=0.2)))).iter("failure")
    assert (failure.get("message") or "").startswith("about 4096 bytes in 1 allocation not given back")


# junit-10.xsd of Jenkins' xunit plugin: the attributes that it admits, the ones without which it rejects.
ATTRIBUTES = {
    "testsuites": ({"name", "time", "tests", "failures", "errors"}, set()),
    "testsuite": ({"name", "tests", "failures", "errors", "time", "skipped", "timestamp"}, {"name", "tests", "failures", "errors"}),
    "testcase": ({"name", "time", "classname"}, {"name"}),
    "failure": ({"type", "message"}, set()), "error": ({"type", "message"}, set()), "skipped": ({"type", "message"}, set()),
    "system-out": (set(), set()),
}
CHILDREN = {"testsuites": {"testsuite"}, "testsuite": {"testcase", "system-out"}, "testcase": {"failure", "error", "skipped", "system-out"}}


def test_jenkins_schema(report: MakeReport, finding: MakeFinding) -> None:
    """Nothing is written that the strictest reader rejects a file for."""
    root = written(report(complete=False, losses=(LOSS,), misuses=MISUSES), judgement(
        *(judged(finding(**LOST), outcome) for outcome in Outcome), totals=("total_bytes>0",), unused=("x",)))
    seen = set()
    for element in root.iter():
        admitted, required = ATTRIBUTES[element.tag]
        assert required <= set(element.attrib) <= admitted
        assert {child.tag for child in element} <= CHILDREN.get(element.tag, set())
        seen.add(element.tag)
    assert seen == set(ATTRIBUTES)
    for element in root.iter():
        assert re.fullmatch(r"[0-9]+\.[0-9]{3}", element.get("time", "0.000"))
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", element.get("timestamp", "2026-01-01T00:00:00"))


ANY_TEXT = st.text(st.characters(exclude_categories=()))


@given(ANY_TEXT, ANY_TEXT)
def test_any_text_is_well_formed(text: str, other: str) -> None:
    """Whatever is in names and reasons, a parser reads the document, in ASCII, and sees every character XML can write."""
    frame = Frame(1, text, 0, other, None, text, 1)
    report = Report(REPORT.taken, 1.0, "", (Target(FINDING.pid, text, text),), REPORT.totals, (), (
        LossNote(text, 1, 1, text, other),), complete=False)
    finding = Finding(1, FINDING.pid, 1, 1, 1, 1, 0, None, None, None, None, None, (frame,))
    out = StringIO()
    write(report, judgement(*(judged(finding, outcome, other, text) for outcome in Outcome), totals=(text,), unused=(other,)), out)
    assert out.getvalue().isascii()
    root = ElementTree.fromstring(out.getvalue())
    (failure,) = (failure for failure in root.iter("failure") if failure.get("type") == "outstanding-memory")
    expected = "".join(f"\\u{ord(letter):04x}" if is_forbidden(letter) else letter for letter in other)
    assert (failure.get("message") or "").endswith(f": {expected}")


@pytest.mark.parametrize("letter", ["\x00", "\x1b", "\r", "\x1f", "\ud800", "\udfff", "\ufffe", "\uffff"])
def test_what_xml_cannot_write(report: MakeReport, letter: str) -> None:
    """A character that XML 1.0 has no way to write is written as its number."""
    root = written(report(targets=(Target(1, f"a{letter}b", None),)), judgement())
    assert root[0].get("name") == f"a\\u{ord(letter):04x}b (pid 1)"


def is_forbidden(letter: str) -> bool:
    """Whether XML 1.0, section 2.2, has no way to write it; parsers turn a carriage return into a newline."""
    code = ord(letter)
    return not (code in (9, 10) or 0x20 <= code <= 0xD7FF or 0xE000 <= code <= 0xFFFD or code >= 0x10000)


def test_any_encoding_of_the_output(report: MakeReport, tmp_path: Path) -> None:
    """An output that knows ASCII only takes every report, and it is read back as it was."""
    with (tmp_path / "out").open("wb") as file, TextIOWrapper(file, encoding="ascii") as out:
        write(report(targets=(Target(1, "木", None),)), judgement(), out)
    assert ElementTree.parse(tmp_path / "out").getroot()[0].get("name") == "木 (pid 1)"


def test_wrong_frees_pass(report: MakeReport) -> None:
    """Without a budget that fails for them, wrong frees are tests that pass, with what is wrong and every stack."""
    root = written(report(misuses=MISUSES), judgement())
    assert counts(root)[:3] == ["4", "0", "0"]
    assert [re.sub(r" \[[0-9a-f]{8}\]$", " [x]", case.get("name") or "") for case in root.iter("testcase")] == [
        "no leaks", "mismatched free in drop_row [x]", "free of an unknown address in drop_all [x]", "double free in drop_all [x]"]
    assert next(output.text for output in root.iter("system-out")) == (
        "new[] in make_row freed by delete in drop_row: 3 times (pid 4711)\n"
        "allocated:\n0x401200 make_row+0x9 [/usr/bin/server] src/row.cpp:11\n"
        "freed:\n0x401300 drop_row+0x5 [/usr/bin/server] src/row.cpp:21")


def test_wrong_frees_fail(report: MakeReport) -> None:
    """Where a sum that names them fails each is a failed test, and so is the sum, which counts frees; others change nothing."""
    root = written(report(misuses=MISUSES), judgement(totals=("misuses>0",)))
    failures = list(root.iter("failure"))
    assert [failure.get("type") for failure in failures] == ["misused-free"] * 3 + ["total-over-budget"]
    assert failures[0].get("message") == (
        "new[] in make_row freed by delete in drop_row: 3 times (pid 4711), over the budget: misuses>0")
    assert failures[3].get("message") == "6 misused frees in total, over the budget: misuses>0"
    other = written(report(misuses=MISUSES), judgement(totals=("total_bytes>1",)))
    assert [failure.get("type") for failure in other.iter("failure")] == ["total-over-budget"]


def test_wrong_frees_of_another_process(report: MakeReport) -> None:
    """A wrong free of a process that is gone from the targets has a suite all the same, and is in no other."""
    root = written(report(misuses=Misuses((MISMATCH, replace(MISMATCH, pid=9)))), judgement(judged(FINDING)))
    assert [(suite.get("name"), suite.get("tests")) for suite in root] == [("server (pid 4711)", "2"), ("pid 9", "2")]


def test_verdicts(report: MakeReport, finding: MakeFinding) -> None:
    """Every case of a site with a verdict says it: in the message of what failed, else in the text."""
    said = "lost (high confidence): no pointer to it; 0 of 4 were ever freed"
    for outcome, tag in ((Outcome.FAILED, "failure"), (Outcome.SUPPRESSED, "skipped"), (Outcome.PASSED, "system-out")):
        (case,) = written(report(), judgement(judged(finding(**LOST), outcome))).iter("testcase")
        (child,) = case
        assert child.tag == tag and child.text is not None and said in child.text
    (failure,) = written(report(), judgement(judged(finding(**LOST)))).iter("failure")
    assert failure.get("message") == f"4096 bytes in 4 allocations not given back, over the budget: bytes>0. {said}"
