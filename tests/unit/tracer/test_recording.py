"""What is read of a recording is what was reported; what is damaged, foreign or hostile is said to be so."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any
from zlib import crc32

import msgspec
import numpy as np
import pytest
import zstandard

from symbolizer.frame import Frame
from tests.unit.tracer.recorded import START, ZONE, finding, frames_of, full_report, recorded, report
from tracer.columns import COLUMNS
from tracer.errors import UsageError
from tracer.recorder import DETAILED, DETAILS, FACTS, FIGURES, MAPS, MOMENT, SITES, Recorder
from tracer.recording import MOST_SITES, Recording, load
from tracer.report import json, text
from tracer.report.model import Finding, Report
from tracer.store import _CHECKSUM, _HEAD, Chunk, Reader, Writer

encode = msgspec.msgpack.encode
#: A moment as it is stored, of one site at most.
TIME: dict[str, Any] = {
    "taken": START.isoformat(), "clock_ms": 5000, "since_s": None, "first": [], "maps": [],
    "moment": {"elapsed_s": 5.0, "kernel": "6.18", "targets": [], "totals": {
        "live_bytes": 0, "live_count": 0, "allocated_bytes": 0, "allocated_count": 0, "freed_count": 0},
        "losses": [], "complete": True},
}
NOTHING = bytes(len(COLUMNS))


def facts(**changes: Any) -> Chunk:
    said = {"leaktrace": "1", "started": START.isoformat(), "kernel": "6", "machine": "m", "host": "h", "processors": 1,
            "command": ["leaktrace"], "settings": {}}
    return Chunk(FACTS, encode(said | changes))


def moment(**changes: Any) -> Chunk:
    return Chunk(MOMENT, encode(TIME | changes))


def made_of(path: Path, *chunks: Chunk) -> Path:
    """Write a recording of these chunks, and return it."""
    writer = Writer(str(path), None)
    writer.write(*chunks)
    writer.close()
    return path


def use(recording: Recording) -> list[Report]:
    """Ask a recording for everything, and write it as text and JSON."""
    recording.series()
    reports = list(recording.reports())
    for each in reports:
        text.write(each, io.StringIO())
        json.write(each, io.StringIO())
    return reports


def read(data: bytes) -> tuple[list[Report], bool]:
    recording = Recording(Reader(io.BytesIO(data), "file"))
    return use(recording), recording.truncated


# ---- what was reported


def test_every_field_comes_back(tmp_path: Path) -> None:
    """A report in which every field says something is read as it was: targets, notes, memory, misuses, maps, findings."""
    was = full_report()
    assert [field.name for field in fields(Report) if getattr(was, field.name) == field.default] == []
    now = recorded(tmp_path / "r", was).report()
    for field in fields(Report):
        if field.name != "sites":
            assert getattr(now, field.name) == getattr(was, field.name), field.name
    assert now.taken.utcoffset() == was.taken.utcoffset() == ZONE.utcoffset(None)


def test_json_and_text_are_the_same(tmp_path: Path) -> None:
    """What the writers make of a recorded report is what they make of the one that was shown."""
    was = full_report()
    now = recorded(tmp_path / "r", was).report()
    assert json.document(now) == json.document(was)
    pages = [io.StringIO(), io.StringIO()]
    text.write(was, pages[0])
    text.write(now, pages[1])
    assert pages[0].getvalue() == pages[1].getvalue()


def test_every_site_of_every_moment_comes_back(tmp_path: Path) -> None:
    """Sites that come, grow, empty and fill again have their exact figures, gains and rates in each report."""
    random = np.random.default_rng(3)
    reports: list[Report] = []
    before: dict[int, Finding] = {}
    for number in range(1, 9):
        sites = {}
        for key in range(1, 10 + number * 7):
            count = int(random.integers(0, 5)) * (key % 3 > 0)
            was = before.get(key)
            held, earlier = count * 40 + key * (count > 0), (was.bytes, was.count) if was else (0, 0)
            rate = {"gained_bytes": held - earlier[0], "gained_count": count - earlier[1],
                    "growth_bytes_per_s": round((held - earlier[0]) / 2.5, 3)} if number > 1 else {}
            sites[key] = finding(key, held, count, allocated_count=key * 100 * number, freed_count=key * 100 * number - count,
                                 oldest_s=round(2.5 * number - key / 1000 - 0.5, 3) if count else None, **rate)
        reports.append(report(sites, number * 2.5, order=sorted(sites, key=lambda key: (-sites[key].bytes, key))))
        before = sites
    recording = recorded(tmp_path / "r", *reports)
    for number in (7, 0, 3, 4, 2):
        assert recording.report(number).findings == reports[number].findings
    assert [each.findings for each in recording.reports()] == [each.findings for each in reports]
    assert recording.times == [each.elapsed_s for each in reports]


def test_many_sites_have_their_figures_and_the_first_their_evidence(tmp_path: Path) -> None:
    """Of sites that are not among the first, figures are exact, ages within 3.2 %, and at the end all is."""
    def sites(moment: int) -> dict[int, Finding]:
        return {key: finding(key, key * 10 * moment, key, verdict="growing", evidence=f"{moment} times",
                             expected_loss=key * moment / 7, freed_count=key * moment, slope=(1.5, 1, float(moment)),
                             oldest_s=round(5.0 * moment - key / 77, 3), gained_bytes=key * 10, gained_count=0,
                             growth_bytes_per_s=key * 2.0)
                for key in range(1, 301)}

    was = [report(sites(number), 5.0 * number) for number in (1, 2)] + [report(sites(3), 15.0, last=True)]
    recording = recorded(tmp_path / "r", *was)
    middle, last = recording.report(1), recording.report(2)
    assert middle.findings[:DETAILED] == tuple(
        replace(each, expected_loss=round(each.expected_loss or 0, 3)) for each in was[1].findings[:DETAILED])
    for now, then in zip(middle.findings[DETAILED:], was[1].findings[DETAILED:], strict=True):
        exact = {"bytes", "count", "allocated_bytes", "allocated_count", "freed_count", "frames", "verdict", "rank"}
        assert [getattr(now, name) for name in exact] == [getattr(then, name) for name in exact]
        assert now.oldest_s == pytest.approx(then.oldest_s, rel=0.033, abs=0.002)
        assert now.expected_loss == pytest.approx(then.expected_loss, rel=0.033, abs=2)
        assert now.evidence == "1 times"
    assert [each.evidence for each in last.findings] == ["3 times"] * 300
    assert last.findings == tuple(replace(each, expected_loss=round(each.expected_loss or 0, 3)) for each in was[2].findings)


def test_a_verdict_that_turns_is_recorded_with_its_evidence(tmp_path: Path) -> None:
    """Of a site that is not among the first, no report says a verdict with the evidence of another."""
    def sites(verdict: str) -> dict[int, Finding]:
        return {key: finding(key, 10_000 - key, 1, verdict=verdict if key == 250 else "steady",
                             evidence=verdict if key == 250 else "steady") for key in range(1, 301)}

    recording = recorded(tmp_path / "r", report(sites("undecided")), report(sites("growing"), 10.0))
    found = next(each for each in recording.report().findings if each.frames == frames_of(250))
    assert (found.verdict, found.evidence) == ("growing", "growing")


def test_a_site_that_is_named_late_does_not_stay(tmp_path: Path) -> None:
    """Where a site has another key once its names are known, the old one holds nothing, and is in no report again."""
    late = replace(finding(1, 5000, 5), frames=(Frame(77, "named_late"), frames_of(1)[-1]))
    recording = recorded(tmp_path / "r", report({1: finding(1, 4000, 4), 2: finding(2, 100, 1)}),
                         report({3: late, 2: finding(2, 100, 1)}, 10.0))
    now = recording.report()
    assert [(each.bytes, each.frames) for each in now.findings] == [(5000, late.frames), (100, frames_of(2))]
    assert now.sites is not None and int(now.sites.bytes.sum()) == 5100
    assert recording.series().bytes.tolist() == [[4000, 0], [100, 100], [0, 5000]]


def test_shares_follow_the_order(tmp_path: Path) -> None:
    """What a process holds is at the same site in whatever order, and not at one that is not shown."""
    recording = recorded(tmp_path / "r", full_report())
    for sort, top in (("loss", None), ("size", None), ("count", 2), ("size", 1)):
        now = recording.report(top=top, sort=sort)
        for target, was in zip(now.targets, full_report().targets, strict=True):
            shown = {each.frames: (share.bytes, share.count) for share in target.shares
                     for each in [now.findings[share.rank - 1]]}
            expected = {full_report().findings[share.rank - 1].frames: (share.bytes, share.count) for share in was.shares}
            assert shown == {frames: held for frames, held in expected.items()
                             if frames in [each.frames for each in now.findings]}


@pytest.mark.parametrize("recorded_as", ["loss", "size", "count"])
@pytest.mark.parametrize(("sort", "key"), [
    ("loss", lambda each: (-(each.expected_loss or 0), -each.bytes)), ("size", lambda each: -each.bytes),
    ("count", lambda each: (-each.count, -each.bytes))])  # fmt: skip
def test_sites_are_sorted_as_asked(tmp_path: Path, recorded_as: str, sort: str, key: Callable[[Finding], Any]) -> None:
    """The order is the one asked for, whatever the order of the trace was, and ranks are of that order."""
    sites = {number: finding(number, 100 + number * 37 % 11, number * 53 % 17 + 1, verdict="growing",
                             expected_loss=float(number * 29 % 13)) for number in range(1, 150)}
    order = sorted(sites, key=lambda number: {
        "loss": -(sites[number].expected_loss or 0), "size": -sites[number].bytes, "count": -sites[number].count}[recorded_as])
    recording = recorded(tmp_path / "r", report(sites, order=order), settings={"sort": recorded_as})
    found = recording.report(sort=sort).findings
    assert [key(each) for each in found] == sorted(key(each) for each in found) or sort == recorded_as
    assert [each.rank for each in found] == list(range(1, 150))
    if sort == recorded_as:
        assert [each.frames for each in found[:DETAILED]] == [frames_of(number) for number in order[:DETAILED]]


def test_series_of_very_many_reports_are_thinned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A development has no more than its bound of figures, ends with the last report, and says its times."""
    monkeypatch.setattr("tracer.recording.MOST_DRAWN", 20)
    recording = recorded(tmp_path / "r", *(report({1: finding(1, each, 1)}, float(each)) for each in range(1, 51)))
    series = recording.series()
    assert len(series.times) <= 20 and series.times[-1] == 50.0
    assert series.bytes.tolist() == [series.times.astype(int).tolist()]


