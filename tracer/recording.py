"""Reads a recording: its reports again, and how every site developed. Needs neither root nor the traced machine."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from math import isfinite
from typing import Any, TypeVar

import msgspec
import numpy as np

from symbolizer.frame import Frame
from tracer.columns import Figures, State
from tracer.errors import UsageError
from tracer.recorded_sites import MomentOfSites
from tracer.recorder import DETAILS, FACTS, FIGURES, MAPS, MOMENT, SITES, Detail, Facts, NewSites, Stored
from tracer.report.model import AddressMap, MappedFile, Report, Target
from tracer.store import Reader
from tracer.store import Stored as Chunk
from tracer.untrusted import require_finite, safe

_T = TypeVar("_T")
#: Sites of one file, and sites times moments; a hostile file could ask for any amount of memory and time. These are
#: 10,000 sites every 5 s for a week.
MOST_SITES, MOST_FIGURES = 1 << 21, 1 << 31
#: Bytes when unpacked of all that is kept in memory; and of all but figures, more only by how much is stored.
MOST_KEPT, MOST_SAID, MOST_RATIO = 1 << 27, 1 << 28, 100
#: Bytes of all figures of one site at one moment.
LARGEST_FIGURES = 64
#: Sites times moments of one development.
MOST_DRAWN = 1 << 24
#: Seconds that a trace may take: 30 years.
_LONGEST = 1e9
#: Seconds between two reports, at least.
_SHORTEST = 1e-6


class _Elapsed(msgspec.Struct):
    elapsed_s: float


class _Brief(msgspec.Struct):
    """What of a moment is needed at once."""

    clock_ms: int
    moment: _Elapsed


@dataclass(frozen=True, slots=True)
class _Moment:
    """One stored moment: how many sites were known by then, and what was packed for it."""

    elapsed_s: float
    clock_ms: int
    sites: int
    details: tuple[Chunk, ...]
    figures: Chunk
    moment: Chunk


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """How sites developed: times in s since the trace began, f64 (t,); bytes and blocks of each site, i64 (n, t)."""

    times: np.ndarray
    bytes: np.ndarray
    count: np.ndarray


class Recording:
    """The content of one file. truncated: it ends in the middle of something; all before it is here.

    What is asked for raises UsageError where it turns out then that the file is damaged.
    """

    def __init__(self, reader: Reader) -> None:
        """Read everything but what the figures were. Raises UsageError where it is no recording, or damaged."""
        self._reader = reader
        self._frames: list[Frame] = []
        self._stacks: list[tuple[int, ...]] = []
        self._maps: list[tuple[MappedFile, ...]] = []
        self._moments: list[_Moment] = []
        self._packed = self._unpacked = self._kept = 0
        self._at: tuple[int, State] = (-1, State.start())
        self._told: tuple[int, dict[int, tuple[int, Any]]] = (-1, {})
        facts, pending = self._read()
        if facts is None or not self._moments:
            raise UsageError(f"{reader.name} has no report in it.", "The trace was ended before its first report.")
        self.facts = facts
        self.truncated = reader.truncated or pending
        # Sites of a report that is not whole are in none.
        del self._stacks[self._moments[-1].sites :]
        self._times = [moment.elapsed_s for moment in self._moments]

    def _read(self) -> tuple[Facts | None, bool]:
        """Read all chunks; return what the recording is of, and whether some came behind the last moment."""
        facts: Facts | None = None
        details: list[Chunk] = []
        figures: Chunk | None = None
        pending = False
        for chunk in self._reader:
            pending = chunk.kind != MOMENT
            if chunk.kind != FIGURES:
                self._count(chunk)
            if chunk.kind == FACTS:
                facts, pending = self._parse(chunk, Facts), False
            elif chunk.kind == SITES:
                self._add_sites(self._parse(chunk, NewSites))
            elif chunk.kind == MAPS:
                self._maps += self._parse(chunk, tuple[tuple[MappedFile, ...], ...])
            elif chunk.kind == DETAILS:
                details.append(chunk)
            elif chunk.kind == FIGURES:
                figures = chunk
            elif chunk.kind == MOMENT and figures is not None:
                self._add_moment(chunk, tuple(details), figures)
                details, figures = [], None
            else:
                raise self._reader.damaged("a part of it is of no kind that there is")
        return facts, pending

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
        return list(self._times)

    def at(self, seconds: float) -> int:
        """Return the number of the last report that was made by then, 0 if there was none."""
        return max(0, bisect_right(self._times, seconds) - 1)

    @property
    def sites(self) -> int:
        """Return how many sites there are."""
        return len(self._stacks)

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
        before = self._state(number - 1).figures if number else None
        figures = self._state(number).figures
        stored = self._stored(number)
        table = self._moment_of_sites(number, stored, figures, before).table(
            sort, sort == self.facts.settings.get("sort", "loss"))
        findings = table.findings(top)
        place = {row: rank for rank, row in enumerate(table.order[:top].tolist(), 1)}
        targets = tuple([_by_rank(target, place) for target in stored.moment.targets])
        fields = {name: getattr(stored.moment, name) for name in type(stored.moment).__struct_fields__}
        return Report(**fields | {"targets": targets}, taken=datetime.fromisoformat(stored.taken), findings=findings,
                      mappings=tuple([AddressMap(pid, self._maps[files]) for pid, files in stored.maps]), sites=table)

    def reports(self, top: int | None = None, sort: str = "loss") -> Iterator[Report]:
        """Yield all reports in their order."""
        for number in range(len(self)):
            yield self.report(number, top, sort)

    def series(self) -> Series:
        """Return the development of every site; of very many reports, of some at equal distances and the last."""
        sites = len(self._stacks)
        step = -(-sites * len(self) // MOST_DRAWN) or 1
        kept = range(len(self))[::-step][::-1]
        held, count = np.zeros((sites, len(kept)), np.int64), np.zeros((sites, len(kept)), np.int64)
        for column, number in enumerate(kept):
            figures = self._state(number).figures
            held[: len(figures.bytes), column], count[: len(figures.count), column] = figures.bytes, figures.count
        return Series(np.array([self._times[number] for number in kept]), held, count)

    def _state(self, number: int) -> State:
        """Return the state at a moment; moments in their order are each decoded once."""
        at, state = self._at
        if number < at:
            at, state = -1, State.start()
        for moment in self._moments[at + 1 : number + 1]:
            content = self._reader.unpack(moment.figures)
            try:
                state = state.decode(content, moment.sites, moment.clock_ms)
            except ValueError as problem:
                raise self._reader.damaged(str(problem)) from None
        self._at = number, state
        return state

    def _details(self, number: int) -> dict[int, tuple[int, Any]]:
        """Return what is said of sites: in which report it was said last, and what; kept as figures are."""
        at, told = self._told
        if number < at:
            at, told = -1, {}
        for each in range(at + 1, number + 1):
            for chunk in self._moments[each].details:
                for site, detail in self._parse(chunk, tuple[tuple[int, Detail], ...]):
                    if not (0 <= site < self._moments[each].sites and abs(detail.pid) < 1 << 31):
                        raise self._reader.damaged("a site is not there")
                    told[site] = each, detail
        self._told = number, told
        return told

    def _stored(self, number: int) -> Stored:
        """Return what is stored of a moment, checked."""
        stored = self._parse(self._moments[number].moment, Stored)
        taken = None
        with suppress(ValueError):
            taken = datetime.fromisoformat(stored.taken)
        if taken is None or taken.tzinfo is None:
            raise self._reader.damaged("a time is none")
        if len(set(stored.first)) < len(stored.first) or any(
                not 0 <= site < self._moments[number].sites for site in stored.first):
            raise self._reader.damaged("a site is not there")
        if any(not 0 <= files < len(self._maps) for _, files in stored.maps):
            raise self._reader.damaged("a map is not there")
        for target in stored.moment.targets:
            try:
                os.waitstatus_to_exitcode(target.status or 0)
            except (ValueError, OverflowError):
                raise self._reader.damaged("a process ended as none can") from None
        return stored

    def _seconds(self, number: int, stored: Stored) -> float:
        """Return the time in which a report's gains came, 0 where there is no report before."""
        if number and stored.since_s is not None and _SHORTEST <= stored.since_s < _LONGEST:
            return stored.since_s
        return self._times[number] - self._times[number - 1] if number else 0.0

    def _moment_of_sites(self, number: int, stored: Stored, figures: Figures, before: Figures | None) -> MomentOfSites:
        told = self._details(number)
        details = {site: detail for site, (_, detail) in told.items()}
        current = set(details) if stored.moment.last else {
            *stored.first, *(site for site, (said_at, _) in told.items() if said_at == number)}
        return MomentOfSites(figures, before, self._seconds(number, stored), stored.clock_ms, stored.first, details,
                             current, self.frames)

    def _parse(self, chunk: Chunk, kind: type[_T]) -> _T:
        """Return the content of a chunk, with all its texts safe to show."""
        content = self._reader.unpack(chunk)
        try:
            found = msgspec.msgpack.decode(content, type=kind)
            if chunk.kind == MOMENT:
                require_finite(found)
            # What is said of sites is made safe when somebody looks at it.
            return found if chunk.kind == DETAILS else safe(found)
        except (msgspec.MsgspecError, ValueError, RecursionError, OverflowError) as problem:
            said = str(problem)[:100].encode("ascii", "backslashreplace").decode()
            raise self._reader.damaged(said or "its content is none") from None
        except MemoryError:
            raise self._reader.damaged("a part of it needs more memory than there is") from None

    def _count(self, chunk: Chunk) -> None:
        """Raise UsageError where so much is said that reading it would never end."""
        self._packed, self._unpacked = self._packed + len(chunk.packed), self._unpacked + chunk.size
        if chunk.kind in (FACTS, SITES, MAPS):
            self._kept += chunk.size
        if self._kept > MOST_KEPT or self._unpacked > MOST_SAID + MOST_RATIO * self._packed:
            raise self._reader.damaged("it says more than any trace")

    def _add_sites(self, new: NewSites) -> None:
        for frame in new.frames:
            if not (0 <= frame.address < 1 << 64 and 0 <= (frame.line or 0) < 1 << 31 and 0 < frame.repeats < 1 << 31):
                raise self._reader.damaged("a frame is none")
        self._frames += new.frames
        known = len(self._frames)
        if any(stack and (min(stack) < 0 or max(stack) >= known) for stack in new.stacks):
            raise self._reader.damaged("a stack has a frame that is not there")
        self._stacks += new.stacks
        if len(self._stacks) > MOST_SITES:
            raise self._reader.damaged("it has more sites than any trace")

    def _add_moment(self, moment: Chunk, details: tuple[Chunk, ...], figures: Chunk) -> None:
        brief = self._parse(moment, _Brief)
        elapsed_s, clock_ms = brief.moment.elapsed_s, brief.clock_ms
        if not (isfinite(elapsed_s) and 0 <= elapsed_s < _LONGEST and 0 <= clock_ms < 1000 * _LONGEST):
            raise self._reader.damaged("a time is none")
        if self._moments and elapsed_s < self._moments[-1].elapsed_s:
            raise self._reader.damaged("time goes back in it")
        sites = len(self._stacks)
        if figures.size > LARGEST_FIGURES * (sites + 1):
            raise self._reader.damaged("it has figures of sites that are not there")
        self._moments.append(_Moment(elapsed_s, clock_ms, sites, details, figures, moment))
        if len(self._moments) * sites > MOST_FIGURES:
            raise self._reader.damaged("it has more figures than any trace")


def load(path: str) -> Recording:
    """Read a recording. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            return Recording(Reader(file, path))
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}.", "Name a recording.") from None


def _by_rank(target: Target, place: dict[int, int]) -> Target:
    """Return a process whose shares have the rank of their site in place of its number, of sites that have one."""
    return replace(target, shares=tuple([replace(share, rank=place[share.rank - 1]) for share in target.shares
                                         if share.rank - 1 in place]))
