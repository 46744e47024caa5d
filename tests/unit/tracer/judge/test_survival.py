"""Blocks that live on where others die are found; blocks that merely live long are not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.judge.survival import Survival, bucket_of, histogram, survive

SECOND = 1_000_000_000


def look(born_s: np.ndarray, lives_s: np.ndarray, elapsed_s: float, size: float = 100.0) -> Survival:
    """Return what is said of one site whose blocks were born at these times and live so long (inf: for ever)."""
    born_s, lives_s = (np.asarray(each, float)[born_s < elapsed_s] for each in (born_s, lives_s))
    dead = born_s + lives_s <= elapsed_s
    died, living = (histogram(np.zeros(len(each), int), (each * SECOND).astype(np.uint64), np.ones(len(each)), 1)
                    for each in (lives_s[dead], elapsed_s - born_s[~dead]))
    return survive(died, living, np.array([len(born_s)], np.uint64), np.array([size]), elapsed_s)


def leaking(count: int, each: int, elapsed_s: float) -> Survival:
    """Return what is said of blocks that live 3 ms, every so-many-th for ever."""
    lives = np.full(count, 0.003)
    lives[::each] = np.inf
    return look(np.linspace(0, elapsed_s, count, endpoint=False), lives, elapsed_s)


def test_one_percent_after_a_few_hundred_blocks() -> None:
    """A leak of 1 % is found while it is five blocks, with its share and what it costs."""
    found = leaking(500, 100, 30.0)
    assert found.outlived.tolist() == [5]
    assert found.share[0] == pytest.approx(0.01, rel=0.05)
    assert 0.003 < found.low_share[0] < 0.01
    assert found.expected_bytes_per_s[0] == pytest.approx(5 * 100 / 30, rel=0.05)
    assert found.median_s[0] == pytest.approx(0.003, rel=0.4)
    assert 0.003 <= found.usual_s[0] <= 0.006
    assert found.freed_share[0] == pytest.approx(0.99)
    assert 0 < found.young[0] < 5


def test_more_blocks_are_more_certain() -> None:
    """The lower bound comes near the share as blocks become many; the rate is what leaks each second."""
    found = leaking(100_000, 100, 30.0)
    assert found.low_share[0] == pytest.approx(0.01, rel=0.1)
    assert found.expected_bytes_per_s[0] == pytest.approx(1000 * 100 / 30, rel=0.05)


@pytest.mark.parametrize("mean_s", [0.05, 1.0, 5.0, 30.0, 300.0])
@pytest.mark.parametrize("kind", ["evicted at random", "evicted in turn", "uniform", "wide"])
def test_lives_that_are_spread(kind: str, mean_s: float) -> None:
    """Caches and sessions, whose freed blocks lived from a moment to minutes, have no block that outlived."""
    chance = np.random.default_rng(1)
    born = np.sort(chance.uniform(0, 60, 3000))
    lives = {"evicted at random": chance.exponential(mean_s, 3000), "evicted in turn": np.full(3000, mean_s),
             "uniform": chance.uniform(0, 2 * mean_s, 3000), "wide": mean_s * chance.lognormal(0, 1.5, 3000)}[kind]
    found = look(born, lives, 60.0)
    assert found.expected_bytes_per_s[0] == 0
    assert found.outlived[0] <= 2


def test_sessions_beside_short_lives() -> None:
    """Where one in two hundred blocks lives for minutes and some of these have ended, the rest are no loss."""
    chance = np.random.default_rng(2)
    lives = np.where(np.arange(20_000) % 200 == 0, chance.exponential(60, 20_000), 0.001)
    found = look(np.sort(chance.uniform(0, 120, 20_000)), lives, 120.0)
    assert found.usual_s[0] > 10
    assert found.expected_bytes_per_s[0] == 0


def test_one_late_death_does_not_hide_a_leak() -> None:
    """A single old block that was freed is an exception, not a habit."""
    lives = np.full(500, 0.003)
    lives[::50] = np.inf
    lives[3] = 5.0
    assert look(np.linspace(0, 30, 500), lives, 30.0).expected_bytes_per_s[0] > 0


def test_what_was_kept_at_the_start() -> None:
    """A table made in the first second is as old as the trace: it lives on, and is no loss."""
    born = np.concatenate([np.linspace(0, 1, 50), np.linspace(0, 60, 2000)])
    found = look(born, np.concatenate([np.full(50, np.inf), np.full(2000, 0.002)]), 60.0)
    assert (found.outlived[0], found.young[0], found.expected_bytes_per_s[0]) == (50, 0, 0)


def test_young_blocks_say_nothing() -> None:
    """Blocks younger than eight times the usual are no survivors, however many: each may still die."""
    lives, ages = np.zeros((2, 32), np.uint64), np.zeros((2, 32), np.uint64)
    lives[:, 10] = 100
    ages[0, 13], ages[1, 14] = 50, 50
    found = survive(lives, ages, np.full(2, 150, np.uint64), np.ones(2), 60.0)
    assert found.outlived.tolist() == [0, 50]
    assert found.share.tolist() == pytest.approx([0, 1 / 3], rel=0.01)


@pytest.mark.parametrize("freed", [0, 19])
def test_too_few_freed(freed: int) -> None:
    """Of a handful of freed blocks nothing is usual, so nothing outlives it."""
    lives, ages = np.zeros((1, 32), np.uint64), np.zeros((1, 32), np.uint64)
    lives[0, 0], ages[0, 24] = freed, 100
    found = survive(lives, ages, np.array([100 + freed], np.uint64), np.ones(1), 60.0)
    assert np.isnan(found.usual_s[0]) and np.isnan(found.median_s[0])
    assert (found.outlived[0], found.share[0], found.low_share[0], found.expected_bytes_per_s[0]) == (0, 0, 0, 0)


def test_nothing_at_all() -> None:
    """No sites, an empty site and a trace of no length are no division by zero."""
    none = np.zeros((1, 32), np.uint64)
    assert len(survive(none[:0], none[:0], np.zeros(0, np.uint64), np.zeros(0), 1.0).share) == 0
    with np.errstate(all="raise"):
        for elapsed in (0.0, 1.0):
            assert survive(none, none, np.zeros(1, np.uint64), np.zeros(1), elapsed).share.tolist() == [0]


@given(st.integers(0, (1 << 64) - 1))
def test_buckets_are_those_of_the_kernel_side(age: int) -> None:
    """The power of two above 2^10 ns, the first with all below and the last with all above, exact at every edge."""
    for each in (age, 1 << (age % 64), (1 << (age % 64)) - 1):
        assert int(bucket_of(np.array([each], np.uint64))[0]) == min(max(each.bit_length() - 11, 0), 31)


def test_histogram() -> None:
    """Each block counts with its weight at its site; sites without blocks are rows of zeros."""
    made = histogram(np.array([2, 0, 2]), np.array([5, 1 << 60, 1024], np.uint64), np.array([3, 1, 4]), 4)
    assert made.dtype == np.uint64 and made.shape == (4, 32)
    assert (made[2, 0], made[0, 31], made.sum()) == (7, 1, 8)
