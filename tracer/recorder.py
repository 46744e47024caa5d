"""Writes each report of a trace into a recording: what has come or changed since the one before."""

from __future__ import annotations

import os
import platform
import socket
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, asdict, fields, is_dataclass, replace
from datetime import datetime
from enum import Enum
from itertools import islice
from typing import Any, TypeVar, get_type_hints

import msgspec
import numpy as np

from symbolizer.frame import Frame
from tracer import VERSION
from tracer.ages import births, clock_of, coarse
from tracer.columns import Figures, State
from tracer.report.model import AddressMap, Finding, MappedFile, Report, Share, Target
from tracer.report.site_table import SiteTable
from tracer.store import Chunk, Writer

_T = TypeVar("_T")

#: Sites whose evidence is kept as of every moment; of the others, as of when they came, when their verdict changed, and
#: the end.
DETAILED = 100
#: Sites, and what is said of sites, in one chunk.
_TOGETHER = 4096
#: Kinds of chunks. Of one moment come, as far as there is something new, SITES, MAPS and DETAILS, then its FIGURES and
#: its MOMENT, without which all of that does not count.
FACTS, SITES, MAPS, DETAILS, FIGURES, MOMENT = b"FACT", b"SITE", b"MAPS", b"TELL", b"FIGS", b"TIME"
#: What a report has that is written otherwise.
_ELSEWHERE = {"findings", "sites", "mappings", "taken"}
#: What is in the columns, in the stacks, or depends on what is shown; blocks are too many.
_IN_COLUMNS = {"rank", "bytes", "count", "allocated_bytes", "allocated_count", "freed_count",
               "growth_bytes_per_s", "gained_bytes", "gained_count", "frames", "blocks", "verdict"}


def _struct_of(name: str, model: type, without: set[str]) -> type[msgspec.Struct]:
    """Return a struct with the fields of a dataclass but some; a field that older files lack has its default."""
    hints = get_type_hints(model, localns={"SiteTable": Any})
    made: list[Any] = []
    for field in fields(model):
        if field.name not in without:
            default = () if field.default is MISSING else (field.default,)
            made.append((field.name, hints[field.name], *default))
    return msgspec.defstruct(name, made, frozen=True, omit_defaults=True)


#: A report without its sites; what is said of a site beside its figures and frames.
Moment: Any = _struct_of("Moment", Report, _ELSEWHERE)
Detail: Any = _struct_of("Detail", Finding, _IN_COLUMNS)


class Facts(msgspec.Struct, frozen=True):
    """What a recording is of. command: the command line that made it. settings: by name, as JSON has them."""

    leaktrace: str
    started: datetime
    kernel: str
    machine: str
    host: str
    processors: int
    command: tuple[str, ...]
    settings: dict[str, Any]


class NewSites(msgspec.Struct, frozen=True):
    """Sites that have come, in the order of their numbers; stacks: places in all frames so far, innermost first."""

    frames: tuple[Frame, ...]
    stacks: tuple[tuple[int, ...], ...]


class Stored(msgspec.Struct, frozen=True):
    """One moment. taken: as ISO 8601 has it. clock_ms: when ages were taken, since the trace began. since_s: of what
    growth is a share, None where nothing grew. first: the first sites by rank, by number; a share has the number of its
    site, from 1, in place of the rank. maps: of each process, which of all maps so far it has.
    """

    taken: str
    clock_ms: int
    since_s: float | None
    moment: Moment
    first: tuple[int, ...]
    maps: tuple[tuple[int, int], ...]


