"""Every shape is told from the others, and slope and trend are what their definitions say."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.judge.growth import CHUNK, Growth, Shape, grow
from tracer.judge.trend import ALL_PAIRS_UNTIL, mann_kendall, theil_sen

TIMES = np.arange(60) / 2
AT = np.arange(60.0)
WHOLE = st.integers(0, 50)


def one(values: np.ndarray, times: np.ndarray = TIMES) -> Growth:
    return grow(times, np.asarray(values, float)[None, :])


def noise(mean: float, seed: int = 3) -> np.ndarray:
    """Return blocks in use at the moments of reports."""
    return np.random.default_rng(seed).poisson(mean, 60).astype(float)


def saw(period: float, rise: float = 0.0) -> np.ndarray:
    """Return a cache of 100 kB that is trimmed after so many points, with troughs that rise by a share of that."""
    teeth = np.floor(AT / period)
    return 1e5 * (AT / period - teeth + rise * teeth)


SERIES = {
    "never changed": (np.full(60, 9e6), Shape.FLAT),
    "never existed": (np.zeros(60), Shape.FLAT),
    "varies within a percent": (1e6 + 100 * noise(20), Shape.FLAT),
    "fills for 4 s, then the same": (1e6 * np.minimum(AT / 8, 1), Shape.SETTLED),
    "fills for 4 s, then varies within a percent": (1e6 * np.minimum(AT / 8, 1) + 100 * noise(20), Shape.SETTLED),
    "fills for half of the time": (1e6 * np.minimum(AT / 30, 1), Shape.SETTLED),
    "a start-up table": (np.where(AT >= 2, 5e5, 0), Shape.SETTLED),
    "a logging ring": (np.minimum(1000 * 10 * AT, 64_000), Shape.SETTLED),
    "comes ever nearer to a size": (1e6 * (1 - np.exp(-AT / 8)), Shape.SETTLED),
    "all given back": (np.where(AT < 10, 1000 * AT, 0), Shape.SETTLED),
    "a leak": (1000 * AT, Shape.RISING),
    "a leak in a vast table": (np.where(AT > 0, 1e9, 0) + 100 * AT, Shape.RISING),
    "a leak after 4 s of start-up": (1e6 * np.minimum(AT / 8, 1) + 1000 * AT, Shape.RISING),
    "a leak beneath blocks in use": (50 * AT + 100 * noise(20), Shape.RISING),
    "a leak beneath blocks in use in a large table": (np.where(AT > 0, 1e6, 0) + 100 * AT + 100 * noise(20), Shape.RISING),
    "a leak that began at half": (np.where(AT > 30, 1000 * (AT - 30), 0), Shape.RISING),
    "a large block every 3 s": (1e6 * np.floor(AT / 6), Shape.RISING),
    "trimmed, and troughs rise": (saw(6, 0.1), Shape.RISING),
    "trimmed, and troughs rise slowly": (saw(4.5, 0.05), Shape.RISING),
    "a cache that is trimmed": (saw(6), Shape.SAWTOOTH),
    "trimmed out of step with reports": (saw(6.1), Shape.SAWTOOTH),
    "a trimmed cache with blocks in use": (saw(11) + 300 * noise(20), Shape.SAWTOOTH),
    "few teeth": (saw(25), Shape.SAWTOOTH),
    "a vector that doubles": (2.0 ** np.floor(np.log2(1 + 100 * AT)), Shape.STEPS),
    "a vector that grows by half": (1.5 ** np.floor(np.log(1 + 100 * AT) / np.log(1.5)), Shape.STEPS),
    "one step, just now": (np.where(AT > 54, 2e6, 1e6), Shape.STEPS),
    "becomes less": (1e6 - 1000 * AT, Shape.FALLING),
    "blocks in use": (100 * noise(20), Shape.ERRATIC),
    "a queue whose load comes and goes": (1e4 + 1e4 * np.sin(AT / 4) + 50 * noise(20), Shape.ERRATIC),
    "a second tooth, not higher than the first": (1000 * (AT % 32), Shape.ERRATIC),
    "a second tooth that fills more slowly": (1000 * np.where(AT < 25, AT, 0.7 * (AT - 25)), Shape.ERRATIC),
    "three large blocks": (1e6 * np.floor(AT / 18), Shape.ERRATIC),
    "a burst at the end": (1e6 + 1e5 * np.maximum(AT - 54, 0), Shape.ERRATIC),
    "fills ever more slowly": (1e6 * (1 - np.exp(-AT / 25)), Shape.FILLING),
    "filled until a moment ago": (1e6 * np.minimum(AT / 51, 1), Shape.FILLING),
}


@pytest.mark.parametrize("name", SERIES)
def test_shapes(name: str) -> None:
    """Each kind of site has its shape, whatever its unit is; what grows has a slope that is surely above 0."""
    values, shape = SERIES[name]
    for scale in (1.0, 1000.0, 0.125):
        found = one(values * scale)
        assert Shape(int(found.shape[0])) is shape
        assert shape != Shape.RISING or found.low[0] > 0
        assert np.isfinite(found.settled_s[0]) == (shape in (Shape.FLAT, Shape.SETTLED))


def test_rows_do_not_disturb_each_other() -> None:
    """Thousands of sites at once get what each gets alone, over the borders of chunks."""
    rows = np.array([values for values, _ in SERIES.values()])
    many = grow(TIMES, np.tile(rows, (CHUNK // len(rows) + 3, 1)))
    assert (many.shape.reshape(-1, len(rows)) == [shape for _, shape in SERIES.values()]).all()
    alone = [one(values) for values in rows]
    for name in ("slope", "low", "high", "trend_z", "rises", "intervals", "settled_s", "steady_s"):
        np.testing.assert_array_equal(getattr(many, name)[-len(rows):], [getattr(each, name)[0] for each in alone])


def test_settled_when() -> None:
    """The time of the point that reached the size, on the clock of the trace, and how long ago that is."""
    found = one(1e6 * np.minimum(AT / 8, 1), TIMES + 2)
    assert (found.settled_s[0], found.steady_s[0]) == (6, 25.5)
    assert one(AT).steady_s[0] == 0


def test_rises_of_intervals() -> None:
    """Counted since the series first changed: what a site was before it existed is not held in its favour."""
    found = one(np.where(AT > 40, AT - 40, 0) - (AT == 50) * 3)
    assert (found.rises[0], found.intervals[0]) == (18, 19)
    assert found.slope[0] == pytest.approx(2)


def test_noise_is_seldom_growth() -> None:
    """Of sites whose blocks come and go at random, or walk at random, few are called growing by chance."""
    chance = np.random.default_rng(5)
    still = 100.0 * chance.poisson(20, (500, 60))
    walks = np.cumsum(chance.normal(size=(500, 60)), axis=1)
    for values, share in ((still, 0.01), (walks - walks.min(axis=1, keepdims=True), 0.12)):
        found = grow(TIMES, values)
        assert ((found.shape == Shape.RISING) & (found.low > 0)).mean() <= share


def test_cut_at_random_is_no_rise() -> None:
    """Of caches that are trimmed to a random size, and seen at random moments, hardly any seems to mount."""
    chance = np.random.default_rng(7)
    phase = AT / chance.uniform(4, 16, (500, 1)) + chance.random((500, 1))
    bottoms = chance.uniform(0, 0.5, (500, 20))
    teeth = np.take_along_axis(bottoms, np.floor(phase).astype(int), 1) + phase % 1
    assert (grow(TIMES, 1e5 * teeth).shape == Shape.RISING).mean() <= 0.02


def test_uneven_times() -> None:
    """Reports at uneven times change neither slope nor shape of a steady leak, or of one that has stopped."""
    times = np.cumsum(np.random.default_rng(4).uniform(0.2, 2, 60))
    assert one(500 * times, times).slope[0] == pytest.approx(500)
    assert one(500 * times, times).shape[0] == Shape.RISING
    assert one(np.minimum(500 * times, 5000), times).shape[0] == Shape.SETTLED


@pytest.mark.parametrize("points", range(8))
def test_few_points(points: int) -> None:
    """Before there are six points nothing is called growing, and no count of points is an error."""
    found = grow(TIMES[:points], AT[None, :points])
    assert (found.shape[0] == Shape.RISING) == (points >= 6)
    assert len(grow(TIMES[:points], np.zeros((0, points))).shape) == 0


def naive_slopes(times: np.ndarray, values: np.ndarray) -> list[float]:
    return [(values[j] - values[i]) / (times[j] - times[i]) for i, j in combinations(range(len(times)), 2)]


@settings(max_examples=50)
@given(st.lists(st.tuples(st.integers(1, 9), WHOLE), min_size=2, max_size=ALL_PAIRS_UNTIL))
def test_slope_is_theil_sens(points: list[tuple[int, int]]) -> None:
    """Of short series it is the median over all pairs, with ties and uneven times, inside its own interval."""
    times, values = np.cumsum([float(gap) for gap, _ in points]), np.array([float(value) for _, value in points])
    slope, low, high = theil_sen(times, values[:, None], np.zeros(1, int))
    assert slope[0] == pytest.approx(np.median(naive_slopes(times, values)), abs=1e-12)
    assert low[0] <= slope[0] <= high[0]


def test_slope_of_long_series() -> None:
    """From fewer pairs it is as good as from all; nine in ten intervals hold the truth, which no outlier moves far."""
    chance = np.random.default_rng(6)
    values = 3 * TIMES[:, None] + chance.normal(size=(60, 300))
    values[10:14] += 1000
    slope, low, high = theil_sen(TIMES, values, np.zeros(300, int))
    full = np.array([np.median(naive_slopes(TIMES, values[:, column])) for column in range(20)])
    assert np.abs(slope[:20] - full).max() < 0.05
    assert np.abs(slope - 3).max() < 0.15
    assert ((low <= 3) & (high >= 3)).mean() >= 0.9
    assert (high - low).mean() < 0.3


def test_slope_from_a_start() -> None:
    """Points before a series' start do not count; with none to compare, the slope may be anything."""
    values = np.maximum(AT - 20, 0)[:, None] * 4
    slope, low, high = theil_sen(AT, np.repeat(values, 2, axis=1), np.array([20, 59]))
    assert (slope[0], low[0], high[0]) == (4, 4, 4)
    assert (low[1], high[1]) == (-np.inf, np.inf)


