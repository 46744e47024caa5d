"""scripts/score_verdicts: the truths that its programs state, what it reads from each tool, and the sums it makes."""

# ruff: noqa: E402  (the scripts are no package: their folder must be on the path first)

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks import reachability_comparison, reachability_readings
from benchmarks.child import Failure
from benchmarks.reachability_comparison import REACHABLE
from benchmarks.reachability_readings import KINDS, Held, is_own
from benchmarks.verdict_programs import SUFFIXES, Program, Truth, corpus, truth
from benchmarks.verdict_readings import Reading, Site, bare_name, leaktrace, memleak
from benchmarks.verdict_rows import LEAKTRACE, MEMLEAK, Row, as_json, as_text, sums
from benchmarks.verdict_score import chosen

MEMLEAK_TOLD = """\
Attaching to pid 7, Ctrl+C to quit.
[16:42:11] Top 2 stacks with outstanding allocations:
\t9 bytes in 1 allocations from stack
\t\told+0x1 [x]
[16:42:41] Top 2 stacks with outstanding allocations:
\t4800 bytes in 24 allocations from stack
\t\tnote_visit+0x1c [slow_block]
\t\trun.constprop.0+0x3a [slow_block]
\t819200 bytes in 100 allocations from stack
\t\tload_table(long)+0x15 [slow_block]
\t\t[unknown]
"""


def document(*sites: tuple[str, int, str | None]) -> str:
    made = [{"bytes": size, "count": 3, "verdict": verdict, "confidence": "high", "evidence": "it grew",
             "frames": [{"function": None}, {"function": name}]} for name, size, verdict in sites]
    return json.dumps({"sites": made})


def row(function: str, *sites: Site, error: str = "") -> Row:
    readings = {LEAKTRACE: Reading(sites, error), MEMLEAK: Reading(tuple(reversed(sites)), error)}
    return Row(Program(Path("one.c"), Truth(function, "so it is")), readings)


LEAK = Site(("keep", "main"), 10, 1, "growing", "high", "it grew")
TABLE = Site(("load", "main"), 500, 5, "steady")
ROWS = [
    row("keep", LEAK, TABLE),
    row("keep", TABLE, LEAK),
    row("keep", Site(("other",), 3, 1, "lost"), TABLE),
    row("", TABLE),
    row("", Site(("cache",), 5, 1, "growing"), TABLE),
    row("", Site(("cache",), 5, 1, None)),
    row("", error="no such process"),
]


def test_the_corpus_is_large_enough_and_every_program_states_its_truth() -> None:
    """At least 16 programs leak and 16 do not, in C and in C++, and each names a function that its source has."""
    programs = corpus()
    leaking = [one for one in programs if one.truth.function]
    assert len(leaking) >= 16 and len(programs) - len(leaking) >= 16
    assert {one.source.suffix for one in leaking} == {one.source.suffix for one in programs if one not in leaking} == {*SUFFIXES}
    for one in leaking:
        assert f"{one.truth.function}(" in one.source.read_text().partition("*/")[2], one.name


@pytest.mark.parametrize(("comment", "expected"), [
    ("/*\n * Truth: leaks at A::b(): it is lost,\n * now. And more.\n */", Truth("A::b", "it is lost, now")),
    ("/* Truth: no leak: all of it goes. */", Truth("", "all of it goes")),
])
def test_truth(comment: str, expected: Truth) -> None:
    """The function and the sentence are read from a comment of one line or of several."""
    assert truth(comment) == expected


def test_truth_outside_of_the_first_comment_does_not_count() -> None:
    """A program without a truth in its first comment is an error and not one without a leak."""
    with pytest.raises(Failure):
        truth("/* A program. */ /* Truth: no leak: all of it goes. */")


def test_the_last_document_is_read() -> None:
    """Sites keep leaktrace's order, verdict and evidence, and frames without a name are left out."""
    lines = ["leaktrace: attached", document(("old", 1, "lost")), document(("keep(int)", 9, "growing"), ("b", 7, None))]
    expected = (Site(("keep",), 9, 3, "growing", "high", "it grew"), Site(("b",), 7, 3, None, "high", "it grew"))
    assert leaktrace(lines) == Reading(expected)


@pytest.mark.parametrize("lines", [["no such process"], ["{", "no such process"], ['{"sites": 3}', "no such process"]])
def test_what_is_no_report_is_an_error(lines: list[str]) -> None:
    """Where leaktrace made no report, its last words are the reason."""
    assert leaktrace(lines) == Reading(error="no such process")