def test_other_frames_can_be_given(tmp_path: Path) -> None:
    """After rename() every report has the other frames, and figures stay with their sites."""
    recording = recorded(tmp_path / "r", full_report())
    was = {each.frames: each.bytes for each in recording.report().findings}
    names = [recording.frames(site) for site in range(4)]
    recording.rename([(Frame(1, f"{site}"), names[site][-1]) for site in range(4)])
    assert {names[int(each.frames[0].function or "")]: each.bytes for each in recording.report().findings} == was


def test_the_report_at_a_time_is_the_last_by_then(tmp_path: Path) -> None:
    """at() gives the last report that was made by a time, and the first for any time before that."""
    recording = recorded(tmp_path / "r", *(report({1: finding(1)}, each) for each in (5.0, 10.0, 15.0)))
    assert [recording.at(each) for each in (0, 5, 9.9, 10, 1e12)] == [0, 0, 0, 1, 2]


def test_rates_are_those_that_were_said(tmp_path: Path) -> None:
    """Growth is over the time that the trace took for it, which is not quite that between two reports."""
    said = {"gained_bytes": 4096, "gained_count": 4, "growth_bytes_per_s": round(4096 / 5.0371, 3)}
    was = report({1: finding(1, 8192, 8, **said), 2: finding(2, gained_bytes=0, gained_count=0, growth_bytes_per_s=0.0)}, 10.0)
    assert was.sites is not None
    was = replace(was, sites=replace(was.sites, growth=np.array([4096 / 5.0371, 0.0])))
    recording = recorded(tmp_path / "r", report({1: finding(1), 2: finding(2)}), was)
    assert recording.report().findings == was.findings


