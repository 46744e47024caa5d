"""What a difference may hold before it fails, and the exit codes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.tracer.compared import side, site
from tracer.diff import difference
from tracer.diff_gate import judge, parse
from tracer.errors import UsageError
from tracer.report.diff_model import DiffJudgement, Side

BEFORE = side(site("cache main", 1000, 10), site("old main", 4000))
AFTER = side(site("cache main", 1200, 30, verdict="growing"), site("leak main", 2000, 5, verdict="undecided"))


def judged(*texts: str, before: Side = BEFORE, after: Side = AFTER) -> DiffJudgement:
    """Return what the expressions say of a difference; another exit code than usual shows where it comes from."""
    return judge(difference(before, after), [parse(text) for text in texts], 77)


@pytest.mark.parametrize(("text", "ranks"), [
    ("bytes>100", {2, 3}), ("bytes>200", {2}), ("count>19", {3}), ("percent>19 and percent<21", {3}),
    ("state==new", {2}), ("state==gone", {1}), ("state!=gone and count>0", {2, 3}), ("percent>1000000", {2}),
    ("bytes>10k", set()), ("not state==new and bytes>0", {3}),
])
def test_figures_are_changes(text: str, ranks: set[int]) -> None:
    """Expressions compare by how much a site changed, and what became of it."""
    said = judged(text)
    assert set(said.failed) == ranks
    assert said.exit_code == (77 if ranks else 0)
    assert said.conclusion.startswith("FAILED: " if ranks else "PASSED")


@pytest.mark.parametrize(("text", "code"), [("total_bytes<0", 77), ("total_bytes>0", 0), ("total_count>23", 77),
                                            ("total_count>24", 0)])
def test_sums_are_changes(text: str, code: int) -> None:
    """Sums are judged by how much they changed, and no site is to blame."""
    said = judged(text)
    assert (said.exit_code, dict(said.failed), said.totals) == (code, {}, (text,) if code else ())


def test_nothing_asked_nothing_said() -> None:
    """Without a budget there is no verdict, whatever speaks against the comparison."""
    assert judge(difference(side(truncated=True), AFTER), [], 77) == DiffJudgement({}, (), 0, "")


@pytest.mark.parametrize("spoilt", [{"truncated": True}, {"complete": False}, {"unlisted": 1}])
def test_what_is_not_complete_is_not_judged(spoilt: dict[str, Any]) -> None:
    """Losses and cut-off recordings give 4, neither 0 nor the code of a leak."""
    for text in ("bytes>0", "bytes>1G"):
        said = judged(text, before=side(*BEFORE.report.findings, **spoilt))
        assert said.exit_code == 4
        assert said.conclusion.startswith("NOT CERTAIN")


def test_a_verdict_that_is_not_known_is_not_certain() -> None:
    """A site that might be growing gives 4; where another one is, that decides."""
    assert judged("verdict==lost").exit_code == 4
    assert judged("verdict==growing").exit_code == 77
    assert judged("verdict==lost and bytes>10k").exit_code == 0


def test_what_is_gone_has_no_verdict() -> None:
    """A site that is not there any more is neither growing nor unknown."""
    assert judged("verdict!=steady", before=side(site("old main", 10)), after=side()).exit_code == 0


@pytest.mark.parametrize(("text", "code"), [("bytes>500", 77), ("bytes>700", 4), ("bytes>1300", 4), ("bytes>1500", 0)])
def test_estimates_are_judged_by_their_ends(text: str, code: int) -> None:
    """A budget within the interval of an estimate, 1000 ± 392 bytes here, is not decided."""
    before = side(site("make main", 1000, error=0.1), sampling="1 in 4", total_error=0.1)
    after = side(site("make main", 2000, error=0.0866), sampling="1 in 4", total_error=0.0866)
    assert judged(text, before=before, after=after).exit_code == code
    assert judged(f"total_{text}", before=before, after=after).exit_code == code


def test_other_figures_are_refused() -> None:
    """What a difference does not have is named with what it has, and states are no free text."""
    with pytest.raises(UsageError, match="bytes, count, percent, state, verdict, total_bytes, total_count"):
        parse("oldest_s>1")
    with pytest.raises(UsageError, match="new, growth, shrinkage, gone or same"):
        parse("state==grown")
