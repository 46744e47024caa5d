"""How a difference is written in each format."""

from __future__ import annotations

import gzip
import io
import json
import re
from html.parser import HTMLParser
from typing import Any
from xml.etree import ElementTree

import pytest

from tests.unit.tracer.compared import side, site
from tracer.diff import difference
from tracer.diff_gate import judge, parse
from tracer.report import diff_html
from tracer.report.diff_flamegraph import BLUE, RED, SAME, colour
from tracer.report.diff_formats import DIFF_FORMATS
from tracer.report.diff_model import Difference, Per
from tracer.report.pprof_messages import profile_class

EVIL = "</script><script>alert(1)</script>\x1b[2J"
BEFORE = side(site("cache main", 1000, 10), site("old main", 4096, 2), site("table main", 50))
AFTER = side(site("cache main", 1500, 12, build=1, verdict="growing"), site("leak main", 3000, 3, build=1),
             site("table main", 50, build=1), source="after")


def written(form: str, made: Difference | None = None, top: int | None = None) -> bytes:
    """Return what a format makes of a difference."""
    out = io.BytesIO()
    DIFF_FORMATS[form].write(made or difference(BEFORE, AFTER), top, out)
    return out.getvalue()


def test_text_says_it_all() -> None:
    """A line has what became of a site, its change, percentage and both figures; its stack is below, the sums at the end."""
    lines = written("text").decode().splitlines()
    assert lines[:3] == [
        "before: before: server (100), 10.0 s, 2026-03-01 09:05:07",
        "after:  after: server (100), 10.0 s, 2026-03-01 09:05:07",
        "Top 3 of 3 call sites that changed:"]
    assert [line for line in lines[3:] if not line.startswith("\t\t")] == [
        "\tgone -4096 bytes (-100%): 4096 -> 0 bytes in 2 -> 0 allocations (-2)",
        "\tnew +3000 bytes: 0 -> 3000 bytes in 0 -> 3 allocations (+3)",
        "\tgrew +500 bytes (+50%): 1000 -> 1500 bytes in 10 -> 12 allocations (+2); verdict growing",
        "Sites: 1 new, 1 grew, 0 shrank, 1 gone, 1 same.",
        "In total: -596 bytes (-12%): 5146 -> 4550 bytes in 13 -> 16 allocations (+3)."]
    assert "\t\t0x0000000000002000 cache+0x5 [server] /src/1/server.c:1" in lines


def test_text_says_what_to_beware_of() -> None:
    """Warnings, scales, chance and budgets each have their words."""
    made = difference(side(site("cache main", 1000, error=0.5), sampling="1 in 4", complete=False),
                      side(site("cache main", 1100, error=0.5), sampling="1 in 4"), Per("request", 10, 100))
    said = judge(made, [parse("bytes>0")], 23)
    text = written("text", Difference(made.before, made.after, made.per, made.rows, made.total_before, made.total_after,
                                      made.total_error, made.warnings, judgement=said)).decode()
    assert "figures are per request: 10 before, 100 after" in text
    assert "WARNING: allocations were lost before" in text
    assert re.search(r"shrank -89 bytes per request \(-89%\): 100 -> 11 bytes .*; ±50\.3, NO MORE THAN CHANCE", text)
    assert text.endswith("NOT CERTAIN: allocations were lost before: the trace says that it is not complete\n")


def test_text_marks_what_is_over_budget() -> None:
    """Who reads the report of a failed run sees which sites it is about, and by which expression."""
    made = difference(BEFORE, AFTER)
    said = judge(made, [parse("bytes>1k"), parse("total_count>1")], 23)
    text = written("text", Difference(made.before, made.after, None, made.rows, made.total_before, made.total_after, 0,
                                      judgement=said)).decode()
    assert [line.split()[0] for line in text.splitlines() if "OVER BUDGET bytes>1k" in line] == ["new"]
    assert "over budget in total: total_count>1" in text


def test_json_has_its_schema() -> None:
    """A site has both sides, the change and its stack; what is not there is null."""
    said: dict[str, Any] = json.loads(written("json"))
    assert said["schema"] == "leaktrace-diff/1"
    assert said["states"] == {"new": 1, "growth": 1, "shrinkage": 0, "gone": 1, "same": 1}
    gone, new, grown, same = said["sites"]
    assert (gone["state"], gone["after"], gone["before"]["bytes"]) == ("gone", None, 4096)
    assert (new["before"], new["change"]["percent"]) == (None, None)
    assert grown["change"] == {"bytes": 500, "count": 2, "percent": 50.0, "standard_error_bytes": 0.0, "significant": True}
    assert grown["frames"][0] == {
        "address": "0x2000", "function": "cache", "offset": 5, "module": "/builds/1/server", "build_id": "0001",
        "file": "/src/1/server.c", "line": 1, "inlined": False, "why": None, "module_offset": "0x0", "repeats": 1}
    assert (same["state"], said["totals"]["bytes"], said["comparable"]) == ("same", -596, True)
    assert len(json.loads(written("json", top=2))["sites"]) == 2


def test_folded_has_both_values() -> None:
    """Each stack is a line with its bytes before and after, as difffolded.pl has it."""
    assert written("folded").decode().splitlines() == [
        "main;old 4096 0", "main;leak 0 3000", "main;cache 1000 1500", "main;table 50 50"]
    assert "main;cache 100.000 15.000" in written("folded", difference(BEFORE, AFTER, Per("x", 10, 100))).decode()