# ---- what is cut off


def test_every_cut_leaves_the_whole_reports(tmp_path: Path) -> None:
    """Cut off at any byte, a file gives all reports whose last byte is there and says that it is cut, or a clear error."""
    path, ends, was = tmp_path / "r", [], []
    recorder = Recorder(str(path), {}, None)
    begin = recorder.size
    for number in range(1, 5):
        was.append(report({key: finding(key, key * number, key) for key in range(1, number + 2)}, 5.0 * number))
        recorder.write(was[-1])
        ends.append(recorder.size)
    recorder.close()
    data = path.read_bytes()
    assert len(data) == ends[-1]
    for cut in range(len(data)):
        whole = sum(end <= cut for end in ends)
        if not whole:
            with pytest.raises(UsageError, match=r"no report in it|ends before it begins"):
                read(data[:cut])
            continue
        reports, truncated = read(data[:cut])
        assert len(reports) == whole
        # Sites of what is cut off are in nothing.
        assert len(Recording(Reader(io.BytesIO(data[:cut]), "file")).series().bytes) == whole + 1
        assert truncated == (cut not in ends), cut
        if cut in ends or cut - 1 in ends:
            assert [each.findings for each in reports] == [
                each.findings for each in Recording(Reader(io.BytesIO(data), "file")).reports()][:whole]
    assert begin < ends[0]


