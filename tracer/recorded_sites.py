"""The table of every site at one moment of a recording, made of its figures and of what is said of the sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from symbolizer.frame import Frame
from tracer.ages import fine
from tracer.columns import Figures
from tracer.recorder import DETAILED
from tracer.report.model import Finding
from tracer.report.site_table import VERDICTS, SiteTable
from tracer.untrusted import safe


@dataclass(frozen=True, slots=True, eq=False)
class MomentOfSites:
    """What is known of all n sites at one moment, by number.

    before: figures of the report before, which was seconds ago; None and 0 where there is none. clock_ms: when ages
    were taken. first: the first sites in the order of the trace. details: what was said last of sites. current: those
    of which that is not older than the figures. frames: of a site.
    """

    figures: Figures
    before: Figures | None
    seconds: float
    clock_ms: int
    first: Sequence[int]
    details: Mapping[int, Any]
    current: set[int]
    frames: Callable[[int], tuple[Frame, ...]]

    def table(self, sort: str, as_recorded: bool) -> SiteTable:
        """Return the table in an order (judge.ranking); as_recorded: it is that of the trace."""
        figures, count = self.figures, len(self.figures.count)
        gained = np.full((2, count), np.nan)
        if self.before is not None and self.seconds > 0:
            earlier = self.before.extended(count)
            gained = np.array([figures.bytes - earlier.bytes, figures.count - earlier.count], float)
        growth = gained[0] / self.seconds if self.seconds > 0 else gained[0]
        codes = np.where((figures.verdict >= 0) & (figures.verdict < len(VERDICTS)), figures.verdict, 0)
        oldest, loss, slope = self._floats()

        def finding(row: int, rank: int) -> Finding:
            said: dict[str, Any] = {"pid": 0, "error": None}
            if (detail := self.details.get(row)) is not None:
                said = {name: safe(getattr(detail, name)) for name in type(detail).__struct_fields__}
            verdict = VERDICTS[int(codes[row])]
            return Finding(**said | dict(
                rank=rank, bytes=int(figures.bytes[row]), count=int(figures.count[row]),
                allocated_bytes=int(figures.allocated_bytes[row]), allocated_count=int(figures.allocated_count[row]),
                freed_count=int(figures.freed_count[row]), oldest_s=_rounded(oldest[row]),
                growth_bytes_per_s=_rounded(growth[row]), gained_bytes=_whole(gained[0, row]),
                gained_count=_whole(gained[1, row]), frames=self.frames(row), verdict=verdict,
                expected_loss=_rounded(loss[row]) if verdict else None))

        return SiteTable(
            np.arange(count, dtype=np.uint64), figures.bytes, figures.count, figures.allocated_bytes,
            figures.allocated_count, figures.freed_count, oldest, growth, codes.astype(np.uint8), loss, slope,
            self._order(loss, sort, as_recorded), finding)

    def _floats(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return ages in s, NaN where they are not known, expected losses and slopes in bytes/s, each f64 (n,)."""
        figures = self.figures
        known = (figures.count != 0) & (figures.born_ms >= 0)
        oldest = np.where(known, np.maximum(self.clock_ms - figures.born_ms.astype(float), 0) / 1000, np.nan)
        loss, slope = fine(figures.expected_loss).astype(float), np.zeros(len(figures.count))
        for row, detail in self.details.items():
            slope[row] = detail.slope[0] if detail.slope else 0.0
            if row in self.current and figures.count[row]:
                # Exact, where figures are coarse.
                loss[row] = loss[row] if detail.expected_loss is None else detail.expected_loss
                oldest[row] = np.nan if detail.oldest_s is None else detail.oldest_s
        return oldest, loss, slope

    def _order(self, loss: np.ndarray, sort: str, as_recorded: bool) -> np.ndarray:
        """Return the rows that hold anything, best first; of equal ones, that which was first when recorded."""
        figures = self.figures
        place = np.full(len(figures.count), len(self.first))
        place[list(self.first)] = np.arange(len(self.first))
        keys = {"loss": (loss, figures.bytes, figures.count), "count": (figures.count, figures.bytes)}.get(
            sort, (figures.bytes, figures.count))
        by = [place, *(-key for key in reversed(keys))]
        if as_recorded and len(self.first) >= min(DETAILED, int((figures.count > 0).sum())):
            # These come first, in an order that has more digits than are kept.
            by = [*by, place]
        order = np.lexsort(by)
        return np.asarray(order[figures.count[order] > 0])


def _rounded(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None