class Recorder:
    """Records one trace."""

    def __init__(self, path: str, settings: object, owner: tuple[int, int] | None,
                 started: datetime | None = None, groups: Sequence[int] = ()) -> None:
        """Create the file. owner: user and group it is for, None: who runs this; groups: others of the user.

        Raises OSError.
        """
        self._encode = msgspec.msgpack.Encoder().encode
        facts = Facts(VERSION, started or datetime.now().astimezone(), platform.release(), platform.machine(),
                      socket.gethostname(), os.cpu_count() or 1, tuple(_plain(sys.argv)), _plain(settings))
        self._numbers: dict[int, int] = {}
        #: The keys of the report before, and their numbers.
        self._keys, self._rows = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        self._frames: dict[Frame, int] = {}
        self._state = State.start()
        #: When the oldest block of each site was allocated, as State has it, but exact.
        self._born = np.zeros(0, np.int64)
        self._details: dict[int, Any] = {}
        self._maps: dict[tuple[MappedFile, ...], int] = {}
        self._writer = Writer(path, owner, groups)
        try:
            # As text, a time keeps its zone.
            self._writer.write(self._chunk(FACTS, _plain(msgspec.to_builtins(facts))))
        except OSError:
            self.close()
            raise

    @property
    def size(self) -> int:
        """Return how many bytes the file has."""
        return self._writer.size

    def write(self, report: Report) -> None:
        """Append a report with all its sites.

        Raises OSError; then the file ends with the report before, and nothing more may be written.
        """
        sites = report.sites
        if sites is None:
            raise ValueError("the report has no table of its sites")
        before = len(self._numbers)
        numbers = self._numbers_of(sites.key)
        came = np.flatnonzero(numbers >= before)
        # In the order of their numbers.
        found = {int(row): sites.finding(int(row), 0) for row in came[np.argsort(numbers[came])]}
        earlier = self._state.figures.extended(len(self._numbers))
        figures = _figures(sites, numbers, len(self._numbers))
        clock = self._look_at_ages(sites, numbers, figures, report.elapsed_s)
        packed, state = self._state.encode(figures, clock)
        turned = figures.verdict != earlier.verdict
        wanted = sites.order if report.last else sites.order[:DETAILED]
        rows = (*found, *wanted.tolist(), *np.flatnonzero(turned[numbers]).tolist())
        chunks = [
            *(self._chunk(SITES, self._new_sites(part)) for part in _parts(found.values())),
            *self._new_maps(report.mappings or ()),
            *(self._chunk(DETAILS, part) for part in _parts(self._changed(sites, numbers, found, rows))),
            Chunk(FIGURES, packed),
            self._chunk(MOMENT, self._stored(
                report, numbers, clock, _since(sites, figures.bytes - earlier.bytes, numbers))),
        ]
        self._writer.write(*chunks)
        self._state = state

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _look_at_ages(self, sites: SiteTable, numbers: np.ndarray, figures: Figures, elapsed_s: float) -> int:
        """Fill in when the oldest blocks were allocated; return when ages were taken, in ms since the trace began."""
        earlier = self._state.figures.extended(len(figures.count))
        exact = np.concatenate([self._born, np.full(len(figures.count) - len(self._born), -1)])
        steady = figures.freed_count[numbers] == earlier.freed_count[numbers]
        clock_ms = clock_of(sites, steady, exact[numbers], elapsed_s)
        born = births(sites, exact[numbers], clock_ms)
        # Of what is as it was, what was kept stays.
        figures.born_ms[:] = earlier.born_ms
        figures.born_ms[numbers] = np.where(born == exact[numbers], earlier.born_ms[numbers], born)
        exact[numbers] = born
        self._born = exact
        return clock_ms

    def _numbers_of(self, keys: np.ndarray) -> np.ndarray:
        """Return the number of the site with each key, i64 (n,); those that have come get the next ones."""
        if not np.array_equal(keys, self._keys):
            known = self._numbers
            self._rows = np.array([known.setdefault(key, len(known)) for key in keys.tolist()], np.int64)
            self._keys = keys.copy()
        return self._rows

    def _new_sites(self, findings: Sequence[Finding]) -> NewSites:
        known, frames = len(self._frames), self._frames
        stacks = tuple([tuple([frames.setdefault(frame, len(frames)) for frame in finding.frames])
                        for finding in findings])
        return NewSites(tuple(islice(frames, known, None)), stacks)

    def _new_maps(self, mappings: tuple[AddressMap, ...]) -> Iterator[Chunk]:
        """Give what some process has mapped and none had; seldom anything is loaded, and forks have the same."""
        known = len(self._maps)
        for each in mappings:
            self._maps.setdefault(each.files, len(self._maps))
        if len(self._maps) > known:
            yield self._chunk(MAPS, tuple(islice(self._maps, known, None)))

    def _changed(self, sites: SiteTable, numbers: np.ndarray, found: dict[int, Finding],
                 rows: Iterable[int]) -> list[tuple[int, Any]]:
        """Return what is said now of these rows, by number, where it is not what was said before."""
        changed = []
        for row in dict.fromkeys(rows):
            finding = found.get(row) or sites.finding(row, 0)
            detail = Detail(**{name: getattr(finding, name) for name in Detail.__struct_fields__})
            number = int(numbers[row])
            if self._details.get(number) != detail:
                self._details[number] = detail
                changed.append((number, detail))
        return changed

    def _stored(self, report: Report, numbers: np.ndarray, clock_ms: int, since_s: float | None) -> Stored:
        assert report.sites is not None
        order = report.sites.order
        moment = {name: getattr(report, name) for name in Moment.__struct_fields__}
        moment["targets"] = tuple([_by_number(target, numbers, order) for target in report.targets])
        taken = report.taken if report.taken.tzinfo is not None else report.taken.astimezone()
        maps = tuple([(each.pid, self._maps[each.files]) for each in report.mappings or ()])
        first = tuple(numbers[order[:DETAILED]].tolist())
        return Stored(taken.isoformat(), clock_ms, since_s, Moment(**moment), first, maps)

    def _chunk(self, kind: bytes, content: Any) -> Chunk:
        try:
            return Chunk(kind, self._encode(content))
        except UnicodeEncodeError:
            # A path that is no text, in a note or as a program's name.
            plain = _plain(msgspec.to_builtins(content, builtin_types=(bytes, datetime)))
            return Chunk(kind, self._encode(plain))


