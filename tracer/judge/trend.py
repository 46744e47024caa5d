"""Slope and trend of many series at once: Theil-Sen and Mann-Kendall, both of ranks, so no outlier decides.

Series are columns here, shape (t, m): what is added and compared then lies side by side in memory.
"""

from __future__ import annotations

from functools import cache

import numpy as np

#: Up to so many points the slope is the median over all pairs; beyond, over pairs at LAGS, of which there are fewer.
ALL_PAIRS_UNTIL = 20
#: Distances of pairs, as shares of the series. Far pairs say most about the slope, and near ones serve series that
#: began late. Some 3.5 pairs a point are left of t/2; the median of these spreads about 5 % more than that of all.
LAGS = (1 / 12, 1 / 6, 1 / 3, 1 / 2, 2 / 3, 5 / 6)
#: Normal score that 95 % of chance lie within, on both sides.
TWO_SIDED_95 = 1.96


def choose_pairs(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return which points of a series of count are compared: earlier and later, i64 (p,) each."""
    if count <= ALL_PAIRS_UNTIL:
        earlier, later = np.triu_indices(count, 1)
        return earlier, later
    lags = [max(1, round(share * count)) for share in LAGS]
    return (np.concatenate([np.arange(count - lag) for lag in lags]),
            np.concatenate([np.arange(lag, count) for lag in lags]))


def theil_sen(times: np.ndarray, values: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return slope, and the ends of its 95 % interval, f64 (m,): the median of the slopes of pairs of points.

    times: (t,), rising. values: (t, m). start: i64 (m,), the first point of each series that counts. A series without
    a pair has slope 0 and an interval without ends. For few points the interval is that of all pairs' slopes.
    """
    earlier, later = choose_pairs(len(times))
    slopes = (values[later] - values[earlier]) / (times[later] - times[earlier])[:, None]
    # What does not count is sorted behind everything.
    slopes[earlier[:, None] < start] = np.inf
    slopes = np.sort(np.ascontiguousarray(slopes.T), axis=1)
    pairs, spread = _pairs_from(len(times))
    known, spread = pairs[start], TWO_SIDED_95 * spread[start]
    middle = (_take(slopes, (known - 1) // 2) + _take(slopes, known // 2)) / 2
    low = _take(slopes, np.maximum(np.floor((known - spread) / 2).astype(np.int64) - 1, 0))
    high = _take(slopes, np.minimum(np.ceil((known + spread) / 2).astype(np.int64), known - 1))
    none = known == 0
    return np.where(none, 0.0, middle), np.where(none, -np.inf, low), np.where(none, np.inf, high)


def _take(rows: np.ndarray, at: np.ndarray) -> np.ndarray:
    return np.asarray(np.take_along_axis(rows, np.maximum(at, 0)[:, None], 1)[:, 0])


@cache
def _pairs_from(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return for each start how many pairs there are, and one standard deviation of the sum of their signs.

    Without a trend two pairs that share an end agree by 1/3, two of which one ends where the other begins disagree by
    1/3 (Kendall). For all pairs the sum over points is n(n-1)(2n+5)/18, Mann-Kendall's variance.
    """
    earlier, later = choose_pairs(count)
    pairs, variance = np.zeros(count, np.int64), np.zeros(count)
    for start in range(count):
        chosen = earlier >= start
        first, last = (np.bincount(ends[chosen], minlength=count).astype(np.float64) for ends in (earlier, later))
        pairs[start] = chosen.sum()
        variance[start] = pairs[start] + ((last - first) ** 2 - (last + first)).sum() / 3
    return pairs, np.sqrt(variance)


def mann_kendall(values: np.ndarray) -> np.ndarray:
    """Return the normal score of a monotonic trend, f64 (m,), corrected for ties; values: (t, m). Positive: it rises.

    The score is about 0 +- 1 where values are independent; neighbours that resemble each other make it larger.
    """
    count = len(values)
    # A sum of signs is at most t, of a lag.
    small, counting = (np.int8, np.uint8) if count <= 127 else (np.int32, np.uint32)
    sums, equal = np.zeros(values.shape[1], np.int64), np.zeros(values.shape, counting)
    for lag in range(1, count):
        up, down = values[lag:] > values[:-lag], values[lag:] < values[:-lag]
        sums += np.add.reduce(np.subtract(up.view(np.int8), down.view(np.int8)), axis=0, dtype=small)
        same = ~(up | down)
        equal[lag:] += same
        equal[:-lag] += same
    # Each of g equal values has g - 1 equals, so a sum over values counts what is due to their group g times.
    equals = equal.astype(np.float64)
    ties = (equals * (2 * equals + 7)).sum(axis=0)
    variance = (count * (count - 1) * (2 * count + 5) - ties) / 18
    return np.asarray((sums - np.sign(sums)) / np.sqrt(np.maximum(variance, 1.0)))


def inflation(times: np.ndarray, values: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """Return by what to divide a score, f64 (m,), at least 1: how far neighbours resemble each other off the slope.

    With correlation r of neighbours, t values tell as much as t(1-r)/(1+r) independent ones (Bayley and Hammersley).
    """
    off = values - slope * times[:, None]
    off -= off.mean(axis=0)
    whole = np.einsum("tm,tm->m", off, off)
    with np.errstate(invalid="ignore", divide="ignore"):
        like = np.where(whole > 0, np.einsum("tm,tm->m", off[1:], off[:-1]) / whole, 0.0)
    like = np.clip(like, 0.0, 0.95)
    return np.asarray(np.sqrt((1 + like) / (1 - like)))
