"""scripts/bench_symbols: what it asks, how it counts answers, and what it lets pass as the same name."""

# ruff: noqa: E402  (the scripts are no package: their folder must be on the path first)

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from benchmarks import symbol_program
from benchmarks.symbol_check import (
    EQUAL,
    UNEXPLAINED,
    Difference,
    Function,
    Place,
    Verdict,
    as_text,
    kinds_of_difference,
    llvm_places,
)
from benchmarks.symbol_experiments import Result, medians
from benchmarks.symbol_output import as_text as table
from benchmarks.symbol_output import cell, figures_of
from benchmarks.symbol_process import answer_times, run
from benchmarks.symbol_requests import Request, spread
from benchmarks.symbol_tools import LEAKTRACE, LLVM, TOOLS, Job, Tool, whole_mappings

FUNCTIONS = [(0x1000, 16), (0x2000, 1), (0x3000, 64)]


def test_script_is_posix_shell() -> None:
    """The script parses as the shell that its first line names."""
    assert subprocess.run(["sh", "-n", SCRIPTS / "bench_symbols"], check=False).returncode == 0


def test_addresses_are_distinct_and_in_functions() -> None:
    """Every address lies in one of the functions, and none comes twice."""
    found = spread(FUNCTIONS, 40, random.Random(1))
    assert len(set(found)) == len(found) == 40
    assert all(any(start <= one < start + size for start, size in FUNCTIONS) for one in found)


def test_addresses_are_the_same_in_every_run() -> None:
    """The seed decides alone."""
    assert spread(FUNCTIONS, 40, random.Random(7)) == spread(FUNCTIONS, 40, random.Random(7))
    assert spread(FUNCTIONS, 40, random.Random(7)) != spread(FUNCTIONS, 40, random.Random(8))


@pytest.mark.parametrize("functions", [[], [(0x1000, 3)]])
def test_few_bytes_give_few_addresses(functions: list[tuple[int, int]]) -> None:
    """Functions with fewer bytes than addresses are wanted end the search."""
    assert len(spread(functions, 10, random.Random(1))) == sum(size for _, size in functions)


def test_a_request_is_read_as_it_was_written() -> None:
    """The two programs that exchange requests agree, also on paths with blanks."""
    request = Request("/a b/c.so", 0x1234, 0x234)
    assert Request.read(f"{request}\n") == request


def test_the_program_is_built_anew_when_its_source_or_compiler_changes() -> None:
    """The name of a build has all that decides on its bytes."""
    keys = {
        symbol_program.key({"a.cpp": "1"}, "g++ 12"),
        symbol_program.key({"a.cpp": "2"}, "g++ 12"),
        symbol_program.key({"b.cpp": "1"}, "g++ 12"),
        symbol_program.key({"a.cpp": "1"}, "g++ 13"),
    }
    assert len(keys) == 4


def test_every_unit_of_the_program_is_called() -> None:
    """The linker keeps each unit, because main() calls it."""
    files = symbol_program.sources()
    units = [name.removesuffix(".cpp") for name in files if name != "main.cpp"]
    assert len(units) > 40
    assert all(f"{unit}_entry(count)" in files["main.cpp"] for unit in units)
    assert all("@" not in text for text in files.values())


def test_mappings_of_whole_files_are_found() -> None:
    """Only executable mappings from the file's first byte count: BCC is asked for addresses there."""
    maps = (
        "7f0000000000-7f0000001000 r--p 00000000 fe:00 1  /lib/a.so\n"
        "7f0000001000-7f0000002000 r-xp 00001000 fe:00 1  /lib/a.so\n"
        "7f0000100000-7f0000200000 r-xp 00000000 fe:00 2                          /lib/b c.so\n"
        "7f0000300000-7f0000301000 r-xp 00000000 00:00 0                          [vdso]\n"
    )
    assert whole_mappings(maps) == {"/lib/b c.so": 0x7F0000100000}


OUTPUTS = {
    "leaktrace": "f()\na.c:1\ng()\na.c:2\n\n??\n??:0\n\nh\n??:0\n\n",
    "llvm-symbolizer --inlines": "f()\na.c:1:2\ng()\na.c:2:3\n\n??\n??:0:0\n\nh\n??:0:0\n\n",
    "addr2line -ifC": "0x0001\nf()\na.c:1\ng()\na.c:2\n0x0002\n??\n??:0\n0x0003\nh\n??:?\n",
    "BCC's sym()": "f()\n[unknown]\nh\n",
}


@pytest.mark.parametrize("tool", TOOLS, ids=lambda one: one.name)
def test_names_are_counted(tool: Tool) -> None:
    """Of three addresses two have a name, however the tool writes that; an inlined call does not count."""
    assert len(re.findall(tool.named, OUTPUTS[tool.name])) == 2


def test_a_path_with_blanks_is_quoted_for_llvm() -> None:
    """llvm-symbolizer reads a file and an address from one line."""
    request = Request("/a b/c.so", 0x10, 0)
    assert LLVM.asked(Job((request,)), (request,)) == ['"/a b/c.so" 0x10']


F = Place("_Z1fv", "/a.cpp", 3)
THUNK = Place("_ZThn8_N1S1fEv", None, None)


