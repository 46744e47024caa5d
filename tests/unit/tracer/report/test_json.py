"""The JSON report: schema leaktrace/1 as DESIGN.md, section 6, promises it to its readers."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from io import StringIO, TextIOWrapper
from typing import Any

import pytest

from symbolizer.frame import Frame, Why
from tracer.report import memory_head
from tracer.report.json import document, write
from tracer.report.memory_model import MemoryHead, MemoryPart
from tracer.report.model import (
    Block,
    Finding,
    LossNote,
    PointerNote,
    Reachability,
    Report,
    ScanNote,
    Share,
    Target,
    Totals,
)

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]


def test_promised_keys(report: MakeReport) -> None:
    """Every key of the schema is there with its type: a reader can rely on it."""
    made = document(report())
    assert made["schema"] == "leaktrace/1"
    assert made["taken"] == "2026-03-01T09:05:07+02:00"
    assert made["elapsed_s"] == 5.012
    assert made["kernel"] == "6.18.44"
    assert made["target"].items() >= {"pid": 4711, "comm": "server", "exe": "/usr/bin/server", "children": 0}.items()
    assert made["complete"] is True
    assert made["losses"] == {}
    assert made["totals"].items() >= {
        "live_bytes": 4096, "live_count": 4, "allocated_bytes": 8192, "allocated_count": 8, "freed_count": 4}.items()
    assert len(made["sites"]) == 1


def test_promised_keys_of_a_site(report: MakeReport, finding: MakeFinding) -> None:
    """A site has its figures, and null where something was not asked for or is not known."""
    (made,) = document(report(finding(growth_bytes_per_s=-1.5)))["sites"]
    frames = made.pop("frames")
    assert made.items() >= {
        "rank": 1, "source": "heap", "bytes": 4096, "count": 4, "allocated_bytes": 8192, "allocated_count": 8,
        "freed_count": 4, "oldest_s": 4.2, "growth_bytes_per_s": -1.5, "verdict": None, "reachability": None}.items()
    assert frames == [
        {"address": "0x7f0000001234", "function": "make_node", "offset": 18, "module": "/usr/lib/libnode.so.1",
         "module_offset": None, "build_id": "ab12", "file": "src/node.c", "line": 7, "inlined": False, "why": None, "repeats": 1},
        {"address": "0x401136", "function": "main", "offset": 0x36, "module": "/usr/bin/server",
         "module_offset": None, "build_id": "cd34", "file": None, "line": None, "inlined": False, "why": None, "repeats": 1},
    ]


@pytest.mark.parametrize(("why", "word"), [
    (Why.UNMAPPED, "unmapped"), (Why.NO_SYMBOLS, "no_symbols"), (Why.NOT_COVERED, "not_covered"), (Why.GONE, "gone"),
    (Why.UNREADABLE, "unreadable"), (Why.UNWIND_STOPPED, "unwind_stopped"),
])
def test_frames_without_a_name(report: MakeReport, finding: MakeFinding, why: Why, word: str) -> None:
    """A frame without a name says why, in the schema's word."""
    (site,) = document(report(finding(frames=(Frame(0x10, why=why),))))["sites"]
    assert (site["frames"][0]["function"], site["frames"][0]["why"]) == (None, word)


def test_what_is_null(report: MakeReport, finding: MakeFinding) -> None:
    """Ages, growth and the like are null where they are not known, never a made-up number."""
    (site,) = document(report(finding(oldest_s=None)))["sites"]
    assert [site[key] for key in ("oldest_s", "growth_bytes_per_s", "gained_bytes", "gained_count", "relative_error")] == [
        None] * 5
    (site,) = document(report(finding(gained_bytes=0, gained_count=-2, error=0.5, growth_bytes_per_s=0.0)))["sites"]
    assert [site[key] for key in ("gained_bytes", "gained_count", "relative_error", "growth_bytes_per_s")] == [0, -2, 0.5, 0]


def test_losses(report: MakeReport) -> None:
    """Losses are counts by name, bytes where there are any; an incomplete measurement says so."""
    made = document(report(complete=False, losses=(LossNote("outstanding_full", 12, 480, "", ""),
                                                   LossNote("stack_depth", 3, 0, "", ""))))
    assert made["complete"] is False
    assert made["losses"] == {"outstanding_full": 12, "stack_depth": 3}
    assert made["lost_bytes"] == {"outstanding_full": 480}


