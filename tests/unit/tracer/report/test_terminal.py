"""The report at a terminal: all that the plain one says, laid out within the width, and deaf to what programs are called."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from typing import Any

import pytest

from symbolizer.frame import Frame, Why
from tests.unit.tracer.report.conftest import LOST, MISUSES, REPORT
from tests.unit.tracer.report.test_cross_lines import NOTE as CROSS
from tests.unit.tracer.report.test_kernel_lines import NOTE as KERNEL
from tests.unit.tracer.report.test_memory_head import HEAD
from tracer.report import text
from tracer.report.model import (
    Block,
    Finding,
    LossNote,
    PointerNote,
    Reachability,
    Report,
    ScanNote,
    Share,
    SourceTotal,
    Target,
    Totals,
)
from tracer.report.terminal import write
from tracer.report.terminal_look import Look
from tracer.report.terminal_stack import frame_lines

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
PLAIN = Look(200, styles=False, colours=False)
COLOURED = Look(200, styles=True, colours=True)
ESCAPE = re.compile(r"\x1b\[([0-9;]*)m")
LONG = "std::vector<std::map<std::string, int>> company::Cache<std::string, std::vector<int>>::remember(std::string const&, int)"
FOLDER = "/a/rather/long/path/to/the/sources/of/a/program/that/is/here/" * 2


def written(report: Report, look: Look = PLAIN) -> str:
    out = StringIO()
    write(look, report, out)
    return out.getvalue()


def words(content: str) -> str:
    """Return a text without its layout."""
    return " ".join(ESCAPE.sub("", content).split())


@pytest.fixture
def whole(finding: MakeFinding) -> Report:
    """A report that has everything a report can have."""
    first = finding(
        **LOST, gained_bytes=1024, gained_count=2, error=0.03, slope=(2048.0, 1024.0, 3072.0), source="slab", kernel=KERNEL,
        blocks=(Block(0x5555000010, 16),),
        frames=(Frame(0x7F0000001234, "make_node", 18, "/usr/lib/libnode.so.1", "ab12", "src/node.c", 7),
                Frame(0x401136, "inner", None, "/usr/bin/server", inlined=True), Frame(0x401136, LONG, 0x36, "/usr/bin/server", repeats=3),
                Frame(0x10, module="/usr/bin/server", why=Why.NO_SYMBOLS, module_offset=0x99), Frame(0, why=Why.UNWIND_STOPPED)))
    second = finding(rank=2, verdict="growing", confidence="low", evidence="grows in 9 of 9 intervals", processes=3)
    targets = (Target(4711, "server", "/usr/bin/server", totals=Totals(4096, 4, 8192, 8, 4), shares=(Share(1, 4096, 4),)),
               Target(4712, "child", "/usr/bin/child", parent=4711, totals=Totals(16, 1, 16, 1, 0), ended=True, status=9))
    return replace(
        REPORT, findings=(first, second), memory=(HEAD,), sources=(SourceTotal("slab", 4096, 4, 512),), targets=targets,
        sampling="1 in 8 allocations", total_error=0.02, misuses=replace(MISUSES, undecided=5), cross_checks=(CROSS,),
        reachability=Reachability((4096, 4), (1, 1), (16, 1), (32, 2)),
        scans=(ScanNote(4711, bytes_read=1 << 20, stopped_s=0.012, unreadable=4096), ScanNote(4712, failed="it ended")),
        pointers=(PointerNote("1", ("global cache", "-> 0x5555000010")),), notes=("No names for 1 frame in server",),
        losses=(LossNote("outstanding_full", 1200, 480, "allocations (480 bytes) are missing", "raise --max-outstanding"),))


@pytest.mark.parametrize("width", [80, 100, 140, 200])
@pytest.mark.parametrize("styles", [False, True])
def test_nothing_is_dropped(whole: Report, width: int, styles: bool) -> None:
    """What the plain report says stands here too, in whatever width, but for the beginning of its own lines of a site."""
    out = StringIO()
    text.write(whole, out)
    found = words(written(whole, Look(width, styles=styles, colours=styles)))
    for line in out.getvalue().splitlines():
        if re.match(r"  #\d|\t\d+ bytes in \d+ allocations|\[\d\d:|\t\(estimates", line) or LONG in line or "function" in line:
            continue
        assert words(line) in found
    for said in ("#1 lost 4.0 kB in 4 blocks (+1.0 kB, +2 blocks since the report before; ±3%; pid 4711)", "no pointer to it; 0 of 4",
                 "#2 growing (low) 4.0 kB in 4 blocks", "in 3 processes", "grows in 9 of 9 intervals", "[09:05:07] after 5 s",
                 "estimates from 1 in 8 allocations, ±2% in total; ± is one standard error", "(x3)", "remember(", "+0x36",
                 "1,200 allocations (480 bytes) are missing: raise --max-outstanding", "8.0 kB in 8 blocks, 4 of them freed"):
        assert words(said) in found, said


@pytest.mark.parametrize("width", [40, 80, 133, 200])
def test_lines_fit(whole: Report, width: int) -> None:
    """No line is wider than the terminal, so that nothing breaks anywhere but where it was meant to."""
    for line in written(whole, Look(width, styles=False, colours=False)).splitlines():
        assert len(line) <= width


def test_numbers_and_units_are_aligned(report: MakeReport, finding: MakeFinding) -> None:
    """In the table, numbers end below each other, and so do their units begin."""
    sizes = (5, 4096, 150 << 20)
    lines = written(report(*(finding(rank=rank, bytes=size) for rank, size in enumerate(sizes, 1)))).splitlines()
    rows = [line for line in lines if re.match(r"[123]  ", line)]
    at = [re.search(r"(5|4\.0|150) (bytes|kB|MB)", row) for row in rows]
    assert len({found.start(2) for found in at if found}) == 1 and all(at)


def test_exact_bytes(report: MakeReport, finding: MakeFinding) -> None:
    """With --bytes, sizes are as they are, in the table as at each site."""
    found = written(report(finding(bytes=1234567, gained_bytes=-4321, gained_count=0)), replace(PLAIN, exact=True))
    assert found.count("1,234,567 bytes") == 2 and "-4,321 bytes" in found and "1.2 MB" not in found


def styles_of(content: str, word: str) -> set[str]:
    """Return the styles that a word is written in."""
    return set(re.findall(rf"\x1b\[([0-9;]+)m[^\x1b]*{re.escape(word)}", content)) - {"0"}


def test_colours_of_verdicts_and_losses(whole: Report) -> None:
    """What is lost is red, what grows yellow; so is what was not measured."""
    found = written(whole, COLOURED)
    assert "31" in str(styles_of(found, "lost")) and "33" in str(styles_of(found, "growing"))
    assert styles_of(found, "raise --max-outstanding") == {"33"}


@pytest.mark.parametrize(("changes", "own", "other"), [
    ({}, "main", "make_node"),
    ({"sources": (SourceTotal("slab", 1, 1),)}, "in_module", "in_kernel"),
])  # fmt: skip
def test_the_programs_own_frames(report: MakeReport, finding: MakeFinding, changes: dict[str, Any], own: str, other: str) -> None:
    """Functions of the executable are bold and those of libraries dim; of the kernel, its modules' and its own."""
    frames = (*finding().frames, Frame(1, "in_module", 1, "[ext4]"), Frame(2, "in_kernel", 1, "[kernel]"))
    if not changes:
        frames = frames[:2]
    found = written(report(finding(frames=frames), **changes), COLOURED)
    stack = found[found.index("0x0000"):]
    assert styles_of(stack, own) == {"1"} and styles_of(stack, other) == {"2"}


