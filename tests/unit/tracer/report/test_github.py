"""GitHub's workflow commands: what its runner makes of the lines."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.frame import Frame, Why
from tests.unit.tracer.report.conftest import FINDING, LOST, MISMATCH, MISUSES, REPORT
from tracer.report.github import MOST_ERRORS, MOST_FRAMES, write
from tracer.report.misuse_model import Misuses
from tracer.report.model import Finding, Judged, Judgement, LossNote, Outcome, Report

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]

WORKSPACE = "/home/runner/src/x"


def written(report: Report, *findings: Finding, outcome: Outcome = Outcome.FAILED, reason: str = "bytes>0",
            totals: tuple[str, ...] = (), unused: tuple[str, ...] = (), workspace: str | None = WORKSPACE) -> list[str]:
    sites = tuple(Judged(finding, outcome, reason, "") for finding in findings)
    out = StringIO()
    write(report, Judgement(sites, totals, 23, unused), out, workspace=workspace)
    text = out.getvalue()
    assert not text or text.endswith("\n")
    return text.split("\n")[:-1]


def read(line: str) -> tuple[str, dict[str, str], str]:
    """Read a line as actions/runner does (ActionCommand.cs): command, properties, message."""
    assert line.startswith("::")
    head, message = line[2:].split("::", 1)
    name, _, rest = head.partition(" ")
    properties = {}
    for piece in rest.split(","):
        key, _, value = piece.partition("=")
        for escape, plain in (("%2C", ","), ("%3A", ":"), ("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
            value = value.replace(escape, plain)
        properties[key] = value
    for escape, plain in (("%0A", "\n"), ("%0D", "\r"), ("%25", "%")):
        message = message.replace(escape, plain)
    return name, properties, message


def properties(line: str) -> dict[str, str]:
    return read(line)[1]


def test_a_line(report: MakeReport, finding: MakeFinding) -> None:
    """A failing site is one error with file, line, figures, budget and stack."""
    assert written(report(), finding()) == [
        "::error file=src/node.c,line=7,title=leaktrace%3A 4096 bytes in 4 allocations not given back"
        "::Over the budget: bytes>0%0Amake_node (src/node.c:7)%0Amain (/usr/bin/server)"
    ]


@pytest.mark.parametrize("outcome", [Outcome.PASSED, Outcome.SUPPRESSED, Outcome.KNOWN])
def test_only_what_fails(report: MakeReport, finding: MakeFinding, outcome: Outcome) -> None:
    """What passes or is accepted marks nothing."""
    assert written(report(), finding(), outcome=outcome) == []


@pytest.mark.parametrize(("file", "expected"), [
    (f"{WORKSPACE}/src/a.c", "src/a.c"), ("src/a.c", "src/a.c"), ("./src/../src/a.c", "src/a.c"), ("..a/a.c", "..a/a.c"),
    (f"{WORKSPACE}/build/../src/a.c", "src/a.c"), ("/usr/include/c++/12/new", None), ("../a.c", None),
    (f"{WORKSPACE}y/a.c", None), (f"{WORKSPACE}/../a.c", None), ("", None), (None, None),
])
def test_paths(report: MakeReport, finding: MakeFinding, file: str | None, expected: str | None) -> None:
    """A path below the workspace is relative to it; any other names no file of the pull request."""
    (line,) = written(report(), finding(frames=(Frame(1, "f", 0, file=file, line=3),)))
    assert properties(line).get("file") == expected
    assert properties(line).get("line") == (None if expected is None else "3")


def test_the_innermost_frame_of_the_workspace(report: MakeReport, finding: MakeFinding) -> None:
    """The mark is at the innermost call in the project, not in a header of a library, nor where the line is unknown."""
    frames = (Frame(1, "new", 0, file="/usr/include/new", line=9), Frame(2, "f", 0, file="f.c", line=None),
              Frame(3, "g", 0, file="g.c", line=5), Frame(4, "main", 0, file="main.c", line=6))
    (line,) = written(report(), finding(frames=frames))
    assert properties(line).items() >= {"file": "g.c", "line": "5"}.items()


def test_without_a_workspace(report: MakeReport, finding: MakeFinding) -> None:
    """Elsewhere than at GitHub nothing is known to lie in the project, and the error stands without a file."""
    (line,) = written(report(), finding(), workspace=None)
    assert set(properties(line)) == {"title"}


@pytest.mark.parametrize(("count", "shown", "last"), [
    (MOST_ERRORS, MOST_ERRORS, "leaktrace: 1 bytes"), (MOST_ERRORS + 1, MOST_ERRORS, "leaktrace: 2 more"),
    (MOST_ERRORS + 90, MOST_ERRORS, "leaktrace: 91 more"), (1, 1, "leaktrace: 1 bytes"),
])
def test_no_more_than_github_shows(report: MakeReport, finding: MakeFinding, count: int, shown: int, last: str) -> None:
    """Beyond ten errors, the tenth says how many are missing; ten are all shown."""
    lines = written(report(), *(finding(bytes=size) for size in range(count, 0, -1)))
    assert len(lines) == shown
    assert properties(lines[-1])["title"].startswith(last)
    assert properties(lines[0])["title"].startswith(f"leaktrace: {count} bytes")


def test_what_concerns_the_run_comes_first(report: MakeReport, finding: MakeFinding) -> None:
    """An incomplete measurement and a total over the budget are errors, before any site, so that they are shown."""
    lost = LossNote("outstanding_full", 12, 480, "allocations are missing", "raise it")
    lines = written(report(complete=False, losses=(lost,)), *[finding()] * 20, totals=("total_bytes>1",))
    assert len(lines) == MOST_ERRORS
    assert read(lines[0]) == ("error", {"title": "leaktrace: the measurement is not complete"},
                              "Memory may be missing from the report.\n12 allocations are missing: raise it")
    assert read(lines[1]) == ("error", {"title": "leaktrace: 4096 bytes in 4 allocations not given back in total"},
                              "Over the budget: total_bytes>1")


def test_unused_suppressions(report: MakeReport) -> None:
    """Suppressions that matched nothing are one warning."""
    assert [read(line) for line in written(report(), unused=("a", "b"))] == [
        ("warning", {"title": "leaktrace: suppressions"}, "Nothing matched these suppressions:\na\nb")]


def test_a_deep_stack(report: MakeReport, finding: MakeFinding) -> None:
    """A mark has the innermost frames only, and says how many there are besides."""
    (line,) = written(report(), finding(frames=tuple(Frame(at, f"f{at}", 0) for at in range(MOST_FRAMES + 5))))
    message = read(line)[2].splitlines()
    assert message[1] == "f0" and message[MOST_FRAMES] == f"f{MOST_FRAMES - 1}"
    assert message[MOST_FRAMES + 1:] == ["and 5 more frames"]


def test_words(report: MakeReport, finding: MakeFinding) -> None:
    """One allocation is one, an estimate is called one, and a frame without a name says why."""
    (line,) = written(report(), finding(count=1, error=0.1, frames=(Frame(1, why=Why.GONE, module="/x"), Frame(2))))
    assert properties(line)["title"] == "leaktrace: about 4096 bytes in 1 allocation not given back"
    assert read(line)[2].splitlines()[1:] == ["(gone) (/x)", "(no name)"]


@given(st.text(), st.text(st.characters(exclude_characters="/\x00"), min_size=1).filter(lambda name: name not in (".", "..")))
def test_any_text_stays_in_its_line(text: str, name: str) -> None:
    """Whatever is in a name, it is one line, and reads back: a name cannot start a command of its own."""
    frame = Frame(1, text, 0, file=f"{WORKSPACE}/{name}", line=1)
    finding = Finding(1, FINDING.pid, 1, 1, 1, 1, 0, None, None, None, None, None, (frame,))
    (line,) = written(REPORT, finding, reason=text)
    assert "\r" not in line
    command, found, message = read(line)
    assert (command, found["file"], found["line"]) == ("error", name, "1")
    shown = text or "(no name)"
    assert message == f"Over the budget: {text}\n{shown} ({WORKSPACE}/{name}:1)"


def test_escapes(report: MakeReport, finding: MakeFinding) -> None:
    """The escapes are those of actions/toolkit, with the percent sign first."""
    (line,) = written(report(), finding(frames=(Frame(1, "f%0A\r\n:,", 0, file="a%,:b.c", line=1),)))
    assert line.startswith("::error file=a%25%2C%3Ab.c,line=1,title=leaktrace%3A ")
    assert line.endswith("::Over the budget: bytes>0%0Af%250A%0D%0A:, (a%25,:b.c:1)")


def test_a_wrong_free_is_a_warning(report: MakeReport) -> None:
    """Each wrong free is one mark, at the line that frees, with what is wrong and every stack."""
    first, second, third = map(read, written(report(misuses=MISUSES)))
    assert first == ("warning", {"file": "src/row.cpp", "line": "21", "title": "leaktrace: mismatched free in drop_row"},
                     "new[] in make_row freed by delete in drop_row: 3 times (pid 4711)\n"
                     "allocated:\nmake_row (src/row.cpp:11)\nfreed:\ndrop_row (src/row.cpp:21)")
    assert second[1] == {"file": "src/table.cpp", "line": "31", "title": "leaktrace: free of an unknown address in drop_all"}
    assert third[2].splitlines()[1:] == ["allocated:", "make_row (src/row.cpp:11)", "freed before:",
                                         "drop_row (src/row.cpp:21)", "freed:", "drop_all (src/table.cpp:31)"]


def test_wrong_frees_over_the_budget_are_errors(report: MakeReport, finding: MakeFinding) -> None:
    """Where a sum that names them fails they are errors, behind it and before the sites; another sum changes nothing."""
    lines = [read(line) for line in written(report(misuses=MISUSES), finding(), totals=("misuses>0",))]
    assert [name for name, _, _ in lines] == ["error"] * 5
    assert lines[0][1]["title"] == "leaktrace: 6 misused frees in total"
    assert lines[1][2].startswith("Over the budget: misuses>0\nnew[] in make_row")
    assert lines[4][1]["title"].startswith("leaktrace: 4096 bytes")
    other = [read(line)[0] for line in written(report(misuses=MISUSES), totals=("total_bytes>1",))]
    assert other == ["error"] + ["warning"] * 3


def test_no_more_warnings_than_github_shows(report: MakeReport) -> None:
    """Beyond ten warnings the tenth says how many are missing, and errors are not counted with them."""
    lines = [read(line) for line in written(report(misuses=Misuses((MISMATCH,) * 20)), totals=("total_bytes>1",), unused=("a",))]
    assert [name for name, _, _ in lines] == ["error"] + ["warning"] * MOST_ERRORS
    assert lines[1][1]["title"] == "leaktrace: suppressions" and lines[-1][1]["title"] == "leaktrace: 12 more"


def test_a_verdict(report: MakeReport, finding: MakeFinding) -> None:
    """What is held of a site stands below the budget."""
    (line,) = written(report(), finding(**LOST))
    assert read(line)[2].splitlines()[1] == "lost (high confidence): no pointer to it; 0 of 4 were ever freed"
