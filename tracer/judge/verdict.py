"""Whether a site leaks: one decision table over the facts of all sites, and one line of evidence for each verdict.

The first row of TABLE whose condition is true decides. What the facts are is in growth.py, survival.py and
reachability.py; here is only what they mean together.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from tracer.judge.growth import Growth, Shape
from tracer.judge.survival import Survival


class Verdict(StrEnum):
    """What a site is held to be."""

    LOST = "lost"
    """Nobody can give it back: nothing points to it."""
    GROWING = "growing"
    """It is in use, or might be, and becomes more."""
    STEADY = "steady"
    UNDECIDED = "undecided"


class Confidence(StrEnum):
    """How likely a verdict is to stand after a look at the code."""

    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


#: Seconds and intervals before anything is said of growth. Programs start up for some seconds, and of fewer than
#: eight intervals the trend test cannot tell five rises from chance (Mann-Kendall's smallest p for n = 5 is 0.8 %).
LEAST_SECONDS = 10.0
LEAST_INTERVALS = 8
#: Of a site's blocks, so many without a pointer make it lost as a whole; fewer are an error path, or torn by luck.
MOSTLY = 0.5
#: Blocks that outlived before that is more than one stray one, and the surely outlived share: of thousand blocks one.
LEAST_OUTLIVED = 5
LEAST_SHARE = 0.001
#: Of the blocks that outlived, as many as this must be of the last half: what was kept at the start only is a table.
LEAST_YOUNG = 0.1
#: A site all of whose blocks are younger than this part of its own age gives everything back sooner or later.
TURNOVER = 0.25
#: In at least this part of the intervals a growing site grew, where one needs no other proof.
MOST_INTERVALS = 0.6
#: Mann-Kendall's normal score of a trend that chance makes once in thousand sites (one-sided).
CERTAIN_TREND = 3.1


@dataclass(frozen=True, slots=True, eq=False)
class Facts:
    """All that is known of n sites; arrays are (n,).

    elapsed_s: how long the trace has run. age_s: since the site's first allocation. oldest_s: of its living blocks.
    lost, lost_bytes: without a pointer (definitely and indirectly lost); scanned: blocks that were looked at. ended:
    held by processes that have ended, of which no series goes on. over: there is no more to come.
    """

    elapsed_s: float
    bytes: np.ndarray
    count: np.ndarray
    allocated: np.ndarray
    freed: np.ndarray
    age_s: np.ndarray
    oldest_s: np.ndarray
    growth: Growth
    survival: Survival
    scanned: np.ndarray
    definitely: np.ndarray
    lost: np.ndarray
    lost_bytes: np.ndarray
    possibly: np.ndarray
    ended: np.ndarray
    over: bool = False


@dataclass(frozen=True, slots=True)
class Row:
    """One row of the table: when it applies, what it says, and why, of one site."""

    name: str
    when: Callable[[Facts], np.ndarray]
    verdict: Verdict
    confidence: Confidence
    evidence: Callable[[Facts, int], str]


def _lost(facts: Facts) -> np.ndarray:
    return np.asarray((facts.lost > 0) & (facts.lost >= MOSTLY * facts.scanned))


def _unseen(facts: Facts) -> np.ndarray:
    return 2 * facts.ended > facts.count


def _too_early(facts: Facts) -> np.ndarray:
    return np.asarray((facts.age_s < LEAST_SECONDS) | (facts.growth.intervals < LEAST_INTERVALS))


def _outlives(facts: Facts) -> np.ndarray:
    survival = facts.survival
    return ((survival.outlived >= LEAST_OUTLIVED) & (survival.low_share >= LEAST_SHARE)
            & (survival.young >= LEAST_YOUNG * survival.outlived))


def _turns_over(facts: Facts) -> np.ndarray:
    return np.asarray((facts.freed > 0) & (facts.oldest_s < TURNOVER * facts.age_s))


def _grows(facts: Facts) -> np.ndarray:
    return np.asarray((facts.growth.shape == Shape.RISING) & (facts.growth.low > 0))


def _keeps(facts: Facts) -> np.ndarray:
    """Of what is mostly given back, a rise by less than a part of it is how it comes and goes."""
    return np.asarray((2 * facts.freed < facts.allocated) | (facts.growth.low * facts.age_s > TURNOVER * facts.bytes))


def _grows_surely(facts: Facts) -> np.ndarray:
    growth = facts.growth
    return _grows(facts) & (growth.trend_z >= CERTAIN_TREND) & (growth.rises >= MOST_INTERVALS * growth.intervals)


def _is(*shapes: Shape) -> Callable[[Facts], np.ndarray]:
    return lambda facts: np.isin(facts.growth.shape, shapes)


def _always(facts: Facts) -> np.ndarray:
    return np.ones(len(facts.count), bool)


def _and(*conditions: Callable[[Facts], np.ndarray]) -> Callable[[Facts], np.ndarray]:
    return lambda facts: np.logical_and.reduce([condition(facts) for condition in conditions])


# --- the evidence, in words


def _without_pointer(facts: Facts, row: int) -> str:
    lost, definitely = int(facts.lost[row]), int(facts.definitely[row])
    if definitely == lost:
        said = f"no pointer to {_of(lost, int(facts.scanned[row]))} anywhere in the process"
    elif definitely:
        said = f"no pointer to {definitely:,} of them, and only from lost blocks to {lost - definitely:,} more"
    else:
        said = f"only lost blocks point to {_of(lost, int(facts.scanned[row]))}"
    return f"{said}; {_freed(facts, row)}"


def _freed(facts: Facts, row: int) -> str:
    freed, allocated = int(facts.freed[row]), int(facts.allocated[row])
    return f"{freed:,} of {allocated:,} were ever freed"


def _of(part: int, whole: int) -> str:
    return ("it" if whole == 1 else f"any of the {whole:,}") if part == whole else f"{part:,} of {whole:,}"


def _wait(facts: Facts, row: int) -> str:
    seen, intervals = float(facts.age_s[row]), int(facts.growth.intervals[row])
    if facts.over:
        return f"seen for {_time(seen)}, too short to tell growth from use{_of_pointers(facts, row)}"
    more = LEAST_SECONDS - seen
    if intervals < LEAST_INTERVALS and intervals:
        more = max(more, seen / intervals * (LEAST_INTERVALS - intervals))
    return f"seen for {_time(seen)}; a verdict needs {_time(max(1.0, more))} more{_of_pointers(facts, row)}"


def _of_ended(facts: Facts, row: int) -> str:
    return f"its process has ended{_of_pointers(facts, row) or ', and its memory was not looked at (--reachability)'}"


def _of_pointers(facts: Facts, row: int) -> str:
    if not facts.scanned[row]:
        return ""
    possibly = int(facts.possibly[row])
    if possibly == facts.scanned[row]:
        return "; pointers lead into its blocks only, not to their beginnings"
    return "; reachable"


def _lives_on(facts: Facts, row: int) -> str:
    survival = facts.survival
    share, usual = float(survival.share[row]), float(survival.usual_s[row])
    words = f"freed blocks live {_time(usual)} at most, {_percent(share)} live on"
    if facts.growth.rises[row] and facts.growth.slope[row] > 0:
        words = f"grows in {_intervals(facts, row)}; {words}"
    return _reachable_but(facts, row) + words


def _grew(facts: Facts, row: int) -> str:
    words = f"grows in {_intervals(facts, row)}; {_freed(facts, row)}"
    return _reachable_but(facts, row) + words


def _reachable_but(facts: Facts, row: int) -> str:
    return "reachable, but " if facts.scanned[row] and not facts.lost[row] else ""


def _intervals(facts: Facts, row: int) -> str:
    return f"{int(facts.growth.rises[row]):,} of {int(facts.growth.intervals[row]):,} intervals"


def _stands(facts: Facts, row: int) -> str:
    settled, steady = float(facts.growth.settled_s[row]), float(facts.growth.steady_s[row])
    if not np.isfinite(settled):
        return f"unchanged over {_time(facts.elapsed_s)}"
    if settled <= 0.05 * facts.elapsed_s:
        return f"unchanged for {_time(steady)}"
    return f"reached its size after {_time(settled)}, unchanged for {_time(steady)}"


def _comes_and_goes(facts: Facts, row: int) -> str:
    return f"none of its blocks is older than {_time(float(facts.oldest_s[row]))}: they come and go"


def _saws(facts: Facts, row: int) -> str:
    return "fills and empties, and does not rise from one time to the next"


def _steps(facts: Facts, row: int) -> str:
    if facts.growth.rises[row] == 1:
        return f"grew once, in one of {int(facts.growth.intervals[row])} intervals"
    return f"grew by a step in {_intervals(facts, row)}, each about as large as all before"


def _fills(facts: Facts, row: int) -> str:
    return f"rises ever more slowly (it grew in {_intervals(facts, row)}); trace for longer"


def _falls(facts: Facts, row: int) -> str:
    return f"becomes less; {_freed(facts, row)}"


def _no_trend(facts: Facts, row: int) -> str:
    return f"goes up and down without a trend (it grew in {_intervals(facts, row)})"


def _perhaps(facts: Facts, row: int) -> str:
    return f"grew in {_intervals(facts, row)}, which may be chance; trace for longer"


#: The first row that applies decides.
TABLE: tuple[Row, ...] = (
    Row("no pointer to most", _lost, Verdict.LOST, Confidence.HIGH, _without_pointer),
    Row("no pointer to some", lambda facts: facts.lost > 0, Verdict.LOST, Confidence.MEDIUM, _without_pointer),
    Row("no series", _unseen, Verdict.UNDECIDED, Confidence.LOW, _of_ended),
    Row("too early", _too_early, Verdict.UNDECIDED, Confidence.LOW, _wait),
    Row("outlives, and grows", _and(_outlives, _grows), Verdict.GROWING, Confidence.HIGH, _lives_on),
    Row("outlives", _outlives, Verdict.GROWING, Confidence.MEDIUM, _lives_on),
    Row("turns over", _turns_over, Verdict.STEADY, Confidence.HIGH, _comes_and_goes),
    Row("grows all the time", _grows_surely, Verdict.GROWING, Confidence.HIGH, _grew),
    Row("grows", _and(_grows, _keeps), Verdict.GROWING, Confidence.MEDIUM, _grew),
    Row("settled", _is(Shape.SETTLED, Shape.FLAT), Verdict.STEADY, Confidence.HIGH, _stands),
    Row("sawtooth", _is(Shape.SAWTOOTH), Verdict.STEADY, Confidence.HIGH, _saws),
    Row("steps", _is(Shape.STEPS), Verdict.STEADY, Confidence.MEDIUM, _steps),
    Row("falls", _is(Shape.FALLING), Verdict.STEADY, Confidence.MEDIUM, _falls),
    Row("fills", _is(Shape.FILLING), Verdict.UNDECIDED, Confidence.LOW, _fills),
    Row("no trend", lambda facts: facts.growth.low <= 0, Verdict.STEADY, Confidence.LOW, _no_trend),
    Row("perhaps", _always, Verdict.UNDECIDED, Confidence.LOW, _perhaps),
)


@dataclass(frozen=True, slots=True)
class Opinion:
    """The verdict on one site, with its evidence in one line."""

    verdict: Verdict
    confidence: Confidence
    evidence: str


@dataclass(frozen=True, slots=True, eq=False)
class Verdicts:
    """The verdicts on n sites; rows: places in TABLE, i64 (n,). expected: expected loss in bytes/s, f64 (n,)."""

    facts: Facts
    rows: np.ndarray
    expected: np.ndarray

    def opinion(self, site: int) -> Opinion:
        """Return the verdict on one site, in words."""
        row = TABLE[int(self.rows[site])]
        return Opinion(row.verdict, row.confidence, row.evidence(self.facts, site))


def judge(facts: Facts) -> Verdicts:
    """Return what the table says of every site."""
    conditions = np.array([row.when(facts) for row in TABLE])
    rows = conditions.argmax(axis=0)
    verdicts = np.array([row.verdict for row in TABLE])[rows]
    lost = facts.lost_bytes / max(facts.elapsed_s, 1.0)
    growing = np.maximum(np.maximum(facts.growth.low, 0.0), facts.survival.expected_bytes_per_s)
    found = [verdicts == Verdict.LOST, verdicts == Verdict.GROWING]
    return Verdicts(facts, rows, np.select(found, [np.maximum(lost, growing), growing], 0.0))


def _time(seconds: float) -> str:
    """Return a time with two digits, in the unit that suits it."""
    if not np.isfinite(seconds):
        return "no time"
    for unit, size in (("h", 3600.0), ("min", 60.0), ("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            amount = seconds / size
            return f"{amount:.0f} {unit}" if amount >= 10 or unit == "s" else f"{amount:.2g} {unit}"
    return f"{seconds * 1e6:.0f} µs"


def _percent(share: float) -> str:
    return f"{100 * share:.0f}%" if share >= 0.1 else f"{100 * share:.2g}%"