def test_speedscope_has_gains_and_losses_apart() -> None:
    """Widths cannot be negative: what grew is in one profile, what shrank in another, of bytes and of blocks."""
    said: dict[str, Any] = json.loads(written("speedscope"))
    names = [frame["name"] for frame in said["shared"]["frames"]]
    found = {each["name"]: {names[stack[-1]]: weight for stack, weight in zip(each["samples"], each["weights"], strict=True)}
             for each in said["profiles"]}
    assert found["bytes gained"] == {"leak": 3000, "cache": 500}
    assert found["bytes given back"] == {"old": 4096}
    assert set(found) == {f"{what} {way}" for what in ("bytes", "blocks") for way in ("gained", "given back")}


def test_the_flame_graph_shows_both() -> None:
    """What is gone is there as well; another folder of the same file splits nothing; colours say where it went."""
    svg = "{http://www.w3.org/2000/svg}"
    cells = {(group.find(f"{svg}title").text or "").split("\n")[0]: group  # type: ignore[union-attr]
             for group in ElementTree.fromstring(written("flamegraph")).iter(f"{svg}g")}
    assert set(cells) == {"all", "main", "old", "leak", "cache", "table"}
    fills = {name: cell.find(f"{svg}rect").get("fill") for name, cell in cells.items()}  # type: ignore[union-attr]
    assert fills | {"all": "", "main": ""} == {
        "all": "", "main": "", "old": BLUE[4], "leak": RED[4], "cache": RED[1], "table": SAME}
    assert fills["main"] == BLUE[1]
    width = {name: float(cell.find(f"{svg}rect").get("width") or 0) for name, cell in cells.items()}  # type: ignore[union-attr]
    assert width["old"] / width["leak"] == pytest.approx(4096 / 3000, rel=0.01)
    assert (cells["main"].find(f"{svg}title").text or "").split("\n")[1] == "-596 bytes (-12%): 5.0 kB -> 4.4 kB"  # type: ignore[union-attr]


@pytest.mark.parametrize(("was", "now", "wanted"), [
    (10, 10, SAME), (0, 5, RED[4]), (5, 0, BLUE[4]), (100, 105, RED[0]), (100, 140, RED[1]), (100, 290, RED[2]),
    (100, 310, RED[3]), (310, 100, BLUE[3]), (105, 100, BLUE[0])])
def test_colours_are_steps(was: float, now: float, wanted: str) -> None:
    """Up and down by the same factor are as strong; only what is new or gone is strongest."""
    assert colour(was, now) == wanted


def test_pprof_subtracts_before() -> None:
    """Samples of before are negative and marked as those of a base, so that sums and percentages are right."""
    profile = profile_class().FromString(gzip.decompress(written("pprof")))
    texts = list(profile.string_table)
    base = [sample for sample in profile.sample
            if any((texts[label.key], texts[label.str]) == ("pprof::base", "true") for label in sample.label)]
    assert [sample.value[3] for sample in base] == [-4096, -1000, -50]
    assert [sample.value[2] for sample in base] == [-2, -10, -1]
    assert sum(sample.value[3] for sample in profile.sample) == -596
    assert sum(sample.value[1] for sample in profile.sample) == 2 * -596


class _Page(HTMLParser):
    """The elements of a page, and the texts of its cells."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        if dict(attrs).get("http-equiv") == "Content-Security-Policy":
            self.policy = dict(attrs)["content"] or ""


@pytest.mark.parametrize("place", ["function", "module", "comm", "source", "verdict"])
def test_the_page_escapes_everything(place: str) -> None:
    """No text of a target or a file name becomes an element, and nothing may be loaded from anywhere."""
    evil = site("a main", 10, verdict=EVIL if place == "verdict" else None)
    frame = evil.frames[0].__class__(1, EVIL if place == "function" else "f", module=EVIL if place == "module" else "m")
    after = side(evil.__class__(**{name: getattr(evil, name) for name in evil.__slots__} | {"frames": (frame,)}),
                 source=EVIL if place == "source" else "x")
    if place == "comm":
        target = after.report.targets[0]
        after = side(evil, targets=(target.__class__(1, EVIL, None),))
    for form in ("html", "flamegraph", "text"):
        text = written(form, difference(BEFORE, after)).decode()
        if form != "text":
            assert "<script>alert" not in text
            assert "\x1b" not in text
    page = _Page()
    page.feed(written("html", difference(BEFORE, after)).decode())
    assert page.elements.count("script") == 1
    assert page.policy.startswith("default-src 'none'")
    assert "unsafe" not in page.policy


def test_a_large_page_says_what_it_leaves_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The table has the largest changes only, and says how many it has not; the graph has them all."""
    monkeypatch.setattr(diff_html, "TABLED", 2)
    page = written("html").decode()
    assert page.count("<tr class=") == 2
    assert "2 more with smaller changes not listed" in page
    assert page.count("<g>") == 6
    assert written("html", top=3).decode().count("<tr class=") == 3


def test_nothing_is_a_difference_too() -> None:
    """Two traces without a site can be written in every format."""
    for form in DIFF_FORMATS:
        assert written(form, difference(side(), side())) or form == "folded"