def test_several_targets(report: MakeReport, finding: MakeFinding) -> None:
    """target is the first of targets, and each site has its pid; without any target it is null."""
    made = document(report(finding(pid=9), targets=(Target(8, "a", None), Target(9, "b", "/b"))))
    assert made["target"].items() >= {"pid": 8, "comm": "a", "exe": None, "children": 0}.items()
    assert [each["pid"] for each in made["targets"]] == [8, 9]
    assert made["sites"][0]["pid"] == 9
    assert document(report(targets=()))["target"] is None


def test_what_each_process_holds(report: MakeReport) -> None:
    """A target has its own sums, whose child it is and what it has from there, what execs did away with, and its sites."""
    made = document(report(targets=(
        Target(8, "a", "/a", 2, totals=Totals(100, 3, 200, 6, 3), execs=2, dropped=(640, 10), shares=(Share(1, 60, 2), Share(3, 40, 1))),
        Target(9, "b", "/b", parent=8, inherited=(100, 3)))))
    assert made["targets"] == [
        {"pid": 8, "comm": "a", "exe": "/a", "parent": None, "children": 2,
         "totals": {"live_bytes": 100, "live_count": 3, "allocated_bytes": 200, "allocated_count": 6, "freed_count": 3},
         "inherited": None, "execs": 2, "dropped": {"bytes": 640, "count": 10}, "ended": False, "exit_code": None, "container": None,
         "sites": [{"rank": 1, "bytes": 60, "count": 2}, {"rank": 3, "bytes": 40, "count": 1}]},
        {"pid": 9, "comm": "b", "exe": "/b", "parent": 8, "children": 0, "totals": None,
         "inherited": {"bytes": 100, "count": 3}, "execs": 0, "dropped": {"bytes": 0, "count": 0}, "ended": False,
         "exit_code": None, "container": None, "sites": []}]
    assert made["target"] == made["targets"][0]


@pytest.mark.parametrize(("status", "code"), [(0, 0), (3 << 8, 3), (9, -9), (11 | 0x80, -11), (None, None)])
def test_how_a_process_ended(report: MakeReport, status: int | None, code: int | None) -> None:
    """Its exit code, or minus the signal that ended it, with a core or without; null where that is not known."""
    made = document(report(targets=(Target(8, "a", None, ended=True, status=status),)))["target"]
    assert (made["ended"], made["exit_code"]) == (True, code)


def test_processes_that_are_not_traced(report: MakeReport, finding: MakeFinding) -> None:
    """How many there were by reason; a site says how many processes hold some of it."""
    made = document(report(finding(processes=3), untraced=(("no room", 2), ("gone", 1))))
    assert made["untraced"] == {"no room": 2, "gone": 1} and made["sites"][0]["processes"] == 3
    assert document(report())["untraced"] == {}


def test_sampling_and_last(report: MakeReport) -> None:
    """Estimates are marked as such, and the last report of a run as the last."""
    made = document(report(sampling="one in 10 allocations", total_error=0.125, last=True))
    assert (made["sampling"], made["totals"]["relative_error"], made["last"]) == ("one in 10 allocations", 0.125, True)
    made = document(report())
    assert (made["sampling"], made["totals"]["relative_error"], made["last"]) == (None, None, False)


def test_blocks(report: MakeReport, finding: MakeFinding) -> None:
    """With -a a site lists its blocks; without, it has no such key."""
    (site,) = document(report(finding(blocks=(Block(0x1000, 16),))))["sites"]
    assert site["blocks"] == [{"address": "0x1000", "size": 16}]
    assert "blocks" not in document(report())["sites"][0]


HOSTILE = ("a\nb", "\u2028", "\x00\x1b[2J", 'quote"\\', "\udcff", "naïve 木", "\x7f", "\U0001f600")


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_one_line_of_valid_json(report: MakeReport, finding: MakeFinding, text: str) -> None:
    """Names from the target, whatever is in them, also bytes that are no UTF-8, end in one line that parses back."""
    frame = Frame(1, text, 0, text, None, text, 1)
    out = StringIO()
    write(report(finding(frames=(frame,)), targets=(Target(1, text, text),)), out)
    line = out.getvalue()
    assert line.endswith("\n") and line.count("\n") == 1 and line.isascii() and line[:-1].isprintable()
    back: dict[str, Any] = json.loads(line)
    assert (back["target"]["comm"], back["target"]["exe"]) == (text, text)
    assert [back["sites"][0]["frames"][0][key] for key in ("function", "module", "file")] == [text] * 3


def test_any_encoding_of_the_output(report: MakeReport, tmp_path: Any) -> None:
    """An output that knows ASCII only, as in the C locale, takes every report."""
    with (tmp_path / "out").open("wb") as file, TextIOWrapper(file, encoding="ascii") as out:
        write(report(targets=(Target(1, "木\udcff", None),)), out)
    assert json.loads((tmp_path / "out").read_bytes())["target"]["comm"] == "木\udcff"


