"""The order of sites, and how sure an estimate is."""

from __future__ import annotations

from dataclasses import replace
from math import sqrt

import numpy as np
import pytest

from tracer import records
from tracer.collect.snapshot import Snapshot
from tracer.judge.ranking import rank, relative_errors


def snapshot(*rows: tuple[int, int], identity: list[int] | None = None) -> Snapshot:
    """Return one row per pair of live bytes and live count."""
    count = len(rows)
    counters = np.zeros(count, records.SITE)
    live = np.array(rows, np.int64).reshape(-1, 2)
    return Snapshot(0, np.array(identity or range(count), np.uint64), counters,
                    np.zeros(count, records.stack_dtype(4)), live[:, 0], live[:, 1], np.full(count, -1, np.int64),
                    np.zeros(count))


def test_by_size() -> None:
    """The most bytes first, then the most blocks."""
    assert rank(snapshot((10, 9), (30, 1), (20, 2), (20, 5)), "size", 10).tolist() == [1, 3, 2, 0]


def test_by_count() -> None:
    """The most blocks first, then the most bytes."""
    assert rank(snapshot((10, 9), (30, 1), (20, 2), (25, 2)), "count", 10).tolist() == [0, 3, 2, 1]


def test_top() -> None:
    """No more than asked for, counted after what holds nothing is gone."""
    assert rank(snapshot((10, 1), (30, 0), (20, 1), (5, 1)), "size", 2).tolist() == [2, 0]


def test_sites_that_hold_nothing_are_left_out() -> None:
    """A site whose blocks are all freed holds nothing; one that holds a block of no bytes does."""
    assert rank(snapshot((0, 0), (0, 1), (-5, -1)), "size", 10).tolist() == [1]
    assert rank(snapshot(), "size", 10).tolist() == []


@pytest.mark.parametrize("sort", ["size", "count"])
def test_equal_sites_are_ordered_by_identity(sort: str) -> None:
    """Two reports of the same state have the same order, wherever the rows are."""
    assert rank(snapshot((8, 1), (8, 1), (8, 1), identity=[30, 1 << 63, 20]), sort, 10).tolist() == [2, 0, 1]


def test_by_loss() -> None:
    """What is expected to lose most comes first, however little it holds; what loses nothing is behind, by bytes."""
    made = snapshot((10, 1), (900, 1), (20, 1), (500, 9), (5, 0))
    assert rank(made, "loss", 10, np.array([3.0, 0.0, 7.5, 0.0, 99.0])).tolist() == [2, 0, 1, 3]
    assert rank(made, "loss", 2, np.array([3.0, 0.0, 7.5, 0.0, 99.0])).tolist() == [2, 0]


def test_equal_losses() -> None:
    """Sites that lose the same are ordered by bytes, then blocks, then identity."""
    made = snapshot((10, 2), (30, 1), (10, 5), (10, 2), identity=[9, 4, 3, 1])
    assert rank(made, "loss", 10, np.full(4, 2.5)).tolist() == [1, 2, 3, 0]


def test_expected_losses_matter_only_where_they_are_asked_for() -> None:
    """Other orders pass them over, and without them the order of losses is that of sizes."""
    made, expected = snapshot((10, 9), (30, 1), (20, 2)), np.array([5.0, 1.0, 3.0])
    assert rank(made, "size", 10, expected).tolist() == [1, 2, 0] == rank(made, "loss", 10).tolist()
    assert rank(made, "count", 10, expected).tolist() == [0, 2, 1]


def test_relative_errors() -> None:
    """The root of the variance as a share of live bytes; a site without live bytes is no division by zero."""
    made = snapshot((1000, 1), (0, 0), (4000, 1))
    # Ten records that stand for 4 blocks of 100 bytes each: 10 * (4 - 1) * 4 * 100^2.
    errors = relative_errors(replace(made, variance=np.array([1_200_000, 0, 2.0**63])))
    assert errors.tolist() == pytest.approx([sqrt(1_200_000) / 1000, 0, sqrt(2**63) / 4000])
