"""The report for speedscope: in speedscope's own form, and figures that are the report's."""

from __future__ import annotations

import json
from collections.abc import Callable
from io import StringIO
from typing import Any

import jsonschema

from symbolizer.frame import Frame, Why
from tracer.report.model import Finding, Report, Target
from tracer.report.speedscope import write

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]
COUNT = {"type": "integer", "minimum": 0}
#: What speedscope's file format asks for (src/lib/file-format-spec.ts in its sources), of the kind of profile made here.
FORM = {
    "type": "object",
    "required": ["$schema", "shared", "profiles"],
    "properties": {
        "$schema": {"const": "https://www.speedscope.app/file-format-schema.json"},
        "name": {"type": "string"},
        "exporter": {"type": "string"},
        "activeProfileIndex": COUNT,
        "shared": {"type": "object", "required": ["frames"], "properties": {"frames": {"type": "array", "items": {
            "type": "object", "required": ["name"],
            "properties": {"name": {"type": "string"}, "file": {"type": "string"}, "line": {"type": "integer"},
                           "col": {"type": "integer"}}}}}},
        "profiles": {"type": "array", "items": {
            "type": "object", "required": ["type", "name", "unit", "startValue", "endValue", "samples", "weights"],
            "properties": {
                "type": {"const": "sampled"}, "name": {"type": "string"},
                "unit": {"enum": ["none", "nanoseconds", "microseconds", "milliseconds", "seconds", "bytes"]},
                "startValue": {"type": "number"}, "endValue": {"type": "number"},
                "samples": {"type": "array", "items": {"type": "array", "items": COUNT}},
                "weights": {"type": "array", "items": {"type": "number"}}}}},
    },
}


def made(report: Report) -> dict[str, Any]:
    out = StringIO()
    write(report, out)
    document: dict[str, Any] = json.loads(out.getvalue())
    return document


def stacks(document: dict[str, Any], profile: int) -> list[tuple[list[str], int]]:
    """Return names, outermost first, and weight of each sample."""
    names = [frame["name"] for frame in document["shared"]["frames"]]
    found = document["profiles"][profile]
    return [([names[place] for place in sample], weight)
            for sample, weight in zip(found["samples"], found["weights"], strict=True)]


def test_valid_by_speedscopes_form(report: MakeReport, finding: MakeFinding) -> None:
    """Reports with and without growth, stacks, files, names and sites are valid; what breaks the form is not."""
    nameless = finding(frames=(Frame(0x10, module="/lib/x.so", why=Why.NO_SYMBOLS), Frame(0x20, why=Why.UNMAPPED)))
    for each in (report(), report(nameless, finding(frames=()), finding(gained_bytes=5)), report(targets=()),
                 report(finding(bytes=0, count=0, gained_bytes=-3))):
        document = made(each)
        jsonschema.Draft7Validator(FORM).validate(document)
        frames = len(document["shared"]["frames"])
        for profile in document["profiles"]:
            assert len(profile["samples"]) == len(profile["weights"])
            assert all(place < frames for sample in profile["samples"] for place in sample)
    broken = made(report())
    del broken["profiles"][0]["endValue"]
    assert not jsonschema.Draft7Validator(FORM).is_valid(broken)


def test_a_profile_for_each_figure(report: MakeReport, finding: MakeFinding) -> None:
    """Bytes, blocks and bytes gained are profiles of their own, with unit, sum and stacks from the outermost on."""
    document = made(report(finding(gained_bytes=100, bytes=4096, count=4), finding(gained_bytes=-7, bytes=10, count=1)))
    assert [(each["name"], each["unit"], each["startValue"], each["endValue"]) for each in document["profiles"]] == [
        ("live bytes", "bytes", 0, 4106), ("live blocks", "none", 0, 5),
        ("bytes gained since the report before", "bytes", 0, 100)]
    assert stacks(document, 0) == [(["main", "make_node"], 4096), (["main", "make_node"], 10)]
    assert stacks(document, 2) == [(["main", "make_node"], 100)], "a site that shrank has no width"
    assert document["name"] == "server 4711, 2026-03-01 09:05:07" and document["exporter"].startswith("leaktrace@")


def test_no_growth_no_profile_of_it(report: MakeReport, finding: MakeFinding) -> None:
    """The first report of a trace, and one in which nothing grew, have the other two profiles."""
    for each in (report(), report(finding(gained_bytes=0), finding(gained_bytes=-5))):
        assert [profile["name"] for profile in made(each)["profiles"]] == ["live bytes", "live blocks"]


def test_a_function_is_one_frame(report: MakeReport, finding: MakeFinding) -> None:
    """speedscope adds up by frame: calls at several lines of a function are one, which then says no line."""
    def at(line: int) -> Frame:
        return Frame(0x10 + line, "make", 1, "/bin/x", None, "/src/make.c", line)

    frames = made(report(finding(frames=(at(3),)), finding(frames=(at(5),))))["shared"]["frames"]
    assert frames == [{"name": "make", "file": "/src/make.c"}]
    frames = made(report(finding(frames=(at(3),)), finding(frames=(at(3),))))["shared"]["frames"]
    assert frames == [{"name": "make", "file": "/src/make.c", "line": 3}]


def test_hostile_names_stay_names(report: MakeReport, finding: MakeFinding) -> None:
    """Names and paths with quotes, line ends and bytes that are no text come back as text of one line."""
    name = 'a"\\\n\x1b</script>\udcff'
    document = made(report(finding(frames=(Frame(1, name, 0, name, None, name, 1),)), targets=(Target(1, name, None),)))
    shown = r'a"\\n\x1b</script>\udcff'
    assert document["shared"]["frames"] == [{"name": shown, "file": shown, "line": 1}]
