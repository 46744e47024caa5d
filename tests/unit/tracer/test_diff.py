"""What two traces differ in, and what is said against comparing them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from symbolizer.frame import Frame, Why
from tests.unit.tracer.compared import side, site
from tracer.diff import difference
from tracer.report.diff_model import Per, Side, State
from tracer.report.model import LossNote


def test_a_site_of_another_build_is_the_same() -> None:
    """Addresses, lines, folders and build ids may change: names of functions and files say which site it is."""
    made = difference(side(site("make main", 100)), side(site("make main", 300, build=1)))
    (row,) = made.rows
    assert (row.state, row.bytes, row.percent) == (State.GROWTH, 200, 200.0)
    assert row.finding.frames[0].module == "/builds/1/server"
    assert made.files == {"/builds/0/server": "/builds/1/server"}


def test_each_state_is_told() -> None:
    """New, gone, grown, shrunk and equal sites are told apart, bytes before blocks, and the largest change is first."""
    before = side(site("a main", 100), site("b main", 500), site("c main", 7), site("d main", 10, 2), site("e main", 9))
    after = side(site("a main", 150), site("b main", 90), site("d main", 10, 3), site("e main", 9), site("f main", 200))
    made = difference(before, after)
    assert [(row.finding.frames[0].function, row.state, row.bytes, row.count) for row in made.rows] == [
        ("b", State.SHRINKAGE, -410, 0), ("f", State.NEW, 200, 1), ("a", State.GROWTH, 50, 0),
        ("c", State.GONE, -7, -1), ("d", State.GROWTH, 0, 1), ("e", State.SAME, 0, 0)]
    assert [row.rank for row in made.rows] == [row.finding.rank for row in made.rows] == [1, 2, 3, 4, 5, 6]
    assert (made.total_before.bytes, made.total_after.bytes) == (626, 459)


def test_it_sorts_by_blocks() -> None:
    """With sort count, the largest change in blocks is first, whatever it has in bytes."""
    made = difference(side(), side(site("few main", 10_000, 1), site("many main", 10, 50)), sort="count")
    assert [row.count for row in made.rows] == [50, 1]


def test_sites_of_one_name_are_put_together() -> None:
    """Sites that differ in addresses only are one, with their sums, their number and the worst of their verdicts."""
    other = site("make main", 30, 3, build=2, verdict="lost")
    made = difference(side(site("make main", 10, 1, verdict="steady"), other), side(site("make main", 5, 1)))
    (row,) = made.rows
    assert (row.before.bytes, row.before.count, row.before.sites, row.before.verdict) == (40, 4, 2, "lost")
    assert row.before.allocated_bytes == 80


def test_sources_stay_apart() -> None:
    """Slab objects and the pages they are on have one stack and are two sites."""
    made = difference(side(site("make main", 10, source="slab"), site("make main", 4096, source="pages")), side())
    assert len(made.rows) == 2


def test_what_holds_nothing_is_no_site() -> None:
    """A site of which all was given back is gone, not shrunk."""
    (row,) = difference(side(site("make main", 10)), side(site("make main", 0, 0))).rows
    assert row.state is State.GONE


def test_figures_are_divided() -> None:
    """Twice the requests and twice the bytes is the same; what was measured stays known."""
    before, after = side(site("make main", 300, 3), site("more main", 10)), side(site("make main", 600, 6), site("more main", 40))
    more, same = difference(before, after, Per("request", 30, 60)).rows
    assert (same.state, same.after.bytes, same.after.measured_bytes, same.after.count) == (State.SAME, 10.0, 600, 0.1)
    assert more.state is State.GROWTH
    assert more.bytes == pytest.approx(1 / 3)


def test_estimates_say_what_chance_does() -> None:
    """A change within 1.96 standard errors of both estimates is marked, one without is not."""
    def change(now: int) -> bool:
        row = difference(side(site("make main", 1000, error=0.3), sampling="1 in 4"),
                         side(site("make main", now, error=0.4 * 1000 / now), sampling="1 in 4")).rows[0]
        assert row.error == pytest.approx(500)
        return row.significant

    assert not change(1970)
    assert change(1990)


def test_a_sampled_site_may_be_missing_by_chance() -> None:
    """That the other trace has none is as uncertain as what this one has; of exact traces it is certain."""
    now = side(site("make main", 1000, error=0.4), sampling="1 in 4")
    assert not difference(side(sampling="1 in 4"), now).rows[0].significant
    assert difference(side(site("make main", 1000)), side()).rows[0].significant


@pytest.mark.parametrize(("before", "after", "said", "decides"), [
    ({"settings": {"min_size": 64}}, {"settings": {}}, "--min-size was 64 before and not set after", True),
    ({"settings": {"group_by": "line"}}, {"settings": {"group_by": "function"}}, "--group-by was line before", True),
    ({"settings": {"depth": 64}}, {"settings": {"depth": 8}}, "--depth was 64 before and 8 after: sites may", False),
    ({"sampling": "one in 4"}, {}, "before are estimates from one in 4, after exact", False),
    ({"truncated": True}, {}, "the recording before ends within a report", True),
    ({}, {"complete": False, "losses": (LossNote("in_flight", 7, 0, "calls are missing", "wait"),)},
     "allocations were lost after: 7 calls are missing", True),
    ({"unlisted": 3}, {}, "3 live blocks before are at sites that before does not list: they look new", True),
    ({}, {"elapsed_s": 20.0, "source": "after"}, "one took 10 s and the other 20 s", False),
])
def test_what_speaks_against_it_is_said(before: Any, after: Any, said: str, decides: bool) -> None:
    """What keeps two traces from being compared is a warning, and says whether a judgement may rest on them."""
    found = difference(side(site("make main", 1), **before), side(site("make main", 1), **after)).warnings
    assert [(said in warned.text, warned.decides) for warned in found] == [(True, decides)]


def test_equal_traces_need_no_warning() -> None:
    """Neither an option that is not set in two ways, nor a trace a little longer, nor sorting is worth a word."""
    settings: dict[str, Any] = {"min_size": None, "older_ms": None, "sort": "loss", "group_by": "line"}
    before = side(site("make main", 1), settings=settings)
    assert difference(before, side(site("make main", 1), elapsed_s=14.0,
                                   settings=settings | {"older_ms": 0, "sort": "size"})).warnings == ()


def test_moments_of_one_trace_need_no_scale() -> None:
    """What came between two moments of one trace is what was asked for."""
    assert difference(side(site("make main", 1)), side(site("make main", 1), elapsed_s=100.0)).warnings == ()


def test_a_scale_answers_for_durations() -> None:
    """Where figures are per a unit, traces may take as long as they like."""
    before, after = side(site("make main", 1)), side(site("make main", 1), elapsed_s=100.0, source="after")
    assert difference(before, after, Per("second", 10, 100)).warnings == ()


def test_strangers_are_told() -> None:
    """Two programs have no site in common, and code without names cannot be told apart."""
    frame = Frame(0x1000, module="/usr/bin/stripped", why=Why.NO_SYMBOLS)
    nameless = replace(site("x", 1), frames=(frame,))
    texts = [warned.text for warned in difference(side(site("make main", 1)), side(nameless)).warnings]
    assert texts[0].startswith("no site is in both")
    assert texts[1].startswith("1 site has no function name")


def test_nothing_is_compared_with_nothing() -> None:
    """Two traces without a site are the same, and no reason to worry."""
    empty: Side = side()
    made = difference(empty, empty)
    assert made.rows == ()
    assert made.warnings == ()