def _parts(all_of: Iterable[_T]) -> Iterator[tuple[_T, ...]]:
    """Give these in the number that one chunk may have."""
    rest = iter(all_of)
    while part := tuple(islice(rest, _TOGETHER)):
        yield part


def _by_number(target: Target, numbers: np.ndarray, order: np.ndarray) -> Target:
    """Return a process whose shares have the number of their site, from 1, in place of its rank."""
    if not target.shares:
        return target
    return replace(target, shares=tuple([Share(int(numbers[order[share.rank - 1]]) + 1, share.bytes, share.count)
                                         for share in target.shares if 0 < share.rank <= len(order)]))


def _since(sites: SiteTable, gained: np.ndarray, numbers: np.ndarray) -> float | None:
    """Return the seconds in which bytes were gained, i64 by number; they are not quite those between two reports."""
    growth = np.nan_to_num(sites.growth)
    row = int(np.abs(growth).argmax()) if len(growth) else 0
    if not len(growth) or not growth[row]:
        return None
    return float(gained[numbers[row]] / growth[row])


def _figures(sites: SiteTable, numbers: np.ndarray, count: int) -> Figures:
    """Return the figures of all sites by number, but their ages; what has gone from a report holds nothing."""
    made = Figures.zero(count)
    for name in ("bytes", "count", "allocated_bytes", "allocated_count", "freed_count", "verdict"):
        getattr(made, name)[numbers] = getattr(sites, name)
    made.expected_loss[numbers] = coarse(np.rint(np.nan_to_num(np.maximum(sites.expected_loss, 0))).astype(np.int64))
    return made


def _plain(value: Any) -> Any:
    """Return what a message can hold of any value: text is text, and what is neither text nor number is its text."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Enum):
        return _plain(value.value)
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_plain(name): _plain(each) for name, each in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(each) for each in value]
    return value if isinstance(value, int | float | bytes | datetime | None) else _plain(str(value))
