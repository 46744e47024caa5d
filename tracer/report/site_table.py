"""Every site of one moment, as columns; what is said of one site in words is made when it is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from tracer.report.model import Finding

#: Verdicts by their code in the column; 0 is none.
VERDICTS = (None, "lost", "growing", "steady", "undecided")


@dataclass(frozen=True, slots=True, eq=False)
class SiteTable:
    """All n sites of a report; row i of each column is the same site.

    key: u64 (n,), the same for a site in every report of a trace. bytes, count, allocated_bytes, allocated_count,
    freed_count: i64 (n,). oldest_s: f64 (n,), of living blocks, NaN where it was not looked at. growth: f64 (n,),
    bytes/s since the report before, NaN in the first. verdict: u8 (n,), places in VERDICTS. expected_loss, slope:
    f64 (n,), bytes/s. order: i64, the rows that hold anything, best first. finding: of a row and the rank to give it.
    """

    key: np.ndarray
    bytes: np.ndarray
    count: np.ndarray
    allocated_bytes: np.ndarray
    allocated_count: np.ndarray
    freed_count: np.ndarray
    oldest_s: np.ndarray
    growth: np.ndarray
    verdict: np.ndarray
    expected_loss: np.ndarray
    slope: np.ndarray
    order: np.ndarray
    finding: Callable[[int, int], Finding]

    def __len__(self) -> int:
        return len(self.key)

    def findings(self, most: int | None = None) -> tuple[Finding, ...]:
        """Return the findings of the first rows, best first, ranked from 1; None: of all."""
        return tuple(self.finding(row, rank) for rank, row in enumerate(self.order[:most].tolist(), 1))