@settings(max_examples=50)
@given(st.lists(WHOLE, min_size=3, max_size=40))
def test_trend_is_mann_kendalls(numbers: list[int]) -> None:
    """The score is that of the sum of signs over all pairs, its variance less what ties take."""
    count = len(numbers)
    signs = sum((b > a) - (b < a) for a, b in combinations(numbers, 2))
    groups = [numbers.count(each) for each in set(numbers)]
    variance = (count * (count - 1) * (2 * count + 5) - sum(g * (g - 1) * (2 * g + 5) for g in groups)) / 18
    wanted = (signs - np.sign(signs)) / np.sqrt(variance) if variance else 0.0
    assert mann_kendall(np.array(numbers, float)[:, None])[0] == pytest.approx(wanted)


def test_trend_of_very_long_series() -> None:
    """Sums of more signs than a byte holds do not run over."""
    rising = mann_kendall(np.arange(400.0)[:, None])[0]
    assert rising == pytest.approx((400 * 399 / 2 - 1) / np.sqrt(400 * 399 * 805 / 18))


@settings(max_examples=30, deadline=None)
@given(st.lists(WHOLE, min_size=12, max_size=12), st.integers(1, 8), st.integers(0, 1000))
def test_scale_and_origin(numbers: list[int], power: int, later: int) -> None:
    """Other units scale the slope and leave trend and shape; a trace that began earlier changes nothing but the clock."""
    times, values = np.arange(12.0), np.array(numbers, float)
    plain, scaled, shifted = one(values, times), one(values * 2**power, times), one(values, times + later)
    assert scaled.slope[0] == pytest.approx(plain.slope[0] * 2**power)
    assert shifted.slope[0] == plain.slope[0]
    for name in ("trend_z", "rises", "shape", "intervals"):
        assert getattr(plain, name)[0] == getattr(scaled, name)[0] == getattr(shifted, name)[0]
