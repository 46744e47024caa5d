"""What the view shows of a trace: columns of all sites as of the last report, their order, filter and zero line."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from tracer.live.curves import Curves, places
from tracer.live.query import Known, Word, know, parse
from tracer.report.model import Finding, Report
from tracer.report.site_table import VERDICTS, SiteTable

#: What sites can be sorted by: the largest first.
SORTS = ("bytes", "count", "growth", "loss", "age")
#: Seconds that are spent at once on finding out what sites are called, for a query.
PATIENCE = 0.01


@dataclass(frozen=True, slots=True)
class Zero:
    """Where counting began again: seconds since the trace began, and what every site had then."""

    elapsed_s: float
    key: np.ndarray
    figures: np.ndarray


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """Of all n sites, since the zero line if there is one: bytes, blocks i64 (n,), growth in bytes/s f64 (n,).

    allocated: bytes and blocks that were allocated, and blocks that were freed, i64 (3, n).
    """

    bytes: np.ndarray
    count: np.ndarray
    growth: np.ndarray
    allocated: np.ndarray


class Board:
    """State of the view without a screen."""

    def __init__(self) -> None:
        self.report: Report | None = None
        self.sort, self.reverse = "loss", False
        self.words: tuple[Word, ...] = ()
        self.zero: Zero | None = None
        self.curves = Curves()
        self.figures = _figures(None, None, 0.0)
        #: Rows of the table that are shown, in their order.
        self.rows = np.zeros(0, np.int64)
        self._known: dict[int, Known] = {}
        #: By row, whether the words apply, as far as they do not ask for the verdict: (words, n), -1 not known yet.
        self._applies = np.zeros((0, 0), np.int8)
        self._of_keys = np.zeros(0, np.uint64)

    @property
    def sites(self) -> SiteTable | None:
        """The table of the last report."""
        return self.report.sites if self.report is not None else None

    def take(self, report: Report) -> None:
        """Show another report."""
        sites = report.sites
        if sites is None:
            raise ValueError("the report has no table of its sites")
        self.report = report
        self.curves.add(sites.key, sites.bytes)
        self._count()

    def begin_anew(self) -> None:
        """Count from now on only."""
        if self.report is None or self.sites is None:
            return
        sites = self.sites
        self.zero = Zero(self.report.elapsed_s, sites.key.copy(), _totals(sites))
        self.curves.clear()
        self.curves.values[:, -1] = sites.bytes
        self._count()

    def count_all(self) -> None:
        """Count from the beginning again."""
        self.zero = None
        self._count()

    def sort_by(self, column: str) -> None:
        """Sort by a column of SORTS, or turn the order round if it is the one."""
        self.reverse = column == self.sort and not self.reverse
        self.sort = column
        self.arrange()

    def filter(self, text: str) -> None:
        """Show only what the words of a text apply to."""
        self.words = parse(text)
        self._applies = np.full((len(self.words), len(self._of_keys)), -1, np.int8)
        self.arrange()

    def known(self, row: int) -> Known:
        """Return what the site of a row is called."""
        assert self.sites is not None
        key = int(self.sites.key[row])
        found = self._known.get(key)
        if found is None or not found.complete:
            finding = self._find(row, 0)
            if finding is not None:
                found = self._known[key] = know(finding)
        return found or know_nothing()

    def finding(self, row: int) -> Finding | None:
        """Return all that is said of a row; None where that has just gone, as the next report is being made."""
        return self._find(row, self.rank(row))

    def _find(self, row: int, rank: int) -> Finding | None:
        assert self.sites is not None
        try:
            return self.sites.finding(row, rank)
        except KeyError:
            # Names are kept by the trace, which runs on beside the screen and may begin with new ones.
            return None

    def rank(self, row: int) -> int:
        """Return the place of a row among those that are shown, from 1; 0 if it is not."""
        found = np.flatnonzero(self.rows == row)
        return int(found[0]) + 1 if len(found) else 0

    def row_of(self, key: int) -> int | None:
        """Return the row of a site."""
        if self.sites is None:
            return None
        found = np.flatnonzero(self.sites.key == np.uint64(key))
        return int(found[0]) if len(found) else None

    def arrange(self) -> bool:
        """Put the rows in order; return whether sites are still to be looked at for the filter."""
        sites = self.sites
        if sites is None:
            return False
        unknown = self._look_at_names(sites)
        shown = self._shown(sites)
        for each, word in enumerate(self.words):
            applies = self._applies[each] == 1
            if codes := word.verdicts():
                applies = applies | np.isin(sites.verdict, codes)
            shown &= applies
        rows = np.flatnonzero(shown)
        values = np.nan_to_num(self._values(sites)[rows], nan=-np.inf)
        # Where the sort is no help, the larger comes first; the key, so that equal ones do not jump.
        order = np.lexsort((sites.key[rows], -self.figures.bytes[rows], values if self.reverse else -values))
        self.rows = rows[order]
        return unknown

    def _shown(self, sites: SiteTable) -> np.ndarray:
        since_zero = self.zero is not None
        held, count = (self.figures.bytes, self.figures.count) if since_zero else (sites.bytes, sites.count)
        found: np.ndarray = (held != 0) | (count != 0)
        return found

    def _values(self, sites: SiteTable) -> np.ndarray:
        found: np.ndarray = {
            "bytes": self.figures.bytes, "count": self.figures.count, "growth": self.figures.growth,
            "loss": sites.expected_loss, "age": sites.oldest_s}[self.sort].astype(float)
        return found

    def _count(self) -> None:
        assert self.report is not None and self.sites is not None
        self.figures = _figures(self.sites, self.zero, self.report.elapsed_s)
        self.arrange()

    def _look_at_names(self, sites: SiteTable) -> bool:
        """See which sites the words apply to, for as long as there is patience; return whether some are left."""
        if not np.array_equal(sites.key, self._of_keys):
            applies = np.full((len(self.words), len(sites)), -1, np.int8)
            now, before = places(sites.key, self._of_keys)
            applies[:, now] = self._applies[:, before]
            self._applies, self._of_keys = applies, sites.key.copy()
        if not self.words:
            return False
        until = time.monotonic() + PATIENCE
        left = np.flatnonzero((self._applies < 0).any(axis=0)).tolist()
        for row in left:
            known = self.known(row)
            self._applies[:, row] = [word.matches(known) for word in self.words]
            if time.monotonic() > until:
                return bool((self._applies < 0).any())
        return False


def know_nothing() -> Known:
    """Return what is said of a site whose names are not there."""
    return Known("…", "", "", {}, False)


def verdict(sites: SiteTable, row: int) -> str:
    """Return the verdict on a row, empty where there is none."""
    return VERDICTS[int(sites.verdict[row])] or ""


def _totals(sites: SiteTable) -> np.ndarray:
    return np.stack([sites.bytes, sites.count, sites.allocated_bytes, sites.allocated_count, sites.freed_count])


def _figures(sites: SiteTable | None, zero: Zero | None, elapsed_s: float) -> Figures:
    if sites is None:
        nothing = np.zeros(0, np.int64)
        return Figures(nothing, nothing, np.zeros(0), np.zeros((3, 0), np.int64))
    totals, growth = _totals(sites), sites.growth
    if zero is not None:
        now, then = places(sites.key, zero.key)
        totals = totals.copy()
        totals[:, now] -= zero.figures[:, then]
        passed = elapsed_s - zero.elapsed_s
        growth = totals[0] / passed if passed > 0 else np.full(len(sites), np.nan)
    return Figures(totals[0], totals[1], growth, totals[2:])
