"""What the view shows, without a screen: order, filter, zero line."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.unit.tracer.live import made_up
from tests.unit.tracer.report import many_sites
from tracer.live.board import Board
from tracer.report.model import Finding, Report


def names(board: Board) -> list[str]:
    """Return what is shown, in its order."""
    return [board.known(row).name for row in board.rows.tolist()]


def board_of(*reports: Report) -> Board:
    board = Board()
    for each in reports:
        board.take(each)
    return board


FIRST = made_up.report([300, 100, 200, 0], 1.0, names=["a", "b", "c", "d"], counts=[1, 9, 5, 0],
                       verdicts=["steady", "growing", "steady", "steady"])
SECOND = made_up.report([300, 150, 900, 0], 2.0, names=["a", "b", "c", "d"], counts=[1, 9, 7, 0], before=FIRST,
                        verdicts=["steady", "growing", "steady", "steady"])


@pytest.mark.parametrize(("column", "order"), [
    ("bytes", "cab"), ("count", "bca"), ("growth", "cba"), ("loss", "bca"), ("age", "cab")])
def test_order(column: str, order: str) -> None:
    """The largest is first, equal ones by bytes, and what holds nothing is not shown; once more turns it round."""
    board = board_of(FIRST, SECOND)
    board.sort = "nothing yet"
    board.sort_by(column)
    assert "".join(names(board)) == order
    board.sort_by(column)
    shown = board.rows
    values = {"bytes": board.figures.bytes, "count": board.figures.count, "growth": board.figures.growth}.get(column)
    assert values is None or (np.diff(values[shown]) >= 0).all()


def test_filter() -> None:
    """Words choose by name, and by a verdict as it is now."""
    board = board_of(FIRST)
    board.filter("verdict:growing")
    assert names(board) == ["b"]
    board.take(replace(SECOND, sites=replace(SECOND.sites, verdict=np.array([2, 3, 3, 3], np.uint8))))  # type: ignore[type-var]
    assert names(board) == ["a"]
    board.filter("module:server name:b")
    assert names(board) == ["b"]
    board.filter("")
    assert sorted(names(board)) == ["a", "b", "c"]


def test_zero_line() -> None:
    """From the zero line on only what has changed since is shown, growth is since then, and it can be taken away."""
    board = board_of(FIRST)
    board.begin_anew()
    assert names(board) == []
    board.take(SECOND)
    assert names(board) == ["b", "c"]
    row = {name: row for name, row in zip(names(board), board.rows.tolist(), strict=True)}
    assert board.figures.bytes[[row["b"], row["c"]]].tolist() == [50, 700]
    assert board.figures.count[[row["b"], row["c"]]].tolist() == [0, 2]
    board.take(made_up.report([300, 150, 1200, 0], 4.0, names=["a", "b", "c", "d"]))
    assert board.figures.growth[row["c"]] == pytest.approx(1000 / 3)
    assert board.figures.allocated[0, row["c"]] == 2000
    board.count_all()
    assert board.figures.bytes[row["c"]] == 1200


def test_a_site_that_comes_after_the_zero_line_counts_whole() -> None:
    """It had nothing then, whatever row it has now."""
    board = board_of(made_up.report([10, 20], keys=[5, 9]))
    board.begin_anew()
    board.take(made_up.report([7, 25, 10], 2.0, keys=[3, 9, 5], counts=[1, 1, 1]))
    assert board.figures.bytes.tolist() == [7, 5, 0]


def test_names_are_asked_for_as_far_as_they_are_shown() -> None:
    """Of 10,000 sites nothing is put in words before somebody looks, and a filter looks a little at a time."""
    made = many_sites.report(many_sites.series(10_000, 3))
    asked: list[int] = []

    def finding(row: int, rank: int) -> Finding:
        asked.append(row)
        assert made.sites is not None
        return made.sites.finding(row, rank)

    assert made.sites is not None
    board = board_of(replace(made, sites=replace(made.sites, finding=finding)))
    assert not asked
    board.filter("no such name")
    first = len(asked)
    assert 0 < first < 10_000
    for _ in range(1000):
        if not board.arrange():
            break
    assert len(asked) == len(set(asked)) == 10_000 and not len(board.rows)


def test_a_site_whose_names_have_just_gone() -> None:
    """Names belong to the trace, which may begin with new ones meanwhile: the view says nothing of it, and goes on."""
    def gone(row: int, rank: int) -> Finding:
        raise KeyError(row)

    assert FIRST.sites is not None
    board = board_of(replace(FIRST, sites=replace(FIRST.sites, finding=gone)))
    assert board.finding(0) is None and names(board) == ["…"] * 3
    board.take(SECOND)
    assert "a" in names(board)
