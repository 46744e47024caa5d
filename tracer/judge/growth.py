"""How the live bytes of each site went over time: the slope, the trend, and the shape that explains it.

A site grows (RISING) if what it holds rises in the later part of its life too, and at a rate that does not fade: also
in equal steps, also as a sawtooth whose troughs and peaks rise. All else has the shape of something harmless, or none.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import IntEnum
from typing import Any

import numpy as np

from tracer.judge.trend import inflation, mann_kendall, theil_sen

#: Rows that are worked on at once: 60 points of them fit a processor's cache.
CHUNK = 1024
#: With fewer points (five intervals) the trend test cannot reach certainty, and a quarter of a life is no interval.
LEAST_POINTS = 6
#: Near its present size: a part of it that the blocks in use at the moment of a report make up.
SETTLED_WITHIN = 0.02
#: Settled for this share of the trace, and at least so many points ...
SETTLED_SHARE, SETTLED_POINTS = 0.2, 3
#: ... and for so many times the longest pause while it grew: a vector that doubles pauses twice as long each time.
SETTLED_PAUSES = 2
#: Within that tolerance it creeps if rises outnumber falls, or falls rises, as in one of 200 by chance (sign test) ...
CREEPING_SCORE = 2.6
#: ... and this share of what came has stayed.
CREEPING_STAYS = 0.5
#: What gives back no more than this of what it takes does nothing but grow.
GIVES_BACK = 0.1
#: Growth is seen in so many intervals of the later half, and no one of them has more than this share of it: of a vector
#: that doubles, the later half of the time has one step, and that is half of all.
LEAST_RISES, LARGEST_RISE = 3, 0.5
#: A filling cache takes less in every quarter of its time; each at most this part of the one before.
FADES = 0.8
#: A series must be this share of the trace long to be called growing: a burst at the end may be the next warm-up.
LEAST_LIFE = 0.25
#: A fall in one interval by this share of all it ever varied is a trim. Two make a sawtooth; from four on, the first
#: and the last are compared (of fewer, two are higher by chance too often) ...
TRIM, LEAST_TEETH, COMPARED_TEETH = 0.25, 2, 4
#: ... if for each interval that falls there are so many that rise: ramps are long, noise goes down as often as up.
RAMP = 2
#: After a trim that came later than this share of the trace, a single ramp is the next tooth until it is higher by ...
WARM_UP = 1 / 6
#: ... this part than the peak before.
NEW_HIGH = 1.1
#: Of ten thousand sites without a trend, this score is reached by a dozen; these need to rise in the later half, too.
CERTAIN, LATER_TOO = 3.0, 1.0
#: A series of steps rises in at most this share of the intervals, or in so few.
STEP_SHARE, FEW_STEPS = 0.25, 3
#: One step of a series that doubles (or grows by half) is this share of all; equal ones differ by less than a factor.
LARGE_STEP, EQUAL_STEPS = 0.3, 1.2


class Shape(IntEnum):
    """What a series looks like. Only RISING is growth."""

    FLAT = 0
    """The same all the time, within a tolerance."""
    FALLING = 1
    RISING = 2
    """Rises up to now, and at a rate that does not fade; or does so as a sawtooth or in equal steps."""
    SAWTOOTH = 3
    """Fills and is trimmed, again and again, and does not rise from one time to the next."""
    STEPS = 4
    """Few rises, each about as large as all before; what doubles its size looks like this."""
    SETTLED = 5
    """Reached its size, unchanged since."""
    ERRATIC = 6
    """None of these; also what rises for too short a time to say."""
    FILLING = 7
    """Rises ever more slowly, or has stopped a moment ago."""


@dataclass(frozen=True, slots=True, eq=False)
class Growth:
    """What is known of n series; all arrays (n,).

    slope, low, high: f64, bytes/s since the series first changed, and its 95 % interval (infinite where it has no two
    comparable points); of a sawtooth that rises, those of its floor: what it never went below again.
    trend_z: f64, Mann-Kendall's normal score over the whole trace. rises, intervals: i64, in how many of the intervals
    since it first changed it grew. shape: u8, a Shape. settled_s: f64, when it reached its present size and stayed, on
    the clock of times, else nan. steady_s: f64, for how long it has been there, else 0.
    """

    slope: np.ndarray
    low: np.ndarray
    high: np.ndarray
    trend_z: np.ndarray
    rises: np.ndarray
    intervals: np.ndarray
    shape: np.ndarray
    settled_s: np.ndarray
    steady_s: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class _Rows:
    """Series that change, as columns: values (t, m), steps (t - 1, m) between them, up (t - 1, m) where they rise.

    start: i64 (m,), the last point before the first change. half: i64 (m,), halfway between start and the end; later:
    bool (t - 1, m), the intervals after that.
    """

    times: np.ndarray
    values: np.ndarray
    steps: np.ndarray
    up: np.ndarray
    start: np.ndarray
    half: np.ndarray
    later: np.ndarray


def grow(times: np.ndarray, values: np.ndarray) -> Growth:
    """Return how each site's live bytes went.

    times: f64 (t,), seconds since the trace began, rising, evenly spaced or not. values: f64 (n, t), live bytes, 0
    before a site existed. With fewer than two points everything is flat.
    """
    times, values = np.asarray(times, np.float64), np.asarray(values, np.float64)
    count, points = values.shape
    zeros = np.zeros(count)
    whole = float(times[-1] - times[0]) if points else 0.0
    grown = Growth(zeros, zeros.copy(), zeros.copy(), zeros.copy(), zeros.astype(np.int64),
                   np.full(count, max(points - 1, 0)), np.full(count, Shape.FLAT, np.uint8),
                   np.full(count, times[0] if points else np.nan), np.full(count, whole))
    if points < 2:
        return grown
    changing = np.flatnonzero((values != values[:, :1]).any(axis=1))
    for first in range(0, len(changing), CHUNK):
        chosen = changing[first : first + CHUNK]
        part = _grow(_rows(times, np.ascontiguousarray(values[chosen].T)))
        for field in fields(Growth):
            getattr(grown, field.name)[chosen] = getattr(part, field.name)
    return grown


def _rows(times: np.ndarray, values: np.ndarray) -> _Rows:
    steps = np.diff(values, axis=0)
    start = (steps != 0).argmax(axis=0)
    half = (start + len(times) - 1) // 2
    later = np.arange(len(steps))[:, None] >= half
    return _Rows(times, values, steps, steps > 0, start, half, later)


def _grow(rows: _Rows) -> Growth:
    times, values = rows.times, rows.values
    slope, low, high = theil_sen(times, values, rows.start)
    score = mann_kendall(values)
    certain = score / inflation(times, values, slope)
    middle = len(times) // 2
    # The later half of the trace by itself: what rose before, and then stopped, has no trend there.
    # What never falls and does not rise steadily has no drift, but steps or an end.
    drifts = (certain >= CERTAIN) & (low > 0) & ((rows.steps < 0) & rows.later).any(axis=0)
    drifts[drifts] = mann_kendall(values[middle:, drifts]) >= LATER_TOO
    since, pause = _stays_since(rows)
    stayed, fades = len(times) - since, _fades(rows)
    # What comes ever nearer to a size rises in every interval, and has still reached it.
    moves = _creeps(rows, since) | (drifts & (since <= middle))
    still = (stayed > SETTLED_PAUSES * pause + 1) & (~moves | fades)
    stays = (still & (stayed >= SETTLED_POINTS)
             & (times[-1] - times[since] >= SETTLED_SHARE * (times[-1] - times[0])))
    shape, mounting = _shape(rows, stays, since, drifts, certain, still | fades)
    mounts = np.flatnonzero(mounting)
    if len(mounts):
        floor = np.minimum.accumulate(values[::-1, mounts], axis=0)[::-1]
        slope[mounts], low[mounts], high[mounts] = theil_sen(times, floor, rows.start[mounts])
    return Growth(slope, low, high, score, rows.up.sum(axis=0), len(times) - 1 - rows.start, shape,
                  np.where(stays, times[since], np.nan), np.where(stays, times[-1] - times[since], 0.0))


def _stays_since(rows: _Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return since which point each has been near its present size, and the longest pause between changes before."""
    values = rows.values
    off = np.abs(values - values[-1]) > SETTLED_WITHIN * np.abs(values).max(axis=0)
    since = np.where(off.any(axis=0), len(values) - off[::-1].argmax(axis=0), 0)
    kind: type[np.signedinteger[Any]] = np.int16 if len(values) < 1 << 15 else np.int64
    at = np.arange(len(rows.steps), dtype=kind)[:, None]
    changes = (rows.steps != 0) & (at < since)
    before = np.maximum.accumulate(np.where(changes, at, kind(-1)), axis=0)
    pauses = np.where(changes[1:] & (before[:-1] >= 0), at[1:] - before[:-1], kind(0))
    return since, pauses.max(axis=0, initial=0)


