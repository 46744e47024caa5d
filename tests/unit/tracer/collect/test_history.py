"""A series covers the whole trace, whatever its length, and each site keeps its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.collect.history import FIRST_COLUMNS, MAX_POINTS, History


def ids(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint64)


def add(history: History, time_s: float, held: dict[int, int]) -> None:
    """Add bytes by identity; each site has a tenth as many blocks."""
    sizes = np.array(list(held.values()), np.int64)
    history.add(time_s, ids(*held), sizes, sizes // 10)


def test_a_series() -> None:
    """Sites are found in any order; before it existed, after it vanished, and where it is unknown, a site holds nothing."""
    history = History()
    add(history, 1, {7: 70, 3: 30})
    add(history, 2, {3: 40, 1 << 63: 10})
    add(history, 4, {7: 90})
    times, sizes, counts = history.series(ids(1 << 63, 7, 5, 3))
    assert times.tolist() == [1, 2, 4]
    assert sizes.tolist() == [[0, 10, 0], [70, 0, 90], [0, 0, 0], [30, 40, 0]]
    assert counts.tolist() == [[0, 1, 0], [7, 0, 9], [0, 0, 0], [3, 4, 0]]


def test_nothing_yet() -> None:
    """Before the first report a series has no points."""
    times, sizes, counts = History().series(ids(1, 2))
    assert (times.shape, sizes.shape, counts.shape) == ((0,), (2, 0), (2, 0))


@pytest.mark.parametrize("reports", [1, MAX_POINTS, MAX_POINTS + 1, 129, 1000])
def test_the_whole_trace(reports: int) -> None:
    """However many reports: at most MAX_POINTS points, the first and the latest, evenly spaced but for the latest."""
    history = History()
    for at in range(reports):
        add(history, float(at), {1: 10 * at})
    times, sizes, _ = history.series(ids(1))
    assert min(reports, MAX_POINTS // 2) <= len(times) <= MAX_POINTS
    assert (times[0], times[-1]) == (0, reports - 1)
    assert (sizes[0] == 10 * times).all()
    spaces = np.diff(times)
    assert (spaces[:-1] == spaces[:1].repeat(max(len(spaces) - 1, 0))).all()
    assert reports == 1 or spaces[-1] <= spaces[0]


def test_forget() -> None:
    """A forgotten site has no past, also when it comes again; the others keep theirs."""
    history = History()
    add(history, 1, {1: 10, 2: 20, 3: 30})
    history.forget(ids(2, 9))
    add(history, 2, {2: 50, 3: 60})
    assert history.series(ids(1, 2, 3))[1].tolist() == [[10, 0], [0, 50], [30, 60]]
    assert len(history) == 3


def test_what_came_and_went_does_not_pile_up() -> None:
    """Sites that each live for one report are dropped if no point has them."""
    history = History()
    for at in range(20 * MAX_POINTS):
        add(history, at, {at + 2: 10, 1: 5})
    assert len(history) <= FIRST_COLUMNS
    assert (history.series(ids(1))[1] == 5).all()


def test_more_sites_than_columns() -> None:
    """Room grows with the sites, and what is there stays."""
    history = History()
    add(history, 1, {1: 10})
    add(history, 2, {each: 10 * each for each in range(3 * FIRST_COLUMNS, 0, -1)})
    _, sizes, _ = history.series(np.arange(1, 3 * FIRST_COLUMNS + 1, dtype=np.uint64))
    assert sizes[0].tolist() == [10, 10]
    assert (sizes[1:, 0] == 0).all() and (sizes[:, 1] == 10 * np.arange(1, 3 * FIRST_COLUMNS + 1)).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.dictionaries(st.integers(1, 12), st.integers(0, 999), max_size=6), st.sets(st.integers(1, 12), max_size=2)), max_size=150))
def test_against_a_list_of_reports(steps: list[tuple[dict[int, int], set[int]]]) -> None:
    """At each of its times a series has what that report said, as far as it was not forgotten since."""
    history, said = History(), [dict[int, int]() for _ in steps]
    for at, (held, forgotten) in enumerate(steps):
        add(history, at, held)
        said[at] = dict(held)
        history.forget(ids(*forgotten))
        for report in said[: at + 1]:
            for each in forgotten:
                report.pop(each, None)
    times, sizes, _ = history.series(np.arange(1, 13, dtype=np.uint64))
    for column, at in enumerate(times.astype(int)):
        assert sizes[:, column].tolist() == [said[at].get(each, 0) for each in range(1, 13)]