def test_memleaks_last_report_is_read_with_its_largest_site_first() -> None:
    """memleak prints the largest site last; ranks begin at it."""
    reading = memleak(MEMLEAK_TOLD.splitlines())
    assert [(site.bytes, site.count) for site in reading.sites] == [(819200, 100), (4800, 24)]
    assert reading.sites[1].functions == ("note_visit", "run")
    assert (reading.rank("load_table"), reading.rank("note_visit"), reading.rank("old")) == (1, 2, None)
    assert memleak(["Attaching", "Exception: no"]) == Reading(error="Exception: no")


@pytest.mark.parametrize(("name", "expected"), [
    ("keep", "keep"), ("A::keep(int, char const*)", "A::keep"), ("keep<int>", "keep"), ("keep.isra.0", "keep"),
    ("keep(int) [clone .cold]", "keep"),
])
def test_bare_name(name: str, expected: str) -> None:
    """A function is found by its name however a tool and a compiler decorate it."""
    assert bare_name(name) == expected


def test_sums() -> None:
    """A site that is named but not first, a tool that gave no verdict, and a run that failed do not count."""
    made = sums(ROWS, [LEAKTRACE, MEMLEAK])
    assert list(made.values()) == ["1 of 3", "1 of 3", "1 of 4", "2 of 3", "1 of 3", "0 of 3"]


def test_the_largest_site_is_known_however_it_is_ranked() -> None:
    """What holds most is told by bytes, because leaktrace's order is by loss."""
    assert row("load", LEAK, TABLE).is_largest(LEAKTRACE) and not row("keep", LEAK, TABLE).is_largest(LEAKTRACE)


def test_table_says_who_was_accused_and_why() -> None:
    """A row has rank, verdict and evidence of the leaking site, or each innocent site that was accused, or the error."""
    lines = as_text(ROWS, [LEAKTRACE]).splitlines()
    assert lines[2] == "| `one` | leaks at `keep` | #1 of 2, growing (high): it grew |"
    assert lines[4].endswith("| not among 2 sites; also `other`, lost |")
    assert [line.split(" | ")[2] for line in lines[5:9]] == [
        "nothing lost or growing |", "`cache`, growing |", "no verdict; 1 sites, first `cache` |", "error: no such process |"]
    assert json.loads(json.dumps(as_json(ROWS, [LEAKTRACE])))["programs"][0]["truth"]["function"] == "keep"


def test_a_program_that_is_not_there() -> None:
    """A wrong name is said, with the right ones, before anything is built."""
    programs = [Program(Path("one.c"), Truth("", "x")), Program(Path("two.c"), Truth("", "x"))]
    assert chosen(programs, None) == programs and chosen(programs, ["two"]) == programs[1:]
    with pytest.raises(Failure, match="three; there are one, two"):
        chosen(programs, ["three"])


def test_every_reachability_program_states_its_kinds() -> None:
    """Ten programs at least, and each kind is in three of them at least."""
    stated = [reachability_readings.truth(one.read_text()) for one in REACHABLE.iterdir() if one.suffix in SUFFIXES]
    assert len(stated) >= 10
    assert all(sum(one[kind][1] > 0 for one in stated) >= 3 for kind in KINDS)


def test_stated_kinds() -> None:
    """Amounts may have thousands' commas, one block or several, and kinds that are absent are none."""
    said = "/* Bytes.\n * Truth: definitely 1,040 bytes in 2 blocks,\n * reachable 70 bytes in 1 block.\n */"
    expected = {"definitely": (1040, 2), "indirectly": (0, 0), "possibly": (0, 0), "reachable": (70, 1)}
    assert reachability_readings.truth(said) == expected


def frames(*modules: str) -> str:
    return "<stack>" + "".join(f"<frame><obj>{one}</obj></frame>" for one in modules) + "</stack>"


