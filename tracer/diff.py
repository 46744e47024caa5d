"""Compares two traces site by site: what has grown, shrunk, come and gone. Needs nothing but their reports."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from math import hypot, isclose

from tracer.diff_warnings import warnings
from tracer.judge.fingerprint import fingerprint, module_name
from tracer.report.diff_model import Difference, Held, Per, Row, Side, State
from tracer.report.model import Finding

#: The worst first; of sites that are put together, the worst is told.
_WORST = ("lost", "growing", "undecided", "steady")
#: By what rows are in order: the amount of change, then its direction.
_SORTS: dict[str, Callable[[Row], tuple[float, ...]]] = {
    "size": lambda row: (-abs(row.bytes), -row.bytes, -abs(row.count)),
    "count": lambda row: (-abs(row.count), -row.count, -abs(row.bytes)),
}


def difference(before: Side, after: Side, per: Per | None = None, sort: str = "size") -> Difference:
    """Compare two traces. Sites are the same where source and fingerprint are; several with one are put together.

    per: what figures are divided by. sort: size or count, the largest change first. Raises KeyError for another one.
    """
    earlier = _by_site(before, per.before if per else 1)
    later = _by_site(after, per.after if per else 1)
    rows = [_row(key[1], earlier.get(key), later.get(key), before, after) for key in {**later, **earlier}]
    rows.sort(key=lambda row: (*_SORTS[sort](row), row.fingerprint))
    ranked = tuple([replace(row, rank=rank, finding=replace(row.finding, rank=rank))
                    for rank, row in enumerate(rows, 1)])
    made = Difference(
        before, after, per, ranked, _total(before, per.before if per else 1), _total(after, per.after if per else 1),
        hypot(_total_error(before, per.before if per else 1), _total_error(after, per.after if per else 1)),
        files=_same_files(before, after))
    return replace(made, warnings=warnings(made))


@dataclass(slots=True)
class _Sum:
    """Sites that are one, put together; finding: the one that holds most."""

    finding: Finding
    bytes: int = 0
    count: int = 0
    sites: int = 0
    error: float = 0.0
    verdicts: set[str] = field(default_factory=set)
    divisor: float = 1
    allocated_bytes: int = 0
    allocated_count: int = 0

    def add(self, finding: Finding) -> None:
        self.bytes, self.count, self.sites = self.bytes + finding.bytes, self.count + finding.count, self.sites + 1
        self.error = hypot(self.error, (finding.error or 0.0) * finding.bytes)
        self.allocated_bytes += finding.allocated_bytes
        self.allocated_count += finding.allocated_count
        if finding.bytes > self.finding.bytes:
            self.finding = finding
        if finding.verdict:
            self.verdicts.add(finding.verdict)

    @property
    def held(self) -> Held:
        verdict = next((each for each in _WORST if each in self.verdicts), None)
        return Held(self.bytes, self.count, _divided(self.bytes, self.divisor), _divided(self.count, self.divisor),
                    self.sites, self.error / self.divisor, verdict, _divided(self.allocated_bytes, self.divisor),
                    _divided(self.allocated_count, self.divisor))


def _by_site(side: Side, divisor: float) -> dict[tuple[str, str], _Sum]:
    sums: dict[tuple[str, str], _Sum] = {}
    for finding in _holding(side.report.findings):
        key = finding.source, fingerprint(finding.frames)
        sums.setdefault(key, _Sum(finding, divisor=divisor)).add(finding)
    return sums


def _same_files(before: Side, after: Side) -> dict[str, str]:
    """Return for each path of before the one of after that fingerprints take for the same, where it is another."""
    now = {module_name(path): path for path in _paths(after)}
    return {path: now[name] for path in _paths(before) if now.get(name := module_name(path), path) != path}


def _paths(side: Side) -> set[str]:
    return {frame.module for finding in side.report.findings for frame in finding.frames if frame.module}


def _holding(findings: Iterable[Finding]) -> Iterable[Finding]:
    return (finding for finding in findings if finding.bytes > 0 or finding.count > 0)


def _row(mark: str, earlier: _Sum | None, later: _Sum | None, before: Side, after: Side) -> Row:
    known = later or earlier
    assert known is not None
    was, now = earlier.held if earlier else Held(), later.held if later else Held()
    error = hypot(was.error, now.error)
    # Chance may have picked no block of a site that is as large in the other trace.
    if earlier is None and before.report.sampling:
        error = hypot(now.error, now.error)
    if later is None and after.report.sampling:
        error = hypot(was.error, was.error)
    return Row(0, mark, _state(was, now), was, now, error, known.finding)


def _state(was: Held, now: Held) -> State:
    if not was.sites or not now.sites:
        return State.NEW if now.sites else State.GONE
    for earlier, later in ((was.bytes, now.bytes), (was.count, now.count)):
        # Of divided figures the last digits are rounded.
        if not isclose(earlier, later, rel_tol=1e-9, abs_tol=1e-9):
            return State.GROWTH if later > earlier else State.SHRINKAGE
    return State.SAME


def _total(side: Side, divisor: float) -> Held:
    totals = side.report.totals
    return Held(totals.live_bytes, totals.live_count, _divided(totals.live_bytes, divisor),
                _divided(totals.live_count, divisor), sum(1 for _ in _holding(side.report.findings)),
                _total_error(side, divisor))


def _total_error(side: Side, divisor: float) -> float:
    return (side.report.total_error or 0.0) * side.report.totals.live_bytes / divisor


def _divided(value: int, divisor: float) -> float:
    """Return a figure per unit; without one it stays whole."""
    return value if divisor == 1 else value / divisor