def test_libraries_alone_are_not_dimmed(report: MakeReport, finding: MakeFinding) -> None:
    """Where no frame is of the program, none is set off."""
    stack = written(report(finding(frames=finding().frames[:1])), COLOURED)
    assert styles_of(stack[stack.index("0x0000"):], "make_node") == set()


def test_without_colours(whole: Report) -> None:
    """NO_COLOR leaves bold and dim, and a terminal without escapes gets none."""
    codes = {code for found in ESCAPE.findall(written(whole, replace(COLOURED, colours=False))) for code in found.split(";")}
    assert codes <= {"", "0", "1", "2", "3"} and "1" in codes
    assert "\x1b" not in written(whole)


@pytest.mark.parametrize("name", ["\x1b]0;owned\x07", "[bold red]x[/]", "a\nb", "\u202ecba", ":smile:"])
def test_hostile_names(report: MakeReport, finding: MakeFinding, name: str) -> None:
    """No name acts on the terminal or is taken for markup: a recording can come from anybody."""
    frame = Frame(0x401136, f"f{name}", 1, f"/usr/bin/{name}", file=f"{name}.c", line=3)
    found = written(report(finding(frames=(frame,), **LOST), targets=(Target(1, name, name),), notes=(name,)), COLOURED)
    left = ESCAPE.sub("", found)
    assert not [each for each in left if not each.isprintable() and each != "\n"]
    assert ("[bold red]x[/]" in left) == (name == "[bold red]x[/]") and (":smile:" in left) == (name == ":smile:")


def test_an_encoding_without_the_letters(whole: Report) -> None:
    """What the terminal's encoding lacks is written as its code, and does not end the trace."""

    class Ascii(StringIO):
        encoding = "ascii"

    out = Ascii()
    write(PLAIN, whole, out)
    assert out.getvalue().isascii() and "\\xb13%" in out.getvalue()


@pytest.mark.parametrize(("width", "lines"), [(200, 1), (80, 2)])
def test_the_source_has_its_own_line_where_it_must(width: int, lines: int) -> None:
    """Function and place share a line if they fit, and neither loses anything for the other."""
    frame = Frame(0x401136, "company::storage::remember", 0x36, "/usr/bin/server", None, f"{FOLDER[:60]}cache.cpp", 12)
    found = frame_lines(frame, width, "")
    assert len(found) == lines
    assert all(part in "".join(map(str, found)) for part in ("company::storage::remember+0x36 [server]", "cache.cpp:12"))