def test_valgrinds_records_are_summed_by_kind() -> None:
    """A record's bytes are those of its own blocks; the program's own are told from the libraries'."""
    text = f"""<valgrindoutput>
    <error><kind>InvalidRead</kind></error>
    <error><kind>Leak_DefinitelyLost</kind><xwhat><text>1,120 (1,040 direct, 80 indirect) bytes in 2 blocks are</text>
      <leakedbytes>1120</leakedbytes><leakedblocks>2</leakedblocks></xwhat>{frames("/v/vgpreload_memcheck.so", "/x")}</error>
    <error><kind>Leak_IndirectlyLost</kind><xwhat><text>80 bytes in 1 blocks are</text>
      <leakedbytes>80</leakedbytes><leakedblocks>1</leakedblocks></xwhat>{frames("/v/vgpreload_memcheck.so", "/l/libstdc++.so.6", "/x")}</error>
    <error><kind>Leak_StillReachable</kind><xwhat><text>7 bytes in 1 blocks are</text>
      <leakedbytes>7</leakedbytes><leakedblocks>1</leakedblocks></xwhat>{frames("/v/vgpreload_memcheck.so", "/l/ld.so", "/x")}</error>
    </valgrindoutput>"""
    own = {"definitely": (1040, 2), "indirectly": (80, 1), "possibly": (0, 0), "reachable": (0, 0)}
    assert reachability_readings.valgrind(text, "/x") == Held({**own, "reachable": (7, 1)}, own)
    assert reachability_readings.valgrind("<valgrindoutput>", "/x").error


def kinds(**amounts: int) -> dict[str, dict[str, int]]:
    return {kind: {"bytes": amounts.get(kind, 0), "count": 1 if kind in amounts else 0} for kind in KINDS}


def test_leaktraces_last_document_is_read() -> None:
    """Its totals are all blocks, its sites in the program's code the own ones; a site that was not scanned is none."""
    sites = [
        {"reachability": kinds(definitely=5), "frames": [{"module": "/x"}]},
        {"reachability": kinds(reachable=9), "frames": [{"module": "/l/libc.so.6"}, {"module": "/x"}]},
        {"reachability": None, "frames": [{"module": "/x"}]},
        {"reachability": kinds(definitely=1), "frames": [{"module": None}]},
    ]
    report = json.dumps({"totals": {"reachability": kinds(definitely=6, reachable=9)}, "sites": sites})
    read = reachability_readings.leaktrace(f'{{"totals": 3}}\n{report}\n', "/x")
    assert (read.all["definitely"], read.own["definitely"], read.own["reachable"]) == ((6, 1), (5, 1), (0, 0))


@pytest.mark.parametrize("text", ["", "{", '{"totals": {"reachability": null}, "sites": []}', '{"totals": {}, "sites": []}'])
def test_a_report_without_a_scan_is_an_error(text: str) -> None:
    """What leaktrace did not scan is not held to be without blocks."""
    assert reachability_readings.leaktrace(text, "/x").error


def test_own() -> None:
    """A block belongs to whom asked for it last before the allocator and the C++ library."""
    assert is_own(["/v/vgpreload_core.so", "/l/libstdc++.so.6.0.30", "/x", "/l/libc.so.6"], "/x")
    assert not is_own(["/l/libc.so.6", "/x"], "/x") and not is_own([], "") and not is_own(["", "/x"], "/x")


def test_comparison_counts_what_is_the_same() -> None:
    """The same own kinds agree; another amount, other blocks of libraries and errors do not; truth is held to valgrind."""
    one, two = {**dict.fromkeys(KINDS, (0, 0)), "possibly": (8, 1)}, dict.fromkeys(KINDS, (0, 0))
    rows = [
        reachability_comparison.Row("a", one, Held(one, one), Held(one, one)),
        reachability_comparison.Row("b", two, Held(one, one), Held(two, one)),
        reachability_comparison.Row("c", one, Held(one, one), Held(two, two)),
        reachability_comparison.Row("d", one, Held(one, one), reachability_readings.failed("no report")),
    ]
    lines = reachability_comparison.as_text(rows).splitlines()
    assert lines[2] == "| `a` | none | none | 8 bytes in 1 | none | the same | the same |"
    assert lines[3].endswith("| the same | possibly none |") and lines[4].endswith("| possibly none | possibly none |")
    assert lines[5].endswith("| error: no report |  |")
    assert lines[7] == "the same four kinds, bytes and blocks: 2 of 4; with the libraries' blocks: 1 of 4"
    assert lines[8] == "valgrind contradicts the program's own statement: b"


def test_help() -> None:
    """The script starts with any Python of the machine, and says what it can do."""
    done = subprocess.run([sys.executable, SCRIPTS / "score_verdicts", "--help"], capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "--reachability" in done.stdout
