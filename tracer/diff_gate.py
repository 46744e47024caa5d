"""Judges a difference by expressions, as `leaktrace run` judges a report; estimates by the ends of their interval."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tracer.errors import ExitCode
from tracer.judge.budget import COUNT, SIZE, VERDICT, Budget, Figure, Kind
from tracer.judge.budget import parse as parse_budget
from tracer.report.diff_model import STANDARD_ERRORS, Difference, DiffJudgement, Row, State

_STATES = tuple(state.value for state in State)
#: What an expression can compare: changes of one site, of the sums, and what became of a site.
FIGURES = {
    "bytes": Figure("bytes", SIZE),
    "count": Figure("count", COUNT),
    "percent": Figure("percent", COUNT),
    "state": Figure("state", Kind(f"{', '.join(_STATES[:-1])} or {_STATES[-1]}", words=_STATES)),
    "verdict": Figure("verdict", VERDICT),
    "total_bytes": Figure("live_bytes", SIZE, of_total=True),
    "total_count": Figure("live_count", COUNT, of_total=True),
}


@dataclass(frozen=True, slots=True)
class _Site:
    """What an expression sees of a row (tracer.judge.budget.Site); bytes and blocks are changes."""

    bytes: float
    count: float
    percent: float
    state: str
    verdict: str | None
    oldest_s: None = None
    growth_bytes_per_s: None = None


@dataclass(frozen=True, slots=True)
class _Sums:
    """Changes of all sites together (tracer.judge.budget.Totals)."""

    live_bytes: float
    live_count: float


def parse(text: str) -> Budget:
    """Read an expression over the figures of a difference. Raises UsageError."""
    return parse_budget(text, FIGURES)


def judge(made: Difference, budgets: Sequence[Budget], error_exit_code: int) -> DiffJudgement:
    """Return what is over budget, and the exit code: 0, the given one, or 4 where that is not certain.

    An expression that is true at one end of the interval of an estimate and false at the other is not decided.
    """
    failed: dict[int, str] = {}
    undecided = False
    sums = tuple(_sums(made))
    for row in made.rows:
        sites = tuple(_ends(row))
        for each in budgets:
            # Nobody can say anything of a site that is not there.
            if not each.over_total and not (row.state is State.GONE and "verdict" in each.needs):
                if all(each.fails(site, total) for site in sites for total in sums):
                    failed[row.rank] = "; ".join(filter(None, (failed.get(row.rank), each.text)))
                else:
                    undecided |= any(each.fails(site, total) or each.undecided(site, total)
                                     for site in (*sites, *_possible(sites)) for total in sums)
    totals = []
    for each in budgets:
        answers = {each.fails(None, total) for total in sums} if each.over_total else {False}
        undecided |= len(answers) > 1
        if answers == {True}:
            totals.append(each.text)
    code, conclusion = _conclude(made, bool(budgets), len(failed), totals, undecided, error_exit_code)
    return DiffJudgement(failed, tuple(totals), code, conclusion)


def _ends(row: Row) -> Iterator[_Site]:
    """Give a row with the least and the most that its change can be; with the one there is where it is exact."""
    reach = STANDARD_ERRORS * row.error
    for size in {row.bytes - reach, row.bytes + reach}:
        # Blocks are as uncertain as their bytes, as far as anybody knows.
        share = (size - row.bytes) / max(row.before.bytes, row.after.bytes, 1)
        count = row.count + share * max(row.before.count, row.after.count)
        grown = 100 * size / row.before.bytes if row.before.bytes else row.percent
        yield _Site(size, count, grown, row.state.value, row.verdict)


def _possible(sites: Sequence[_Site]) -> Iterator[_Site]:
    """Give a site with each verdict that it might have, where it has none for want of evidence."""
    for site in sites:
        if site.verdict == "undecided":
            yield from (replace(site, verdict=verdict) for verdict in VERDICT.words)


def _sums(made: Difference) -> Iterator[_Sums]:
    was, now = made.total_before, made.total_after
    reach = STANDARD_ERRORS * made.total_error
    for off in {-reach, reach}:
        share = off / max(was.bytes, now.bytes, 1)
        yield _Sums(now.bytes - was.bytes + off, now.count - was.count + share * max(was.count, now.count))


def _conclude(made: Difference, asked: bool, over: int, totals: Sequence[str], undecided: bool,
              error_exit_code: int) -> tuple[int, str]:
    if not asked:
        return ExitCode.DONE, ""
    found = f"{over} site{'s' * (over != 1)} over budget" if over else "sums over budget" if totals else ""
    reason = next((warned.text for warned in made.warnings if warned.decides), None)
    if reason is not None:
        return ExitCode.INCOMPLETE, f"NOT CERTAIN: {reason}{f' ({found})' if found else ''}"
    if found:
        return error_exit_code, f"FAILED: {found}"
    if undecided:
        return ExitCode.INCOMPLETE, ("NOT CERTAIN: a budget lies within what sampling does by chance, or a verdict is "
                                     "not known; sample more, trace longer, or raise the budget")
    return ExitCode.DONE, "PASSED: no site is over budget"