def _creeps(rows: _Rows, since: np.ndarray) -> np.ndarray:
    """Return which go one way all the time, within the tolerance of their present size, bool (m,)."""
    within = np.arange(len(rows.steps))[:, None] >= since
    rises, falls = (rows.up & within).sum(axis=0), ((rows.steps < 0) & within).sum(axis=0)
    net = rows.values[-1] - np.take_along_axis(rows.values, since[None, :], 0)[0]
    came = np.where(rows.up & within, rows.steps, 0.0).sum(axis=0)
    # Downwards, what went and did not come again.
    went, much = came - net, CREEPING_SCORE * np.sqrt(rises + falls)
    up, down = rises - falls >= much, falls - rises >= much
    return np.asarray((up & (net >= CREEPING_STAYS * came) & (net > 0))
                      | (down & (-net >= CREEPING_STAYS * went) & (net < 0)))


def _shape(rows: _Rows, stays: np.ndarray, since: np.ndarray, drifts: np.ndarray, certain: np.ndarray,
           ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the Shape of each, u8 (m,), the first that fits; and which rise as a sawtooth does, bool (m,)."""
    life = rows.times[-1] - rows.times[rows.start]
    long = (len(rows.times) - rows.start >= LEAST_POINTS) & (life >= LEAST_LIFE * (rows.times[-1] - rows.times[0]))
    came = np.where(rows.up, rows.steps, 0.0).sum(axis=0)
    went = came - (rows.values[-1] - rows.values[0])
    toothed, mounting, ramp = _teeth(rows, came)
    only_rises = _rises_only(rows) & ~ramp
    mounting &= long & ~stays & ~(only_rises & ~ends)
    shape = np.select(
        [stays & (since == 0), stays, long & only_rises & ~ends, mounting, toothed,
         (certain <= -CERTAIN) | ((came <= GIVES_BACK * went) & (went > 0)), _steps(rows, came, went),
         long & drifts & ~ends, (only_rises | drifts) & ends],
        [Shape.FLAT, Shape.SETTLED, Shape.RISING, Shape.RISING, Shape.SAWTOOTH, Shape.FALLING, Shape.STEPS,
         Shape.RISING, Shape.FILLING],
        Shape.ERRATIC,
    )
    return shape.astype(np.uint8), mounting


def _rises_only(rows: _Rows) -> np.ndarray:
    """Return which took without giving back in the later half, in both its quarters, and not all at once, bool (m,)."""
    took = np.where(rows.up & rows.later, rows.steps, 0.0)
    total = took.sum(axis=0)
    gave = total - np.where(rows.later, rows.steps, 0.0).sum(axis=0)
    last = np.arange(len(rows.steps))[:, None] >= (rows.half + len(rows.steps)) // 2
    rises, recent = (took > 0).sum(axis=0), ((took > 0) & last).sum(axis=0)
    return np.asarray((total > 0) & (gave <= GIVES_BACK * total) & (rises >= LEAST_RISES) & (recent > 0)
                      & (recent < rises) & (took.max(axis=0) <= LARGEST_RISE * total))


def _fades(rows: _Rows) -> np.ndarray:
    """Return which took less in every quarter of their time, bool (m,)."""
    last = np.full(len(rows.start), len(rows.times) - 1)
    bounds = np.stack([rows.start, (rows.start + rows.half) // 2, rows.half, (rows.half + last) // 2, last])
    took = np.diff(np.take_along_axis(rows.values, bounds, 0), axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        rates = took / np.diff(rows.times[bounds], axis=0)
    return np.asarray(((rates[:-1] > 0) & (rates[1:] < FADES * rates[:-1])).all(axis=0))


def _teeth(rows: _Rows, came: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return which are a sawtooth, which have troughs and peaks that rise, and which end in a ramp like one before."""
    values, points = rows.values, len(rows.times)
    trims = rows.steps <= -TRIM * (values.max(axis=0) - values.min(axis=0))
    teeth, rises = trims.sum(axis=0), rows.up.sum(axis=0)
    toothed = (teeth >= LEAST_TEETH) & (rises >= RAMP * (rows.steps < 0).sum(axis=0))
    # When a report falls into a tooth is chance, and changes both ends by what one interval brings.
    step = came / np.maximum(rises, 1)
    mounting = toothed & (teeth >= COMPARED_TEETH)
    some = np.flatnonzero(mounting)
    if len(some):
        early = trims & (np.cumsum(trims, axis=0, dtype=np.int32) <= teeth // 2)
        halves = early[:, some], (trims & ~early)[:, some]
        mounting[some] = np.logical_and(*(_mount(halves, ends[:, some], step[some])
                                          for ends in (values[1:], values[:-1])))
    last = points - 2 - trims[::-1].argmax(axis=0)
    peak = np.where(np.arange(points)[:, None] <= last, values, 0.0).max(axis=0)
    ramp = (teeth > 0) & (last > WARM_UP * points) & (values[-1] < NEW_HIGH * peak)
    return toothed, mounting, ramp


def _mount(halves: tuple[np.ndarray, np.ndarray], values: np.ndarray, step: np.ndarray) -> np.ndarray:
    """Return which values are higher in the second half, by more than a step and more than chance, bool (m,)."""
    means, variance = [], np.zeros(len(step))
    for half in halves:
        many = np.maximum(half.sum(axis=0), 1)
        mean = np.einsum("tm,tm->m", half, values) / many
        off = (values - mean) * half
        variance += np.einsum("tm,tm->m", off, off) / many / many
        means.append(mean)
    return np.asarray(means[1] - means[0] > np.maximum(step, CERTAIN * np.sqrt(variance)))


def _steps(rows: _Rows, came: np.ndarray, went: np.ndarray) -> np.ndarray:
    """Return which rose in few large steps of different size, bool (m,)."""
    rises = rows.up.sum(axis=0)
    largest = rows.steps.max(axis=0)
    smallest = np.where(rows.up, rows.steps, np.inf).min(axis=0)
    few = rises <= np.maximum(FEW_STEPS, STEP_SHARE * (len(rows.times) - 1 - rows.start))
    equal = (rises >= LEAST_RISES) & (largest < EQUAL_STEPS * smallest)
    return np.asarray((rises > 0) & few & (went <= GIVES_BACK * came) & (largest >= LARGE_STEP * came) & ~equal)
