"""When the oldest living blocks of sites were allocated, as a recording has it; and figures in few bits."""

from __future__ import annotations

import numpy as np

from tracer.report.site_table import SiteTable

#: Of a figure that is kept coarsely: so many bits behind the first, so that it is off by 3.2 % at most.
_BITS = 4


def clock_of(sites: SiteTable, steady: np.ndarray, born_ms: np.ndarray, elapsed_s: float) -> int:
    """Return when the ages of a table were taken, in ms since the trace began: some time behind the report's start.

    It is the time at which blocks that lived before were allocated when they were. steady: bool (n,), the rows that
    freed nothing since. born_ms: i64 (n,), when the oldest of each was allocated as of the report before.
    """
    same = steady & (sites.count > 0) & np.isfinite(sites.oldest_s) & (born_ms >= 0)
    if not same.any():
        return round(elapsed_s * 1000)
    return round(float(np.median(born_ms[same] + sites.oldest_s[same] * 1000)))


def births(sites: SiteTable, before: np.ndarray, clock_ms: int) -> np.ndarray:
    """Return when the oldest block of each row was allocated, i64 (n,), -1 where that is not known.

    What differs from before by a rounding only is as before, and what holds nothing keeps what it had.
    """
    known = np.isfinite(sites.oldest_s)
    born = np.maximum(np.rint(clock_ms - np.where(known, sites.oldest_s, 0) * 1000), 0).astype(np.int64)
    born = np.where((np.abs(born - before) <= 1) & (before >= 0), before, born)
    return np.asarray(np.where(sites.count == 0, before, np.where(known, born, -1)))


def coarse(values: np.ndarray) -> np.ndarray:
    """Return codes of values, i64 (n,) from 0: exact ones below 32, then steps of 3 to 6 %."""
    bits = np.frexp(values.astype(float))[1].astype(np.int64)
    shift = np.maximum(bits - (_BITS + 1), 0)
    return np.asarray((shift << _BITS) + (values >> shift))


def fine(codes: np.ndarray) -> np.ndarray:
    """Return the values that codes stand for, each in the middle of its step; of no code, something."""
    shift = np.clip((codes >> _BITS) - 1, 0, 62 - _BITS)
    return np.asarray(((codes - (shift << _BITS)) << shift) + ((1 << shift) >> 1))