@pytest.mark.parametrize("zeros", [1, 15, 16, 17, 5000])
def test_room_that_was_never_written_is_a_cut(tmp_path: Path, zeros: int) -> None:
    """Where a machine stopped, a file may end with zeros in place of what was to be written."""
    recorded(path := tmp_path / "r", report({1: finding(1)}))
    reports, truncated = read(path.read_bytes() + bytes(zeros))
    assert (len(reports), truncated) == (1, True)


def test_a_last_part_that_is_wrong_is_a_cut(tmp_path: Path) -> None:
    """Of the last part, its length may be there and its content not; all before it is read."""
    recorded(path := tmp_path / "r", report({1: finding(1)}), report({1: finding(1)}, 10.0))
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    reports, truncated = read(bytes(data))
    assert (len(reports), truncated) == (1, True)


# ---- what is damaged, foreign or hostile


def test_every_flipped_bit_is_noticed(tmp_path: Path) -> None:
    """With any bit turned, a file is said to be damaged or cut, or no recording; what it still reports is right."""
    recorded(path := tmp_path / "r", report({1: finding(1)}), report({1: finding(1, 5), 2: finding(2)}, 10.0))
    data = path.read_bytes()
    right = [each.findings for each in read(data)[0]]
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << at % 8
        try:
            reports, truncated = read(bytes(damaged))
        except UsageError as problem:
            assert problem.remedy
        else:
            assert truncated, at
            assert [each.findings for each in reports] == right[: len(reports)]


@pytest.mark.parametrize(("content", "said"), [
    (b"", "ends before it begins"), (b"leaktr", "ends before it begins"), (b"leaktrace recording 1", "ends before"),
    (b"\x7fELF" + bytes(100), "is not a recording"), (b"leaktrace recording 2\n", "of version 2, and this .* reads version 1"),
    (b"leaktrace recording 99999\n\0\1", "of version 99999"), (b"leaktrace recording \x1b[2J\n", r"version \?\[2J"),
    (b"leaktrace recording " + b"9" * 5000, "ends before"), (b"leaktrace recording 1\n", "no report in it"),
])  # fmt: skip
def test_other_files_are_said_to_be_others(tmp_path: Path, content: bytes, said: str) -> None:
    """A file that is empty, another one, or of a newer version gives an error that says which, with what to do."""
    (tmp_path / "other").write_bytes(content)
    with pytest.raises(UsageError, match=said) as raised:
        load(str(tmp_path / "other"))
    assert raised.value.remedy and "\x1b" not in str(raised.value)


