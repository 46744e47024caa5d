"""Reads what is compared: recordings, and reports that were saved as JSON (schema leaktrace/1)."""

from __future__ import annotations

from datetime import datetime
from math import isfinite
from typing import Annotated, Any, NoReturn

import msgspec

from symbolizer.frame import Frame, Why
from tracer.errors import UsageError
from tracer.losses import LOSSES
from tracer.recording import load
from tracer.report.diff_model import Side
from tracer.report.model import Finding, LossNote, Report, Target, Totals
from tracer.untrusted import safe

SCHEMA = "leaktrace/1"
#: Bytes of a saved report; 10,000 sites have about 60 MB.
LARGEST = 1 << 30
#: Bytes that tell which a file is.
_BEGIN = 64
_REMEDY = "Give a recording made with --record, or a report saved with --format json."
_Whole = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]


class _Frame(msgspec.Struct):
    address: Annotated[str, msgspec.Meta(pattern="^0x[0-9a-f]{1,16}$")]
    function: str | None
    module: str | None
    offset: _Whole | None = None
    build_id: str | None = None
    file: str | None = None
    line: _Whole | None = None
    inlined: bool = False
    why: Why | None = None
    module_offset: Annotated[str, msgspec.Meta(pattern="^0x[0-9a-f]{1,16}$")] | None = None
    repeats: _Whole = 1

    def made(self) -> Frame:
        why = (self.why or Why.NO_SYMBOLS) if self.function is None else None
        return Frame(int(self.address, 16), self.function, self.offset, self.module, self.build_id, self.file,
                     self.line, self.inlined, why, int(self.module_offset, 16) if self.module_offset else None,
                     self.repeats)


class _Site(msgspec.Struct):
    bytes: _Whole
    count: _Whole
    frames: tuple[_Frame, ...]
    source: str = "heap"
    pid: _Whole = 0
    allocated_bytes: _Whole = 0
    allocated_count: _Whole = 0
    freed_count: _Whole = 0
    relative_error: float | None = None
    verdict: str | None = None


class _Totals(msgspec.Struct):
    live_bytes: _Whole
    live_count: _Whole
    allocated_bytes: _Whole = 0
    allocated_count: _Whole = 0
    freed_count: _Whole = 0
    relative_error: float | None = None


class _Target(msgspec.Struct):
    pid: _Whole
    comm: str
    exe: str | None = None


class _Saved(msgspec.Struct):
    schema: str
    taken: str
    elapsed_s: float
    complete: bool
    totals: _Totals
    sites: tuple[_Site, ...]
    kernel: str = ""
    target: _Target | None = None
    targets: tuple[_Target, ...] = ()
    losses: dict[str, _Whole] = {}
    lost_bytes: dict[str, _Whole] = {}
    sampling: str | None = None


def read(path: str, at: float | None = None) -> Side:
    """Read one side from a file; at: the report that was made by then, in seconds since the trace began.

    Raises UsageError where the file is neither, or damaged.
    """
    try:
        with open(path, "rb") as file:
            begin = file.read(_BEGIN)
            content = begin + file.read(LARGEST) if begin.lstrip()[:1] in (b"{", b"[") else b""
    except OSError as problem:
        raise UsageError(f"{path} cannot be read: {problem.strerror}.", _REMEDY) from None
    if not begin.strip():
        raise UsageError(f"{path} is empty.", _REMEDY)
    return parse(content, path, at) if content else _recorded(path, at)


def _recorded(path: str, at: float | None) -> Side:
    found = load(path)
    number = len(found) - 1 if at is None else found.at(at)
    # Of a moment before its end, a file that was cut off says all.
    cut = found.truncated and (at is None or at > found.times[-1])
    return Side(path, found.report(number), found.facts.settings, cut)


def parse(content: bytes, source: str, at: float | None = None) -> Side:
    """Read the last whole report made by then of saved ones: a document per line, or one over many lines.

    Raises UsageError.
    """
    saved = _documents(content, source)
    chosen = saved[-1]
    if at is not None:
        chosen = next((each for each in reversed(saved) if each.elapsed_s <= at), saved[0])
    report = _report(safe(chosen), source)
    listed = sum(finding.count for finding in report.findings)
    return Side(source, report, unlisted=0 if report.sampling else max(0, report.totals.live_count - listed))


def _documents(content: bytes, source: str) -> list[_Saved]:
    """Return all documents; a last line that was cut off is passed over if there is one before it."""
    try:
        if content.lstrip().startswith(b"["):
            found = msgspec.json.decode(content, type=list[_Saved])
            return [_checked(each, source) for each in found] or _empty(source)
        return [_checked(msgspec.json.decode(content, type=_Saved), source)]
    except msgspec.ValidationError as problem:
        raise _refused(source, str(problem)) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    lines = [line for line in content.split(b"\n") if line.strip()]
    found = []
    for number, line in enumerate(lines):
        try:
            found.append(_checked(msgspec.json.decode(line, type=_Saved), source))
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as problem:
            if found and number == len(lines) - 1 and not isinstance(problem, msgspec.ValidationError):
                break
            raise _refused(source, str(problem)) from None
    return found or _empty(source)


def _empty(source: str) -> NoReturn:
    raise UsageError(f"{source} is empty.", _REMEDY)


def _checked(found: _Saved, source: str) -> _Saved:
    if found.schema != SCHEMA:
        raise _refused(source, f"its schema is {found.schema[:40]!a}, not {SCHEMA}")
    if not (isfinite(found.elapsed_s) and found.elapsed_s >= 0):
        raise _refused(source, "its time is none")
    return found


def _refused(source: str, why: str) -> UsageError:
    said = why.encode("ascii", "backslashreplace").decode()[:200]
    return UsageError(f"{source} is neither a recording nor a saved report of leaktrace: {said}.", _REMEDY)


def _report(saved: _Saved, source: str) -> Report:
    try:
        taken = datetime.fromisoformat(saved.taken)
    except ValueError:
        raise _refused(source, "its date is none") from None
    totals = saved.totals
    return Report(
        taken=taken, elapsed_s=saved.elapsed_s, kernel=saved.kernel,
        targets=tuple([Target(each.pid, each.comm, each.exe) for each in _targets(saved)]),
        totals=Totals(totals.live_bytes, totals.live_count, totals.allocated_bytes, totals.allocated_count,
                      totals.freed_count),
        findings=tuple([_finding(site, rank) for rank, site in enumerate(saved.sites, 1)]),
        losses=tuple([_loss(name, count, saved.lost_bytes.get(name, 0)) for name, count in saved.losses.items()]),
        complete=saved.complete, total_error=totals.relative_error, sampling=saved.sampling)


def _targets(saved: _Saved) -> tuple[_Target, ...]:
    return saved.targets or ((saved.target,) if saved.target else ())


def _finding(site: _Site, rank: int) -> Finding:
    said: dict[str, Any] = dict(oldest_s=None, growth_bytes_per_s=None, gained_bytes=None, gained_count=None)
    return Finding(
        rank=rank, pid=site.pid, bytes=max(0, site.bytes), count=max(0, site.count),
        allocated_bytes=site.allocated_bytes, allocated_count=site.allocated_count, freed_count=site.freed_count,
        error=site.relative_error, frames=tuple([frame.made() for frame in site.frames]), source=site.source,
        verdict=site.verdict, **said)


def _loss(name: str, count: int, bytes_: int) -> LossNote:
    for loss in LOSSES:
        if loss.name == name:
            return LossNote(name, count, bytes_, loss.meaning.format(bytes=bytes_), loss.remedy)
    return LossNote(name, count, bytes_, name, "")
