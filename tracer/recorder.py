"""Writes each report of a trace into a recording: what has come or changed since the one before."""

from __future__ import annotations

import os
import platform
import socket
import sys
from dataclasses import MISSING, asdict, fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any, get_type_hints

import msgspec
import numpy as np

from symbolizer.frame import Frame
from tracer import VERSION
from tracer.columns import Figures, encode
from tracer.report.model import Finding, Report
from tracer.report.site_table import SiteTable
from tracer.store import Chunk, Writer

#: Sites whose evidence is kept as of every moment; of the others, as of when they came and of the end.
DETAILED = 100
FACTS, SITES, SNAPSHOT = b"FACT", b"SITE", b"SNAP"
#: What a report has that is written otherwise.
_ELSEWHERE = {"findings", "sites"}
#: What is in the columns, in the stacks, or depends on what is shown; blocks are too many.
_IN_COLUMNS = {"rank", "bytes", "count", "allocated_bytes", "allocated_count", "freed_count", "oldest_s",
               "growth_bytes_per_s", "gained_bytes", "gained_count", "frames", "blocks", "verdict", "expected_loss"}


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
    """One moment. first: the first sites by rank, by number. columns: of all sites so far, as columns.py has them."""

    moment: Moment
    columns: dict[str, bytes]
    first: tuple[int, ...]
    details: tuple[tuple[int, Detail], ...]


class Recorder:
    """Records one trace."""

    def __init__(self, path: str, settings: object, owner: tuple[int, int] | None,
                 started: datetime | None = None) -> None:
        """Create the file. owner: user and group it is for, None: who runs this. Raises OSError."""
        self._writer = Writer(path, owner)
        self._encode = msgspec.msgpack.Encoder().encode
        self._numbers: dict[int, int] = {}
        self._frames: dict[Frame, int] = {}
        self._figures = Figures.zero(0)
        self._details: dict[int, Any] = {}
        self._mappings: Any = None
        self._writer.write(Chunk(FACTS, self._encode(Facts(
            VERSION, started or datetime.now().astimezone(), platform.release(), platform.machine(),
            socket.gethostname(), os.cpu_count() or 1, tuple(_plain(sys.argv)), _plain(settings)))))

    @property
    def size(self) -> int:
        """Return how many bytes the file has."""
        return self._writer.size

    def write(self, report: Report) -> None:
        """Append a report with all its sites. Raises OSError; then the file ends with the report before."""
        sites = report.sites
        if sites is None:
            raise ValueError("the report has no table of its sites")
        before = len(self._numbers)
        numbers = np.array([self._numbers.setdefault(key, len(self._numbers)) for key in sites.key.tolist()], np.int64)
        came = np.flatnonzero(numbers >= before)
        found = {int(row): sites.finding(int(row), 0) for row in came}
        chunks = [Chunk(SITES, self._encode(self._new_sites([found[int(row)] for row in came])))] if len(came) else []
        figures = _figures(sites, numbers, len(self._numbers), report.elapsed_s)
        first = sites.order[:DETAILED].tolist()
        details = self._changed(sites, numbers, found, sites.order.tolist() if report.last else first)
        moment = {name: getattr(report, name) for name in Moment.__struct_fields__}
        if moment["mappings"] == self._mappings:
            # Seldom anything is loaded: None is as before.
            moment["mappings"] = None
        else:
            self._mappings = moment["mappings"]
        stored = Stored(Moment(**moment), encode(self._figures.extended(len(self._numbers)), figures),
                        tuple(numbers[first].tolist()), details)
        self._writer.write(*chunks, Chunk(SNAPSHOT, self._packed(stored)))
        self._figures = figures

    def close(self) -> None:
        """Close the file."""
        self._writer.close()

    def _new_sites(self, findings: list[Finding]) -> NewSites:
        known, stacks = len(self._frames), []
        for finding in findings:
            stacks.append(tuple([self._frames.setdefault(frame, len(self._frames)) for frame in finding.frames]))
        return NewSites(tuple(list(self._frames)[known:]), tuple(stacks))

    def _changed(self, sites: SiteTable, numbers: np.ndarray, found: dict[int, Finding],
                 rows: list[int]) -> tuple[tuple[int, Any], ...]:
        """Return what is said now of sites that have come and of these rows, where it was not said before."""
        changed = []
        for row in dict.fromkeys((*found, *rows)):
            finding = found.get(row) or sites.finding(row, 0)
            detail = Detail(**{name: getattr(finding, name) for name in Detail.__struct_fields__})
            number = int(numbers[row])
            if self._details.get(number) != detail:
                self._details[number] = detail
                changed.append((number, detail))
        return tuple(changed)

    def _packed(self, stored: Stored) -> bytes:
        try:
            return self._encode(stored)
        except UnicodeEncodeError:
            # A path that is no text, in a note or as a program's name.
            return self._encode(_plain(msgspec.to_builtins(stored, builtin_types=(bytes, datetime))))


def _figures(sites: SiteTable, numbers: np.ndarray, count: int, elapsed_s: float) -> Figures:
    """Return the figures of all sites by number; what has gone from a report holds nothing."""
    made = Figures.zero(count)
    made.born_ms[:] = -1
    for name in ("bytes", "count", "allocated_bytes", "allocated_count", "freed_count", "verdict"):
        getattr(made, name)[numbers] = getattr(sites, name)
    made.expected_loss[numbers] = np.rint(sites.expected_loss).astype(np.int64)
    known = np.isfinite(sites.oldest_s)
    made.born_ms[numbers[known]] = np.maximum(np.rint((elapsed_s - sites.oldest_s[known]) * 1000), 0).astype(np.int64)
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