@pytest.mark.parametrize("path", ["nowhere", "", "a/b"])
def test_what_cannot_be_opened_is_said(tmp_path: Path, path: str) -> None:
    """A missing file and a folder give an error with the system's reason."""
    (tmp_path / "a").write_bytes(b"")
    with pytest.raises(UsageError, match="cannot be read: "):
        load(str(tmp_path / path))


DETAIL = {"pid": 1, "error": None, "oldest_s": None}
ONE_SITE = Chunk(SITES, encode({"frames": [{"address": 1, "function": "f"}], "stacks": [[0]]}))
FIGS = Chunk(FIGURES, NOTHING)


def totals(**changes: Any) -> dict[str, Any]:
    return {**TIME["moment"], **changes}


@pytest.mark.parametrize("chunks", [
    (Chunk(SITES, encode({"frames": [], "stacks": [[0]]})), FIGS, moment()),
    (Chunk(SITES, encode({"frames": [{"address": 1}], "stacks": [[-1]]})), FIGS, moment()),
    (Chunk(SITES, encode({"frames": [{"address": -1e9}], "stacks": []})), FIGS, moment()),
    (Chunk(SITES, encode({"frames": [{"address": 1, "why": "nobody knows"}], "stacks": []})), FIGS, moment()),
    (Chunk(SITES, encode({"frames": [{"address": 1, "line": 2**31}], "stacks": []})), FIGS, moment()),
    (Chunk(SITES, encode({"frames": [{"address": 1, "repeats": 0}], "stacks": []})), FIGS, moment()),
    (Chunk(SITES, b"\x91" * 200_000), FIGS, moment()),
    (Chunk(SITES, b"\xdd\xff\xff\xff\xff"), FIGS, moment()),
    (Chunk(SITES, b"\x82\xa6frames\x90\xa6stacks\xdd\xff\xff\xff\xff"), FIGS, moment()),
    (Chunk(SITES, encode({"frames": [], "stacks": [[]] * (MOST_SITES + 1)})), FIGS, moment()),
    (Chunk(SITES, b"\x82\xa6frames\x91\x82\xa7address\x01\xa8function\xa3\xed\xa0\x80\xa6stacks\x90"), FIGS, moment()),
    (moment(),), (FIGS, FIGS, Chunk(b"WHAT", b"")),
    (ONE_SITE, Chunk(FIGURES, NOTHING[:-1]), moment()), (ONE_SITE, Chunk(FIGURES, b"\1" + NOTHING[1:]), moment()),
    (ONE_SITE, Chunk(FIGURES, b"\xff" * 8 + bytes(9000)), moment()), (ONE_SITE, Chunk(FIGURES, bytes(1000)), moment()),
    (ONE_SITE, Chunk(DETAILS, encode([[1, DETAIL]])), FIGS, moment()),
    (ONE_SITE, Chunk(DETAILS, encode([[-1, DETAIL]])), FIGS, moment()),
    (ONE_SITE, Chunk(DETAILS, encode([[0, DETAIL | {"pid": "x"}]])), FIGS, moment()),
    (FIGS, moment(first=[0])), (FIGS, moment(first=[-1])), (ONE_SITE, FIGS, moment(first=[0, 0])),
    (FIGS, moment(maps=[[1, 0]])), (FIGS, moment(maps=[[1, -1]])), (FIGS, moment(taken="yesterday")),
    (FIGS, moment(taken="2026-03-01T09:05:07")), (FIGS, moment(taken=5)), (FIGS, moment(clock_ms=-1)),
    (FIGS, moment(clock_ms=2**63)), (FIGS, moment(moment=totals(elapsed_s=float("nan")))),
    (FIGS, moment(moment=totals(elapsed_s=-1.0))), (FIGS, moment(moment=totals(elapsed_s=1e300))),
    (FIGS, moment(), FIGS, moment(moment=totals(elapsed_s=4.0))), (FIGS, moment(moment=totals(total_error=float("inf")))),
    (FIGS, moment(moment=totals(targets=[{"pid": 1, "comm": "c", "exe": None, "status": 127}]))),
    (FIGS, moment(moment=totals(targets=[{"pid": 1, "comm": "c", "exe": None, "status": 2**63}]))),
    (Chunk(MAPS, encode([[{"start": 1}]])), FIGS, moment()),
    (facts(started="then"), FIGS, moment()), (facts(settings=[]), FIGS, moment()),
])  # fmt: skip
def test_what_no_trace_writes_is_damage(tmp_path: Path, chunks: tuple[Chunk, ...]) -> None:
    """Numbers of what is not there, wrong types, other lengths, times that are none: an error that says so."""
    path = made_of(tmp_path / "r", facts(), *chunks)
    with pytest.raises(UsageError, match="is damaged: "):
        use(load(str(path)))


