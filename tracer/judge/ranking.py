"""Puts sites in order: what is expected to be lost first, else the largest."""

from __future__ import annotations

import numpy as np

from tracer.collect.snapshot import Snapshot


def rank(snapshot: Snapshot, sort: str, top: int, expected: np.ndarray | None = None) -> np.ndarray:
    """Return the rows of the first top sites that hold anything, by live bytes ("size"), blocks ("count") or "loss".

    expected: f64 (n,), bytes a second that each site is expected to lose; those that lose nothing come behind, by live
    bytes. Equal ones are ordered by the other figure, then by identity, so that an order never depends on chance.
    """
    first, second = snapshot.live_bytes, snapshot.live_count
    if sort == "count":
        first, second = second, first
    if sort == "loss" and expected is not None:
        order = np.lexsort((snapshot.identity, -second, -first, -expected))
    else:
        order = np.lexsort((snapshot.identity, -second, -first))
    return order[(snapshot.live_count[order] > 0)][:top]


def relative_errors(snapshot: Snapshot) -> np.ndarray:
    """Return one standard error of each site's live bytes as a share of them, f64 (n,); 0 without sampling.

    Each live record that stands for w blocks of s bytes was kept with chance 1/w, which adds (w - 1) * w * s^2 to the
    variance of the sum (Horvitz-Thompson estimator for independent trials).
    """
    return np.asarray(np.sqrt(snapshot.variance) / np.maximum(snapshot.live_bytes, 1))
