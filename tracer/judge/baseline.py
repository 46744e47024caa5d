"""A report saved before, against which a run is judged: what is new, and what has grown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from symbolizer.frame import Frame, Why
from tracer.errors import UsageError
from tracer.judge.fingerprint import fingerprint

SCHEMA = "leaktrace/1"
# Counters are 64 bits wide.
_LARGEST = 1 << 63
_REMEDY = "Save a report of a run that is known to be good as JSON, and give that file."

_T = TypeVar("_T")


class Change(StrEnum):
    """How a site differs from the baseline."""

    NEW = "new"
    GROWN = "grown"


@dataclass(frozen=True, slots=True)
class Growth:
    """A site that holds more than the baseline knows: what it holds now, and by how much that is more.

    A gain can be negative where the other figure has grown: more blocks, fewer bytes.
    """

    fingerprint: str
    change: Change
    bytes: int
    count: int
    gained_bytes: int
    gained_count: int


@dataclass(frozen=True, slots=True)
class Baseline:
    """Bytes and blocks per fingerprint. complete: whether the saved measurement was.

    unlisted_count: live blocks that the report counts in its totals and lists at no site, as with `--top`; their sites
    will look new.
    """

    sites: Mapping[str, tuple[int, int]]
    source: str
    complete: bool
    unlisted_count: int

    @classmethod
    def parse(cls, text: str, source: str) -> Baseline:
        """Read the last whole report of a file: one document per line, a single one over many lines, or a list.

        A last line that was cut off is passed over, if there is a report before it.
        """
        document = _Value(_last_document(text, source), source, "the report")
        schema = document.key("schema").value
        if schema != SCHEMA:
            document.refuse(f"has the schema {_short(schema)}, not {SCHEMA}")
        rows = [
            (fingerprint(site.key("frames").frames()), site.key("bytes").number(), site.key("count").number())
            for site in document.key("sites").items()
        ]
        live = document.key("totals").key("live_count").number()
        listed = sum(count for _, _, count in rows)
        return cls(summed(rows), source, document.key("complete").of(bool), max(0, live - listed))


def summed(rows: Iterable[tuple[str, int, int]]) -> dict[str, tuple[int, int]]:
    """Return bytes and blocks per fingerprint, from rows of fingerprint, bytes and blocks."""
    sums: dict[str, tuple[int, int]] = {}
    for site, size, count in rows:
        before = sums.get(site, (0, 0))
        sums[site] = (before[0] + size, before[1] + count)
    return sums


def new_or_grown(baseline: Baseline, now: Mapping[str, tuple[int, int]]) -> tuple[Growth, ...]:
    """Return the sites that the baseline does not have or that hold more bytes or blocks than there, most gained first.

    now: bytes and blocks per fingerprint, as summed() returns them. Holding nothing is not new.
    """
    rows = []
    for site, (size, count) in now.items():
        known = baseline.sites.get(site)
        if known is None:
            if size > 0 or count > 0:
                rows.append(Growth(site, Change.NEW, size, count, size, count))
        elif size > known[0] or count > known[1]:
            rows.append(Growth(site, Change.GROWN, size, count, size - known[0], count - known[1]))
    return tuple(sorted(rows, key=lambda row: (-row.gained_bytes, -row.gained_count, row.fingerprint)))


def _last_document(text: str, source: str) -> object:
    lines = [line for line in text.split("\n") if line.strip()]
    if not lines:
        raise UsageError(f"The baseline {source} is empty.", _REMEDY)
    found = _whole(text)
    if isinstance(found, list) and found:
        return found[-1]
    if found is not None:
        return found
    for line in reversed(lines[-2:]):
        found = _whole(line)
        if found is not None:
            return found
    raise UsageError(f"The baseline {source} is not JSON.", _REMEDY)


def _whole(text: str) -> object:
    try:
        return json.loads(text, parse_constant=_no_constant)
    # Deep nesting; a number of more digits than int() takes is a ValueError like all else.
    except (ValueError, RecursionError):
        return None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _short(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    # repr() of a large number raises.
    text = "a large number" if isinstance(value, int) and abs(value) >= _LARGEST else repr(value)
    return text if len(text) <= 40 else text[:37] + "..."


@dataclass(frozen=True, slots=True)
class _Value:
    """A piece of a document from outside, which says where it is when it is not what it should be."""

    value: Any
    source: str
    place: str

    def refuse(self, what: str) -> NoReturn:
        raise UsageError(f"The baseline {self.source} is not a report of leaktrace: {self.place} {what}.", _REMEDY)

    def of(self, kind: type[_T]) -> _T:
        # bool is an int, and is not meant where one is asked for.
        if type(self.value) is not kind:
            self.refuse(f"is {_short(self.value)}, not of type {kind.__name__}")
        return self.value

    def key(self, name: str) -> _Value:
        if name not in self.of(dict):
            self.refuse(f"has no {name!r}")
        return _Value(self.value[name], self.source, f"{self.place}'s {name}" if self.place else name)

    def items(self) -> list[_Value]:
        return [_Value(item, self.source, f"{self.place}[{index}]") for index, item in enumerate(self.of(list))]

    def number(self) -> int:
        if abs(self.of(int)) >= _LARGEST:
            self.refuse("is a number of more than 64 bits")
        return max(0, self.of(int))

    def optional(self, name: str, kind: type[_T]) -> _T | None:
        """Return a key's value; keys that later versions added are not in older reports."""
        if self.of(dict).get(name) is None:
            return None
        return self.key(name).of(kind)

    def frames(self) -> tuple[Frame, ...]:
        return tuple(item.frame() for item in self.items())

    def frame(self) -> Frame:
        for name in ("function", "module"):
            self.key(name)
        function = self.optional("function", str)
        return Frame(
            self.key("address").address(),
            function=function,
            module=self.optional("module", str),
            file=self.optional("file", str),
            line=self.optional("line", int),
            inlined=bool(self.optional("inlined", bool)),
            why=self.key("why").why() if function is None else None,
            repeats=self.optional("repeats", int) or 1,
        )

    def address(self) -> int:
        text = self.of(str)
        if len(text) <= 18 and text.startswith("0x"):
            try:
                return int(text, 16)
            except ValueError:
                pass
        self.refuse(f"is {_short(text)}, not a hexadecimal address")

    def why(self) -> Why:
        try:
            return Why(self.of(str))
        except ValueError:
            self.refuse(f"is {_short(self.value)}, which this version does not know")