def test_the_chunks_of_the_tests_are_sound(tmp_path: Path) -> None:
    """What the tests of damage begin with is a recording, so that each fails for the damage that it names."""
    path = made_of(tmp_path / "r", facts(), ONE_SITE, Chunk(DETAILS, encode([[0, DETAIL]])), FIGS, moment(first=[0]))
    assert len(use(load(str(path)))) == 1


def test_texts_from_a_file_are_safe_to_show(tmp_path: Path) -> None:
    """Control characters in names, notes, evidence, paths and settings are spelled out, whoever wrote the file."""
    evil = "\x1b]0;owned\x07\u202e\x9b2J"
    hostile = totals(
        kernel=evil, notes=[evil], targets=[{"pid": 1, "comm": evil, "exe": evil}],
        losses=[{"name": evil, "count": 1, "bytes": 1, "meaning": evil, "remedy": evil}], sampling=evil)
    site = Chunk(SITES, encode({"frames": [{"address": 1, "function": evil, "module": evil, "file": evil}], "stacks": [[0]]}))
    detail = Chunk(DETAILS, encode([[0, DETAIL | {"source": evil, "evidence": evil, "confidence": evil}]]))
    figures = Chunk(FIGURES, bytes([1, 0, 0, 0, 0, 0, 1, 0]) + b"\4\6")
    maps = Chunk(MAPS, encode([[{"start": 1, "end": 2, "offset": 0, "path": evil, "build_id": evil}]]))
    path = made_of(tmp_path / "r", facts(host=evil, command=[evil], settings={evil: [evil]}), site, maps, detail, figures,
                   moment(moment=hostile, first=[0], maps=[[1, 0]]))
    recording = load(str(path))
    report = recording.report()
    assert report.findings and report.mappings
    said = f"{recording.facts}{report}"
    assert "owned" in said and not re.search(r"[\x00-\x1f\x7f-\x9f\u202e]|\\x1b\]|'\\x07", said.replace("\\\\", "/"))


def test_a_bomb_is_refused(tmp_path: Path) -> None:
    """A part that unpacks to more than any, or to another size than it says, is damage, and is not unpacked."""
    path = made_of(tmp_path / "r", facts())
    big = zstandard.ZstdCompressor().compress(bytes(1 << 27))
    for size in (1 << 27, 100):
        head = _HEAD.pack(SITES, len(big), size)
        data = path.read_bytes() + head + _CHECKSUM.pack(crc32(big, crc32(head))) + big
        with pytest.raises(UsageError, match=r"larger than any|another size"):
            read(data + b"more")


def test_many_bombs_are_refused(tmp_path: Path) -> None:
    """What is small in a file and large in memory is refused when it comes to more than any trace says."""
    bomb = Chunk(DETAILS, encode([[0, DETAIL]] * 2_200_000))
    assert len(bomb.content) > 1 << 25
    path = made_of(tmp_path / "r", facts(), ONE_SITE, *[bomb] * 9, FIGS, moment())
    assert path.stat().st_size < 1 << 20
    with pytest.raises(UsageError, match="more than any trace"):
        load(str(path))


def test_endless_reports_of_many_sites_are_refused(tmp_path: Path) -> None:
    """Reports that are nothing in a file but figures of very many sites when decoded are refused in their number."""
    sites = Chunk(SITES, encode({"frames": [], "stacks": [[]] * (MOST_SITES - 1)}))
    path = made_of(tmp_path / "r", facts(), sites, *[FIGS, moment()] * 1100)
    with pytest.raises(UsageError, match="more figures than any trace"):
        load(str(path))
