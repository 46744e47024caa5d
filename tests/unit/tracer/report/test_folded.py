"""Folded stacks, as flamegraph.pl and all that reads its input take them."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbolizer.frame import Frame
from tracer.report.folded import write
from tracer.report.model import Finding, Report

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
#: A line as flamegraph.pl takes it apart: greedily, so that the last number is the value.
LINE = re.compile(r"(.*)\s+?(\d+(?:\.\d*)?)")

#: Brendan Gregg's program, as Debian ships it with a profiler of Perl.
FLAMEGRAPH = Path("/usr/share/perl5/Devel/NYTProf/flamegraph.pl")


def lines(report: Report) -> list[str]:
    out = StringIO()
    write(report, out)
    return out.getvalue().splitlines()


def named(*functions: str) -> tuple[Frame, ...]:
    return tuple(Frame(number, function, 0, "/bin/x") for number, function in enumerate(functions))


def test_outermost_first_with_bytes(report: MakeReport) -> None:
    """A line has the calls from the outermost on, then the bytes that live."""
    assert lines(report()) == ["main;make_node 4096"]


def test_equal_stacks_are_one_line(report: MakeReport, finding: MakeFinding) -> None:
    """Sites that differ only in lines are one stack, whose bytes are added up; what holds nothing has no line."""
    assert lines(report(finding(frames=named("a", "main"), bytes=3), finding(frames=named("b"), bytes=0),
                        finding(frames=named("a", "main"), bytes=4))) == ["main;a 7"]


def test_names_that_look_like_the_format(report: MakeReport, finding: MakeFinding) -> None:
    """Semicolons become colons, line ends are escaped, spaces stay, and a number at the end stays part of its name."""
    assert lines(report(finding(frames=named("f(int, char const*)", "[T; 4] 12", "a\nb 3"), bytes=5))) == [
        r"a\nb 3;[T: 4] 12;f(int, char const*) 5"]
    assert lines(report(finding(frames=named("[T; 4] 12"), bytes=5))) == ["[T: 4]_12 5"]


def test_a_site_without_a_stack(report: MakeReport, finding: MakeFinding) -> None:
    """It has a line, so that all bytes are in the graph."""
    assert lines(report(finding(frames=(), bytes=9))) == ["[no stack] 9"]


def test_flamegraph_pl_draws_it(report: MakeReport, finding: MakeFinding) -> None:
    """flamegraph.pl takes every line, and its tooltips have the names and the sums of bytes."""
    if not FLAMEGRAPH.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)("this test needs Debian's libdevel-nytprof-perl")
    made = lines(report(finding(frames=named("operator new(unsigned long)", "f<int, 2>(char const*)", "main"), bytes=3072),
                        finding(frames=named("[T; 4] 12", "main"), bytes=1024)))
    answer = subprocess.run(["perl", FLAMEGRAPH, "--countname=bytes"], input="\n".join(made), capture_output=True, text=True,
                            check=True, timeout=30)
    assert "Ignored" not in answer.stderr, answer.stderr
    titles = [each.text for each in ElementTree.fromstring(answer.stdout).iter("{http://www.w3.org/2000/svg}title")]
    assert sorted(titles, key=str) == [
        "[T: 4]_12 (1,024 bytes, 25.00%)", "all (4,096 bytes, 100%)", "f(int, 2)(char const*) (3,072 bytes, 75.00%)",
        "main (4,096 bytes, 100.00%)", "operator new(unsigned long) (3,072 bytes, 75.00%)"]


@given(names=st.lists(st.text(), min_size=1, max_size=5), held=st.integers(1, 1 << 62))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_names_are_one_line_of_as_many_calls(
    report: MakeReport, finding: MakeFinding, names: list[str], held: int,
) -> None:
    """Whatever is in names, a stack is one line, has as many calls as frames, and its value is the site's."""
    (line,) = lines(report(finding(frames=named(*names), bytes=held)))
    found = LINE.fullmatch(line)
    assert found and found[1].count(";") == len(names) - 1 and int(found[2]) == held and line.isprintable()
