"""Whether blocks outlive what their site's blocks usually live: ages at death against ages of the living."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tracer.records import LIFETIME_BUCKETS, LIFETIME_SHIFT

#: Of fewer freed blocks nothing is usual: the 99th percentile would be the oldest of a handful.
LEAST_FREED = 20
#: What this share of freed blocks does not exceed is usual.
USUAL_SHARE = 0.99
#: Buckets beyond the usual one from which on a block has outlived: 2^3 = 8 times as old at least. Were lifetimes
#: exponential, the usual one would be 4.6 means, and a block would become 37 means old once in 10^16 times.
BEYOND = 3
#: Blocks freed at some age or later, as a share of all that reached that age, from which on that age is usual too, and
#: their least number: such old blocks are given back, as sessions or a cache's entries are. One may be an exception.
OLD_ARE_FREED, LEAST_OLD_FREED = 0.05, 2
#: Fewer blocks that live on are what a program sets up once: a buffer, a table, a name.
LEAST_OUTLIVED = 3
#: Blocks are recent up to this share of the trace's length, rounded down to a power of two of nanoseconds.
RECENT = 0.75
#: How far the loss of all the time may exceed that of the recent part; what was kept at the start only has none of it.
RECENT_SLACK = 2.0
#: Normal score of the two-sided 95 % interval.
TWO_SIDED_95 = 1.96

_MANTISSA_BITS, _EXPONENT_BIAS = 52, 1023


@dataclass(frozen=True, slots=True, eq=False)
class Survival:
    """What lifetimes say of n sites; all arrays (n,).

    usual_s, median_s: f64, what freed blocks live at most, but for the oldest 1 % (the upper edge of a power of two),
    and half of them; nan where too few were freed. outlived: i64, living blocks at least 8 times as old as usual.
    share, low_share: f64, these as a share of all that had the time to become so old, and the lower end of its 95 %
    interval; 0 where none had. young: i64, of the outlived, those not as old as most of the trace: 0 if all are of its
    beginning. expected_bytes_per_s: f64, the loss they amount to; 0 without evidence. freed_share: f64, freed blocks as
    a share of the allocated.
    """

    usual_s: np.ndarray
    median_s: np.ndarray
    outlived: np.ndarray
    share: np.ndarray
    low_share: np.ndarray
    young: np.ndarray
    expected_bytes_per_s: np.ndarray
    freed_share: np.ndarray


def survive(lifetimes: np.ndarray, ages: np.ndarray, allocated: np.ndarray, mean_size: np.ndarray,
            elapsed_s: float) -> Survival:
    """Return which sites have blocks that live on where the others die.

    lifetimes: u64 (n, 32), freed blocks by bucket_of() their age at death. ages: u64 (n, 32), living ones by their age
    now. allocated: u64 (n,), blocks. mean_size: f64 (n,), bytes. elapsed_s: since the trace began.
    """
    died, living = lifetimes.astype(np.float64), ages.astype(np.float64)
    freed = died.sum(axis=1)
    enough = freed >= LEAST_FREED
    usual = _usual(died, living, freed)
    threshold = usual + 1 + BEYOND
    # No block of the trace is older than it, so an edge beyond its end says nothing.
    limit = np.exp2(threshold + LIFETIME_SHIFT) / 1e9
    beyond = (np.arange(LIFETIME_BUCKETS) >= threshold[:, None]) & (enough & (limit < elapsed_s))[:, None]
    outlived = np.where(beyond, living, 0.0).sum(axis=1)
    recent_until = int(bucket_of(np.array([max(0.0, elapsed_s) * RECENT * 1e9], np.uint64))[0])
    young = np.where(beyond[:, :recent_until], living[:, :recent_until], 0.0).sum(axis=1)
    # Of the freed ones, those born less than the limit ago could not have become so old either.
    time = np.maximum(elapsed_s - limit, 0.0)
    could = np.where(enough, freed * time / max(elapsed_s, 1e-9), 0.0) + outlived
    share = np.divide(outlived, could, out=np.zeros(len(freed)), where=could > 0)
    loss = _per_second(outlived, time)
    recent = _per_second(young, np.exp2(recent_until + LIFETIME_SHIFT) / 1e9 - limit)
    loss = np.where(outlived >= LEAST_OUTLIVED, np.minimum(loss, RECENT_SLACK * recent), 0.0)
    return Survival(
        np.where(enough, np.minimum(np.exp2(usual + 1 + LIFETIME_SHIFT) / 1e9, max(elapsed_s, 0.0)), np.nan),
        np.where(enough, _median(died, freed), np.nan), outlived.astype(np.int64), share, _wilson(share, could),
        young.astype(np.int64), loss * mean_size,
        np.divide(freed, allocated, out=np.zeros(len(freed)), where=allocated > 0),
    )


def _usual(died: np.ndarray, living: np.ndarray, freed: np.ndarray) -> np.ndarray:
    """Return the last bucket that blocks of each site usually die in, i64 (n,)."""
    most = (np.cumsum(died, axis=1) >= USUAL_SHARE * freed[:, None]).argmax(axis=1)
    died_later, reached = _from_here(died), _from_here(died + living)
    old = (died_later >= LEAST_OLD_FREED) & (died_later >= OLD_ARE_FREED * reached)
    last = np.where(old.any(axis=1), LIFETIME_BUCKETS - 1 - old[:, ::-1].argmax(axis=1), 0)
    return np.asarray(np.maximum(most, last))


def _from_here(histogram: np.ndarray) -> np.ndarray:
    """Return how many are in each bucket or a later one."""
    return np.asarray(np.cumsum(histogram[:, ::-1], axis=1)[:, ::-1])


def _median(died: np.ndarray, freed: np.ndarray) -> np.ndarray:
    """Return the age in s that half of the freed reached, as if a bucket's were spread evenly over its power of two."""
    reached = np.cumsum(died, axis=1)
    at = (reached >= freed[:, None] / 2).argmax(axis=1)[:, None]
    inside = np.take_along_axis(died, at, 1)[:, 0]
    before = np.take_along_axis(reached, at, 1)[:, 0] - inside
    part = np.divide(freed / 2 - before, inside, out=np.zeros(len(freed)), where=inside > 0)
    return np.asarray(np.exp2(at[:, 0] + part + LIFETIME_SHIFT) / 1e9)


