"""What a comparison of two traces says, whatever format it is written in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf
from typing import Any

from tracer.report.model import Finding, Report

#: Standard errors that a change has to be larger than to count as one: 95 % of chance alone lies within.
STANDARD_ERRORS = 1.96


class State(StrEnum):
    """What became of a site between two traces."""

    NEW = "new"
    GROWTH = "growth"
    SHRINKAGE = "shrinkage"
    GONE = "gone"
    SAME = "same"


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two traces, at the moment that is compared, with all its sites.

    settings: by name, as JSON has them; None where the file does not say. truncated: the file ends before the trace
    did, and its end was asked for. unlisted: live blocks that are in the totals and at no site of the file.
    """

    source: str
    report: Report
    settings: Mapping[str, Any] | None = None
    truncated: bool = False
    unlisted: int = 0


@dataclass(frozen=True, slots=True)
class Per:
    """What figures are divided by: the name of one unit, and how many of it there were in each trace."""

    name: str
    before: float
    after: float


@dataclass(frozen=True, slots=True)
class Held:
    """What one or more sites hold in one trace: live bytes and blocks, as measured, and per unit if one was asked for.

    sites: how many were put together, 0 where there is none. error: one standard error of bytes, in bytes per unit.
    verdict: the worst of them. allocated: per unit, of what was given back as well.
    """

    measured_bytes: int = 0
    measured_count: int = 0
    bytes: float = 0
    count: float = 0
    sites: int = 0
    error: float = 0
    verdict: str | None = None
    allocated_bytes: float = 0
    allocated_count: float = 0


@dataclass(frozen=True, slots=True)
class Row:
    """One site in both traces. finding: its stack, of the trace after unless it is gone, with the rank of the row.

    error: one standard error of the change in bytes, 0 where both are exact.
    """

    rank: int
    fingerprint: str
    state: State
    before: Held
    after: Held
    error: float
    finding: Finding

    @property
    def bytes(self) -> float:
        """Return the change in bytes."""
        return self.after.bytes - self.before.bytes

    @property
    def count(self) -> float:
        """Return the change in blocks."""
        return self.after.count - self.before.count

    @property
    def percent(self) -> float:
        """Return the change in bytes in percent of what was held before."""
        return percent(self.before.bytes, self.after.bytes)

    @property
    def verdict(self) -> str | None:
        """Return what is said of the site now."""
        return self.after.verdict

    @property
    def significant(self) -> bool:
        """Whether the change is larger than what chance does to estimates."""
        return abs(self.bytes) > STANDARD_ERRORS * self.error if self.error else True


@dataclass(frozen=True, slots=True)
class Warned:
    """Why figures may not say what they seem to; decides: so much that no judgement may rest on them."""

    text: str
    decides: bool = False


@dataclass(frozen=True, slots=True)
class DiffJudgement:
    """What the expressions of --fail-on say. failed: ranks of rows; totals: expressions over sums that are true."""

    failed: Mapping[int, str]
    totals: tuple[str, ...]
    exit_code: int
    conclusion: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Two traces, site by site, the largest change first.

    files: what paths of files are called in the trace after, where another build of them has another name or folder.
    """

    before: Side
    after: Side
    per: Per | None
    rows: tuple[Row, ...]
    total_before: Held
    total_after: Held
    total_error: float
    warnings: tuple[Warned, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    judgement: DiffJudgement | None = field(default=None, compare=False)

    @property
    def unit(self) -> str:
        """Return what stands behind a number of bytes, such as "bytes per request"."""
        return f"bytes per {self.per.name}" if self.per else "bytes"

    def of(self, state: State) -> tuple[Row, ...]:
        """Return the rows in a state."""
        return tuple(row for row in self.rows if row.state is state)


def percent(before: float, after: float) -> float:
    """Return a change in percent, infinite where there was nothing before."""
    if before == after:
        return 0.0
    return 100 * (after - before) / before if before else inf