def test_numbers_are_exact(report: MakeReport, finding: MakeFinding) -> None:
    """Sizes beyond 2^53 keep their last digit."""
    out = StringIO()
    write(report(finding(bytes=(1 << 60) + 1)), out)
    assert json.loads(out.getvalue())["sites"][0]["bytes"] == (1 << 60) + 1


def test_one_document_a_line(report: MakeReport) -> None:
    """Several reports in one run are as many lines, each flushed when it is written."""

    class Out(StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    out = Out()
    for elapsed in (1.0, 2.0):
        write(replace(report(), elapsed_s=elapsed), out)
    assert [json.loads(line)["elapsed_s"] for line in out.getvalue().splitlines()] == [1.0, 2.0]
    assert out.flushes == 2


def test_a_verdict(report: MakeReport, finding: MakeFinding) -> None:
    """The verdict with its confidence and evidence, what is expected to be lost, and the slope with its interval."""
    (site,) = document(report(finding(verdict="growing", confidence="high", evidence="grows in 9 of 9 intervals",
                                      expected_loss=12.5, slope=(3.0, 2.5, 4.0))))["sites"]
    assert (site["verdict"], site["confidence"], site["evidence"]) == ("growing", "high", "grows in 9 of 9 intervals")
    assert site["expected_loss_bytes_per_s"] == 12.5
    assert site["slope_bytes_per_s"] == {"estimate": 3.0, "low": 2.5, "high": 4.0}
    (site,) = document(report())["sites"]
    assert [site[key] for key in ("verdict", "confidence", "evidence", "expected_loss_bytes_per_s", "slope_bytes_per_s")] == [None] * 5


def test_a_slope_of_which_little_is_known(report: MakeReport, finding: MakeFinding) -> None:
    """JSON has no infinity: an end that is not known is null, and the line is one that any reader takes."""
    out = StringIO()
    write(report(finding(slope=(0.0, float("-inf"), float("inf"))), finding(slope=(float("nan"), 1.0, 2.0))), out)

    def refuse(word: str) -> None:
        raise AssertionError(f"{word} is no JSON")

    first, second = json.loads(out.getvalue(), parse_constant=refuse)["sites"]
    assert first["slope_bytes_per_s"] == {"estimate": 0.0, "low": None, "high": None}
    assert second["slope_bytes_per_s"] == {"estimate": None, "low": 1.0, "high": 2.0}


def test_reachability(report: MakeReport, finding: MakeFinding) -> None:
    """Bytes and blocks of each kind, of a site and of all; null where nobody looked."""
    kinds = Reachability((40, 4), (30, 3), (20, 2), (10, 1))
    made = document(report(finding(reachability=kinds), finding(), reachability=Reachability((41, 5), (0, 0), (0, 0), (0, 0))))
    assert made["sites"][0]["reachability"] == {
        "definitely": {"bytes": 40, "count": 4}, "indirectly": {"bytes": 30, "count": 3}, "possibly": {"bytes": 20, "count": 2},
        "reachable": {"bytes": 10, "count": 1}}
    assert made["sites"][1]["reachability"] is None
    assert made["totals"]["reachability"]["definitely"] == {"bytes": 41, "count": 5}
    assert "reachability" not in document(report())["totals"]


def test_scans_and_pointers(report: MakeReport) -> None:
    """Each look at memory, those that failed too, and the chain to each thing that was asked for; else empty lists."""
    made = json.loads(json.dumps(document(report(
        scans=(ScanNote(7, 4096, 0.0125, streamed=True), ScanNote(8, failed="it ended")), pointers=(PointerNote("0x10", ("global a", "block")),)))))
    assert [[scan[key] for key in ("pid", "bytes_read", "stopped_s", "streamed", "failed")] for scan in made["scans"]] == [
        [7, 4096, 0.0125, True, None], [8, 0, 0.0, False, "it ended"]]
    assert made["pointers"] == [{"asked": "0x10", "chain": ["global a", "block"]}]
    plain = document(report())
    assert (plain["scans"], plain["pointers"], plain["memory"]) == ([], [], [])


def test_memory(report: MakeReport) -> None:
    """Where the memory of each process went, one entry each, in the report's order."""
    heads = [MemoryHead(pid, "web", 812, 790, 801, 431, 4, (MemoryPart("outstanding", 431),)) for pid in (9, 7)]
    made = json.loads(json.dumps(document(report(memory=tuple(heads)))["memory"]))
    assert [each["pid"] for each in made] == [9, 7] and made == json.loads(json.dumps([memory_head.document(head) for head in heads]))