@pytest.mark.parametrize(
    ("ours", "theirs", "aliases", "kinds"),
    [
        ([F], [F], [], ()),
        ([F], [F._replace(function="_Z1gv")], ["_Z1fv", "_Z1gv"], ("another name of the same function",)),
        ([F], [F._replace(function="_Z1gv")], ["_Z1fv"], (UNEXPLAINED,)),
        ([F._replace(function="_Z1fv.isra.0.cold")], [F], ["_Z1fv.isra.0.cold"], ("a clone's name",)),
        ([F._replace(function="_Z1fv.other")], [F], ["_Z1fv.other"], (UNEXPLAINED,)),
        ([Place("f", None, None)], [Place("f", "/a.cpp", None)], [], ("a file without a line",)),
        ([Place("f", None, None)], [Place("f", "/a.cpp", 7)], [], (UNEXPLAINED,)),
        ([F], [F._replace(line=4)], ["_Z1fv"], (UNEXPLAINED,)),
        ([F], [F, F], [], (UNEXPLAINED,)),
        ([THUNK], [THUNK._replace(file="/a.cpp", line=3)], ["_ZThn8_N1S1fEv"], ("a thunk's line",)),
        ([THUNK], [F], ["_ZThn8_N1S1fEv"], (UNEXPLAINED,)),
        ([Place("f", None, None)], [Place("f", "/b.h", 5)], ["f"], ("the line of the function before",)),
        ([Place("f", None, None), F], [Place("f", "/b.h", 5), F], ["_Z1fv"], (UNEXPLAINED,)),
        # Symbols say nothing of an inlined call.
        ([F, F], [F._replace(function="_Z1gv"), F], ["_Z1fv", "_Z1gv"], (UNEXPLAINED,)),
        # One frame that nothing explains is enough.
        ([Place("f", None, None), F], [Place("f", "/a", None), F._replace(line=9)], [], (UNEXPLAINED,)),
    ],
)
def test_what_passes_as_the_same(
    ours: list[Place], theirs: list[Place], aliases: list[str], kinds: tuple[str, ...]
) -> None:
    """A difference passes only for a reason that the frame itself shows."""
    function = Function(aliases, Place("before", "/b.h", 5))
    assert kinds_of_difference(ours, theirs, function) == kinds


def test_llvms_answer_is_read() -> None:
    """What it does not know becomes None, and its paths lose their detours."""
    answer = {"Symbol": [{"FunctionName": "f", "FileName": "/usr/bin/../x.h", "Line": 0}, {"FunctionName": "", "FileName": "", "Line": 0}]}
    assert llvm_places(answer) == (Place("f", "/usr/x.h", None), Place(None, None, None))


def test_the_verdict_counts_each_kind_and_shows_what_nothing_explains() -> None:
    """Equal ones, explained ones and others add up, and only the last are printed."""
    explained = Difference(0x10, ("a clone's name",), (F,), (F,))
    wrong = Difference(0x20, (UNEXPLAINED,), (F,), (F._replace(line=9),))
    verdict = Verdict(10, (explained, wrong))
    assert verdict.counts[EQUAL] == 8
    assert verdict.counts["a clone's name"] == verdict.counts[UNEXPLAINED] == 1
    text = as_text(verdict)
    assert "0x20" in text and "/a.cpp:9" in text and "0x10" not in text


def test_a_median_is_made_of_the_rounds_that_have_the_column() -> None:
    """A tool that failed in one round is not counted as zero there."""
    assert medians([{"cold": 1.0}, {"cold": 5.0, "again": 2.0}, {"cold": 2.0}]) == {"cold": 2.0, "again": 2.0}


def test_figures_compare_with_the_limit() -> None:
    """The C++ program is measured against llvm-symbolizer, and what was not measured is not reached."""
    values = {LEAKTRACE.name: {"cold": 1.0}, LLVM.name: {"cold": 2.0}}
    program = Result("program", "", ("cold",), values, {})
    libraries = Result("libraries", "", (), {LEAKTRACE.name: {}}, {})
    ratio, rate = figures_of([program, libraries])
    assert (ratio.value, ratio.reached) == (0.5, True)
    assert (rate.value, rate.reached, rate.why) == (None, False, "not measured")


def test_the_table_is_markdown_with_ratios() -> None:
    """Every row has the cells of the first; another tool's time stands with its ratio to leaktrace's."""
    values = {LEAKTRACE.name: {"cold": 2.0, "named": 10}, "other": {"cold": 3.0}, "absent": {}}
    rows = table(Result("x", "title", ("cold", "named"), values, {"absent": "missing"})).splitlines()[2:]
    assert len({row.count("|") for row in rows}) == 1
    assert "3 (1.5x)" in rows[3] and "missing" in rows[4]


@pytest.mark.parametrize(("value", "base", "text"), [(None, 1.0, ""), (0.01234, None, "0.0123"), (1234.5, None, "1,234"), (2.0, 4.0, "2 (0.5x)")])
def test_cells(value: float | None, base: float | None, text: str) -> None:
    """Three digits are enough."""
    assert cell(value, base) == text


def test_a_program_is_run_and_asked() -> None:
    """A whole run gives output and memory; a running program is timed for each batch."""
    done = run(["cat"], "a\nb\n")
    assert done.output == "a\nb\n" and done.peak_mb > 0 and done.first_line_s <= done.seconds
    echo = ["sh", "-c", 'while read -r line; do echo "$line"; echo; done']
    assert len(answer_times(echo, (["a", "b"], ["c"]))) == 2
