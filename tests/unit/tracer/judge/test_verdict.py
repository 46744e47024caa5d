"""The decision table: each of its rows decides where its facts are given, and nowhere else."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest

from tracer.judge.growth import Growth, Shape
from tracer.judge.survival import Survival
from tracer.judge.verdict import TABLE, Facts, Verdicts, judge

NAN = float("nan")
#: A site that has been there for a minute and says nothing by itself: it went up and down.
NEUTRAL: dict[str, Any] = {
    "bytes": 100_000, "count": 1000, "allocated": 5000, "freed": 4000, "age_s": 60.0, "oldest_s": 58.0, "young": 0, "scanned": 0,
    "definitely": 0, "lost": 0, "lost_bytes": 0, "possibly": 0, "ended": 0,
    "slope": 10.0, "low": -5.0, "high": 20.0, "trend_z": 1.0, "rises": 20, "intervals": 60, "shape": Shape.ERRATIC,
    "settled_s": NAN, "steady_s": 0.0,
    "usual_s": NAN, "median_s": NAN, "outlived": 0, "share": 0.0, "low_share": 0.0, "expected_bytes_per_s": 0.0, "freed_share": 0.8,
}
#: What each row needs beyond that, with a part of the evidence it gives.
ROWS: dict[str, tuple[dict[str, Any], str]] = {
    "no pointer to most": ({"scanned": 1000, "definitely": 997, "lost": 997, "lost_bytes": 99_700},
                           "no pointer to 997 of 1,000 anywhere in the process; 4,000 of 5,000 were ever freed"),
    "no pointer to some": ({"scanned": 1000, "definitely": 3, "lost": 3, "lost_bytes": 300}, "no pointer to 3 of 1,000"),
    "no series": ({"ended": 900}, "its process has ended"),
    "too early": ({"age_s": 4.0, "intervals": 8, "rises": 2}, "seen for 4 s; a verdict needs 6 s more"),
    "outlives, and grows": ({"outlived": 10, "low_share": 0.005, "share": 0.02, "young": 5, "usual_s": 0.003, "shape": Shape.RISING,
                             "low": 5.0, "rises": 58}, "grows in 58 of 60 intervals; freed blocks live 3 ms at most, 2% live on"),
    "outlives": ({"outlived": 10, "low_share": 0.005, "share": 0.02, "young": 5, "usual_s": 0.003, "slope": 0.0},
                 "freed blocks live 3 ms at most, 2% live on"),
    "turns over": ({"oldest_s": 2.0}, "none of its blocks is older than 2 s"),
    "grows all the time": ({"shape": Shape.RISING, "low": 5.0, "trend_z": 9.0, "rises": 58}, "grows in 58 of 60 intervals"),
    "grows": ({"shape": Shape.RISING, "low": 500.0, "trend_z": 2.5, "rises": 20}, "grows in 20 of 60 intervals"),
    "settled": ({"shape": Shape.SETTLED, "settled_s": 4.0, "steady_s": 55.0}, "reached its size after 4 s, unchanged for 55 s"),
    "sawtooth": ({"shape": Shape.SAWTOOTH}, "fills and empties"),
    "steps": ({"shape": Shape.STEPS, "rises": 5}, "grew by a step in 5 of 60 intervals"),
    "falls": ({"shape": Shape.FALLING}, "becomes less"),
    "fills": ({"shape": Shape.FILLING}, "rises ever more slowly"),
    "no trend": ({}, "goes up and down without a trend"),
    "perhaps": ({"low": 1.0}, "may be chance"),
}


def facts(*sites: dict[str, Any], elapsed_s: float = 60.0, over: bool = False) -> Facts:
    """Return the facts of sites that differ from the neutral one as given."""
    rows = [NEUTRAL | site for site in sites]

    def arrays(kind: Any, *, without: tuple[str, ...] = ()) -> dict[str, Any]:
        return {each.name: np.array([row[each.name] for row in rows]) for each in fields(kind) if each.name not in without}

    own = arrays(Facts, without=("elapsed_s", "growth", "survival", "over"))
    return Facts(elapsed_s=elapsed_s, growth=Growth(**arrays(Growth)), survival=Survival(**arrays(Survival)), over=over, **own)


def row_of(verdicts: Verdicts, site: int = 0) -> str:
    return TABLE[int(verdicts.rows[site])].name


def test_each_row_of_the_table_has_its_case() -> None:
    """No row is without a case below, in the order of the table."""
    assert list(ROWS) == [row.name for row in TABLE]


@pytest.mark.parametrize("name", ROWS)
def test_a_row_decides(name: str) -> None:
    """The facts of a row lead to it, with its verdict, its confidence and its evidence."""
    more, words = ROWS[name]
    verdicts = judge(facts(more))
    row = next(row for row in TABLE if row.name == name)
    opinion = verdicts.opinion(0)
    assert (row_of(verdicts), opinion.verdict, opinion.confidence) == (name, row.verdict, row.confidence)
    assert words in opinion.evidence


@pytest.mark.parametrize(("name", "less"), [
    ("no pointer to most", {"lost": 499, "definitely": 499}), ("no pointer to some", {"lost": 0}), ("no series", {"ended": 500}),
    ("too early", {"age_s": 10.0}), ("outlives", {"outlived": 4}), ("outlives", {"low_share": 0.0005}), ("outlives", {"young": 0}),
    ("turns over", {"freed": 0}), ("turns over", {"oldest_s": 15.0}), ("grows all the time", {"low": -0.1}),
    ("grows all the time", {"rises": 35}), ("grows all the time", {"trend_z": 3.0}), ("grows", {"low": 0.0}), ("grows", {"low": 400.0}),
])
def test_a_row_needs_all_its_facts(name: str, less: dict[str, Any]) -> None:
    """With one fact on the other side of its threshold, another row decides."""
    assert row_of(judge(facts(ROWS[name][0] | less))) != name


def test_blocks_that_lost_blocks_keep_are_lost() -> None:
    """Who is pointed at by lost blocks only is lost as well, and the evidence says so."""
    verdicts = judge(facts({"scanned": 10, "lost": 10, "definitely": 1}, {"scanned": 10, "lost": 10, "definitely": 0}))
    assert [verdicts.opinion(site).evidence.split(";")[0] for site in (0, 1)] == [
        "no pointer to 1 of them, and only from lost blocks to 9 more", "only lost blocks point to any of the 10"]


def test_reachable_blocks_may_grow() -> None:
    """A site whose blocks were all found reachable and that grows is growing, reachable or not."""
    opinion = judge(facts(ROWS["grows"][0] | {"scanned": 1000})).opinion(0)
    assert opinion.verdict == "growing" and opinion.evidence.startswith("reachable, but grows in 20 of 60")


def test_what_is_over_needs_no_more_time() -> None:
    """Of a program that has ended nobody is told to wait."""
    opinion = judge(facts({"age_s": 0.005, "scanned": 5}, over=True)).opinion(0)
    assert opinion.evidence == "seen for 5 ms, too short to tell growth from use; reachable"


def test_expected_loss() -> None:
    """What is lost counts by what has been lost so far, what grows by what it surely gains; all else loses nothing."""
    expected = judge(facts(ROWS["no pointer to most"][0], ROWS["grows"][0], ROWS["outlives"][0] | {"expected_bytes_per_s": 70.0},
                           ROWS["settled"][0])).expected
    assert expected.tolist() == [pytest.approx(99_700 / 60), 500.0, 70.0, 0.0]


def test_no_sites() -> None:
    """Nothing gives no verdicts."""
    none = facts({})
    empty = replace(none, **{name: getattr(none, name)[:0] for name in (
        "bytes", "count", "allocated", "freed", "age_s", "oldest_s", "scanned", "definitely", "lost", "lost_bytes",
        "possibly", "ended")}, growth=Growth(*(getattr(none.growth, each.name)[:0] for each in fields(Growth))),
        survival=Survival(*(getattr(none.survival, each.name)[:0] for each in fields(Survival))))
    assert len(judge(empty).expected) == 0