def _per_second(blocks: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    return np.asarray(np.divide(blocks, seconds, out=np.zeros(len(blocks)), where=seconds > 0))


def _wilson(share: np.ndarray, trials: np.ndarray) -> np.ndarray:
    """Return the lower end of Wilson's score interval of a share, 0 without trials."""
    trials = np.maximum(trials, 1e-9)
    square = TWO_SIDED_95**2
    middle = share + square / (2 * trials)
    spread = TWO_SIDED_95 * np.sqrt(share * (1 - share) / trials + square / (4 * trials * trials))
    return np.asarray(np.where(share > 0, np.maximum((middle - spread) / (1 + square / trials), 0.0), 0.0))


def bucket_of(ages_ns: np.ndarray) -> np.ndarray:
    """Return the bucket of each age, u64 (m,) in ns: u8 (m,), as lifetime_bucket() of bpf/ledger.c."""
    # A double's exponent is that power. What is too large for its digits is in the last bucket anyway.
    powers = (ages_ns.astype(np.float64).view(np.int64) >> _MANTISSA_BITS) - _EXPONENT_BIAS
    return np.asarray(np.clip(powers - LIFETIME_SHIFT, 0, LIFETIME_BUCKETS - 1), np.uint8)


def histogram(rows: np.ndarray, ages_ns: np.ndarray, weights: np.ndarray, n: int) -> np.ndarray:
    """Return how many blocks of each of n sites are in each bucket, u64 (n, 32).

    rows: (m,), the site of each block. ages_ns: u64 (m,). weights: (m,), how many blocks each stands for.
    """
    cells = rows.astype(np.int64) * LIFETIME_BUCKETS + bucket_of(ages_ns)
    counted = np.bincount(cells, weights=weights, minlength=n * LIFETIME_BUCKETS)
    return counted.astype(np.uint64).reshape(n, LIFETIME_BUCKETS)
