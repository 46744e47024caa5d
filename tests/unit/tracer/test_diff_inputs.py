"""What is compared is read from recordings and from saved reports, whoever made them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.tracer import recorded
from tests.unit.tracer.compared import side, site
from tracer.diff import difference
from tracer.diff_inputs import parse, read
from tracer.errors import UsageError
from tracer.report import json as json_report
from tracer.report.diff_model import State


def saved(**changes: Any) -> str:
    """Return a report as it is saved, one line with its end."""
    out = io.StringIO()
    json_report.write(side(site("make main", 100, 4, verdict="lost", error=0.5), **changes).report, out)
    return out.getvalue()


def document(**changes: Any) -> dict[str, Any]:
    return dict(json.loads(saved())) | changes


def test_both_kinds_of_file_are_one(tmp_path: Path) -> None:
    """A recording and the JSON of the same report differ in nothing, in either order."""
    report = recorded.report({1: recorded.finding(1), 2: recorded.finding(2, 100, 1)})
    recorded.recorded(tmp_path / "a.leaktrace", report)
    with (tmp_path / "a.json").open("w") as out:
        json_report.write(report, out)
    sides = read(str(tmp_path / "a.leaktrace")), read(str(tmp_path / "a.json"))
    for before, after in (sides, sides[::-1]):
        made = difference(before, after)
        assert len(made.rows) == 2
        assert {row.state for row in made.rows} == {State.SAME}
    assert sides[0].settings == {"sort": "loss"}
    assert sides[0].report.findings[0].frames == sides[1].report.findings[0].frames


def test_a_saved_report_keeps_what_is_compared() -> None:
    """Sampling, standard errors, verdicts, losses and the target are as they were saved."""
    made = parse(saved(sampling="1 in 4", complete=False, total_error=0.25).encode(), "x").report
    (finding,) = made.findings
    assert (finding.bytes, finding.count, finding.error, finding.verdict) == (100, 4, 0.5, "lost")
    assert (made.sampling, made.complete, made.total_error, made.elapsed_s) == ("1 in 4", False, 0.25, 10.0)
    assert made.targets[0].comm == "server"


def test_losses_are_said_in_words() -> None:
    """A loss that this version knows has its meaning, another one its name."""
    lost = {"outstanding_full": 3, "of_tomorrow": 1}
    losses = parse(json.dumps(document(losses=lost, lost_bytes={"outstanding_full": 77})).encode(), "x").report.losses
    assert "77 bytes" in losses[0].meaning
    assert losses[1].meaning == "of_tomorrow"


@pytest.mark.parametrize("layout", ["lines", "list", "cut"])
def test_the_moment_is_chosen(layout: str) -> None:
    """Of several reports the last by then is taken, the last of all without a time, the first if there was none."""
    documents = [document(elapsed_s=float(second)) for second in (5, 10, 15)]
    lines = "\n".join(map(json.dumps, documents))
    text = {"lines": lines, "list": json.dumps(documents), "cut": lines + '\n{"schema": "leaktr'}[layout].encode()
    assert [parse(text, "x", at).report.elapsed_s for at in (None, 12.0, 15.0, 1.0)] == [15, 10, 15, 5]


def test_a_report_over_many_lines_is_one() -> None:
    """Tools that lay out JSON do no harm."""
    assert parse(json.dumps(document(), indent=2).encode(), "x").report.elapsed_s == 10


def test_sites_that_are_not_listed_are_counted() -> None:
    """A report of the first sites only says so by its totals."""
    made = document()
    made["totals"]["live_count"] += 7
    assert parse(json.dumps(made).encode(), "x").unlisted == 7


@pytest.mark.parametrize("text", [
    b"hello", b"{}", b"[]", b"[1]", b"{", b"[" * 100_000, b"\xff\xfe{", b"null", b'{"schema": 1}',
    json.dumps(document(schema="leaktrace/2")).encode(), json.dumps(document(taken="soon")).encode(),
    json.dumps(document(elapsed_s=-1.0)).encode(), json.dumps(document(sites=[{"bytes": 1 << 70}])).encode(),
    json.dumps(document(sites=[{"bytes": 1, "count": 1, "frames": [{"address": "x", "function": None, "module": None}]}])).encode(),
])
def test_what_is_no_report_is_refused(text: bytes, tmp_path: Path) -> None:
    """Anything else is an error that names the file, never a traceback."""
    path = tmp_path / "x.json"
    path.write_bytes(text)
    with pytest.raises(UsageError) as refused:
        read(str(path))
    assert str(path) in refused.value.message
    assert refused.value.exit_code == 2


def test_a_file_that_is_not_there_is_named() -> None:
    """What cannot be opened is said by its name."""
    with pytest.raises(UsageError, match=r"/nowhere/x cannot be read: No such file"):
        read("/nowhere/x")


def test_texts_from_a_file_are_safe() -> None:
    """Terminal codes in names that somebody put into a file are escaped."""
    text = saved().replace("make", "m\\u001b[2Jke")
    name = parse(text.encode(), "x").report.findings[0].frames[0].function
    assert name is not None
    assert "\x1b" not in name


def test_a_recording_that_was_cut_off_says_so(tmp_path: Path) -> None:
    """Without its end a recording is truncated, unless a moment before is asked for."""
    path = tmp_path / "a.leaktrace"
    recorded.recorded(path, *[recorded.report({1: recorded.finding(1)}, second) for second in (5.0, 10.0)])
    path.write_bytes(path.read_bytes()[:-3])
    assert [read(str(path), at).truncated for at in (None, 5.0, 7.0)] == [True, False, True]
