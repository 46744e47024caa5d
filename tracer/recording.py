"""Reads a recording: its reports again, and how every site developed. Needs neither root nor the traced machine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import msgspec
import numpy as np

from symbolizer.frame import Frame
from tracer.columns import Figures, decode
from tracer.errors import UsageError
from tracer.recorder import FACTS, SITES, SNAPSHOT, Facts, NewSites, Stored
from tracer.report.model import AddressMap, Finding, Report
from tracer.report.site_table import VERDICTS, SiteTable
from tracer.store import Chunk, Reader

_T = TypeVar("_T")
#: Sites and moments of one file; a hostile one could ask for any amount of memory.
MOST_SITES, MOST_MOMENTS = 1 << 21, 1 << 20


@dataclass(frozen=True, slots=True)
class _Moment:
    """One stored moment, and how many sites were known by then."""

    stored: Stored
    sites: int


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """How sites developed: times in s since the trace began, f64 (t,); bytes and blocks of each site, i64 (n, t)."""

    times: np.ndarray
    bytes: np.ndarray
    count: np.ndarray


class Recording:
    """The content of one file. truncated: it ends in the middle of something; all before it is here."""

    def __init__(self, reader: Reader) -> None:
        """Read everything but what the figures were. Raises UsageError where it is no recording, or damaged."""
        self._reader = reader
        self._frames: list[Frame] = []
        self._stacks: list[tuple[int, ...]] = []
        self._moments: list[_Moment] = []
        self._at: tuple[int, Figures] = (-1, Figures.zero(0))
        facts: Facts | None = None
        for chunk in reader:
            if chunk.kind == FACTS:
                facts = self._parse(chunk, Facts)
            elif chunk.kind == SITES:
                self._add_sites(self._parse(chunk, NewSites))
            elif chunk.kind == SNAPSHOT:
                self._add_moment(self._parse(chunk, Stored))
        if facts is None or not self._moments:
            raise UsageError(f"{reader.name} has no report in it.", "The trace was ended before its first report.")
        self.facts = facts
        self.truncated = reader.truncated

    def __len__(self) -> int:
        """Return how many reports there are."""
        return len(self._moments)

    @property
    def name(self) -> str:
        """Return the name of the file."""
        return self._reader.name

    @property
    def times(self) -> list[float]:
        """Return when each report was made, in seconds since the trace began."""
        return [moment.stored.moment.elapsed_s for moment in self._moments]

    def at(self, seconds: float) -> int:
        """Return the number of the last report that was made by then, 0 if there was none."""
        return max(0, sum(time <= seconds for time in self.times) - 1)

    def frames(self, site: int) -> tuple[Frame, ...]:
        """Return the frames of a site, innermost first."""
        return tuple([self._frames[frame] for frame in self._stacks[site]])

    def rename(self, stacks: Sequence[tuple[Frame, ...]]) -> None:
        """Give every site other frames, in the order of their numbers."""
        numbers: dict[Frame, int] = {}
        self._stacks = [tuple([numbers.setdefault(frame, len(numbers)) for frame in stack]) for stack in stacks]
        self._frames = list(numbers)

    def report(self, number: int = -1, top: int | None = None, sort: str = "loss") -> Report:
        """Return a report, the last by default, with the first top sites (None: all) in an order (judge.ranking)."""
        number = range(len(self))[number]
        before = self._figures(number - 1) if number else None
        figures = self._figures(number)
        moment, details, mappings = self._moments[number].stored.moment, self._details(number), self._mappings(number)
        table = self._table(number, figures, before, details, sort)
        place = {row: rank for rank, row in enumerate(table.order.tolist(), 1)}
        first = self._moments[number].stored.first
        targets = tuple(
            replace(target, shares=tuple(
                replace(share, rank=place.get(first[share.rank - 1], 0)) for share in target.shares
                if 0 < share.rank <= len(first)))
            for target in moment.targets)
        fields = {name: getattr(moment, name) for name in type(moment).__struct_fields__}
        return Report(**fields | {"targets": targets, "mappings": mappings}, findings=table.findings(top), sites=table)

    def reports(self, top: int | None = None, sort: str = "loss") -> Iterator[Report]:
        """Yield all reports in their order."""
        for number in range(len(self)):
            yield self.report(number, top, sort)

    def series(self) -> Series:
        """Return the development of every site."""
        sites, moments = len(self._stacks), len(self)
        held, count = np.zeros((sites, moments), np.int64), np.zeros((sites, moments), np.int64)
        for number in range(moments):
            figures = self._figures(number)
            held[: len(figures.bytes), number], count[: len(figures.count), number] = figures.bytes, figures.count
        return Series(np.array(self.times), held, count)

    def _figures(self, number: int) -> Figures:
        """Return the figures of a moment; moments in their order are each decoded once."""
        at, figures = self._at
        if number < at:
            at, figures = -1, Figures.zero(0)
        for each in range(at + 1, number + 1):
            moment = self._moments[each]
            try:
                figures = decode(figures.extended(moment.sites), moment.stored.columns)
            except ValueError as problem:
                raise self._reader.damaged(str(problem)) from None
        self._at = number, figures
        return figures

    def _details(self, number: int) -> dict[int, Any]:
        found: dict[int, Any] = {}
        for moment in self._moments[: number + 1]:
            found.update(moment.stored.details)
        return found

    def _mappings(self, number: int) -> tuple[AddressMap, ...]:
        for moment in reversed(self._moments[: number + 1]):
            if moment.stored.moment.mappings is not None:
                return tuple(moment.stored.moment.mappings)
        return ()

    def _table(self, number: int, figures: Figures, before: Figures | None, details: dict[int, Any],
               sort: str) -> SiteTable:
        times, count = self.times, len(figures.bytes)
        gained = np.full((2, count), np.nan)
        seconds = times[number] - times[number - 1] if number else 0.0
        if before is not None and seconds > 0:
            earlier = before.extended(count)
            gained = np.array([figures.bytes - earlier.bytes, figures.count - earlier.count], float)
        growth = gained[0] / seconds if seconds > 0 else gained[0]
        oldest = np.where(figures.born_ms >= 0, np.maximum(times[number] - figures.born_ms / 1000, 0), np.nan)
        frames = [self.frames(site) for site in range(count)]

        def finding(row: int, rank: int) -> Finding:
            detail = details.get(row)
            said: dict[str, Any] = {"pid": 0, "error": None}
            if detail is not None:
                said = {name: getattr(detail, name) for name in type(detail).__struct_fields__}
            verdict = _verdict(figures.verdict[row])
            return Finding(
                rank=rank, bytes=int(figures.bytes[row]), count=int(figures.count[row]),
                allocated_bytes=int(figures.allocated_bytes[row]), allocated_count=int(figures.allocated_count[row]),
                freed_count=int(figures.freed_count[row]),
                oldest_s=round(float(oldest[row]), 3) if np.isfinite(oldest[row]) else None,
                growth_bytes_per_s=_rounded(growth[row]), gained_bytes=_whole(gained[0, row]),
                gained_count=_whole(gained[1, row]), frames=frames[row], verdict=verdict,
                expected_loss=float(figures.expected_loss[row]) if verdict else None, **said)

        stored = self._moments[number].stored
        slope = np.zeros(count)
        for row, detail in details.items():
            slope[row] = detail.slope[0] if detail.slope else 0.0
        return SiteTable(
            np.arange(count, dtype=np.uint64), figures.bytes, figures.count, figures.allocated_bytes,
            figures.allocated_count, figures.freed_count, oldest, growth, figures.verdict.astype(np.uint8),
            figures.expected_loss.astype(float), slope, _order(figures, stored.first, sort), finding)

    def _parse(self, chunk: Chunk, kind: type[_T]) -> _T:
        try:
            return msgspec.msgpack.decode(chunk.content, type=kind)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as problem:
            raise self._reader.damaged(f"{str(problem)[:100]}") from None

    def _add_sites(self, new: NewSites) -> None:
        self._frames += new.frames
        if any(not 0 <= frame < len(self._frames) for stack in new.stacks for frame in stack):
            raise self._reader.damaged("a stack has a frame that is not there")
        self._stacks += new.stacks
        if len(self._stacks) > MOST_SITES:
            raise self._reader.damaged("it has more sites than any trace")

    def _add_moment(self, stored: Stored) -> None:
        sites = len(self._stacks)
        if any(not 0 <= site < sites for site in (*stored.first, *(site for site, _ in stored.details))):
            raise self._reader.damaged("a site is not there")
        if len(self._moments) >= MOST_MOMENTS:
            raise self._reader.damaged("it has more reports than any trace")
        if self._moments and stored.moment.elapsed_s < self._moments[-1].stored.moment.elapsed_s:
            raise self._reader.damaged("time goes back in it")
        self._moments.append(_Moment(stored, sites))


def load(path: str) -> Recording:
    """Read a recording. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            return Recording(Reader(file, path))
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}.", "Name a recording.") from None


def _order(figures: Figures, first: Sequence[int], sort: str) -> np.ndarray:
    """Return the rows that hold anything, best first; first: as it was when recorded, of equal ones."""
    count = len(figures.bytes)
    place = np.full(count, len(first))
    place[list(first)] = np.arange(len(first))
    if sort == "loss":
        # The recorded order is by this, with digits that are not kept.
        order = np.lexsort((-figures.count, -figures.bytes, -figures.expected_loss, place))
    elif sort == "count":
        order = np.lexsort((place, -figures.bytes, -figures.count))
    else:
        order = np.lexsort((place, -figures.count, -figures.bytes))
    return np.asarray(order[figures.count[order] > 0])


def _verdict(code: int) -> str | None:
    return VERDICTS[code] if 0 <= code < len(VERDICTS) else None


def _rounded(value: float) -> float | None:
    return round(float(value), 3) if np.isfinite(value) else None


def _whole(value: float) -> int | None:
    return int(value) if np.isfinite(value) else None
