"""Judges a report as a run was asked to: what is suppressed, what is known, what is over budget; and the exit code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, field, replace

from tracer.errors import ExitCode
from tracer.judge.baseline import Baseline, Change, Growth, new_or_grown, summed
from tracer.judge.budget import Budget, parse
from tracer.judge.fingerprint import fingerprint
from tracer.judge.suppressions import Suppressions
from tracer.report.model import Finding, Judged, Judgement, Outcome, Report, SuppressionUse

#: What a baseline asks where no budget does: any site that it does not know, or that has grown.
ANYTHING = "bytes>0 or count>0"
#: The loss (tracer.losses) that makes the count of wrong frees too small.
MISUSES_FULL = "misuses_full"


@dataclass(frozen=True, slots=True)
class _Sums:
    """Sums over the sites that are judged (tracer.judge.budget.Totals)."""

    live_bytes: int
    live_count: int
    #: Frees that are wrong, None where they were not looked for.
    misuses: int | None = None


@dataclass(slots=True)
class Gate:
    """The rules of one run. error_exit_code: what a run over budget ends with.

    ignore_children: processes that were not traced do not make a judgement uncertain.
    """

    budgets: Sequence[Budget] = ()
    suppressions: Suppressions = field(default_factory=lambda: Suppressions(()))
    baseline: Baseline | None = None
    error_exit_code: int = ExitCode.LEAKS
    ignore_children: bool = False

    def __post_init__(self) -> None:
        if self.baseline is not None and not self.budgets:
            self.budgets = (parse(ANYTHING),)

    @property
    def judges(self) -> bool:
        """Whether anything was asked that can fail."""
        return bool(self.budgets)

    def judge(self, report: Report, command_status: int) -> Judgement:
        """Return what becomes of each site of a report that has all of them, and the exit code."""
        marks = {finding.rank: fingerprint(finding.frames) for finding in report.findings}
        grown = self._grown(report.findings, marks)
        open_sites: list[tuple[Finding, str]] = []
        judged: dict[int, Judged] = {}
        for finding in report.findings:
            accepted = self._accepted(finding, marks[finding.rank], grown)
            if accepted is not None:
                judged[finding.rank] = accepted
            else:
                change = grown.get(marks[finding.rank]) if grown is not None else None
                open_sites.append((finding, _describe(change)))
        sums = _Sums(sum(site.bytes for site, _ in open_sites), sum(site.count for site, _ in open_sites),
                     report.misuses.count if report.misuses is not None else None)
        for finding, change_text in open_sites:
            judged[finding.rank] = self._weigh(finding, marks[finding.rank], change_text, sums)
        sites = tuple(judged[finding.rank] for finding in report.findings)
        totals = tuple(each.text for each in self.budgets if each.over_total and each.fails(None, sums))
        undecided = any(each.undecided(site, sums) or any(each.fails(other, sums) for other in _possible(site))
                        for each in self.budgets if not each.over_total for site, _ in open_sites)
        failed = bool(totals) or any(site.outcome is Outcome.FAILED for site in sites)
        return Judgement(
            sites,
            totals,
            self._exit_code(report, command_status, failed=failed, undecided=undecided),
            tuple(f"{each.name} ({each.place})" for each in self.suppressions.unused),
            tuple(SuppressionUse(each.name, each.place, use.sites, use.blocks, use.bytes)
                  for each, use in self.suppressions.used.items()),
            self._conclude(report, sites, totals, undecided=undecided),
        )

    def _grown(self, findings: Sequence[Finding], marks: dict[int, str]) -> dict[str, Growth] | None:
        """Return what is new or has grown since the baseline by fingerprint, None without a baseline."""
        if self.baseline is None:
            return None
        now = summed((marks[finding.rank], finding.bytes, finding.count) for finding in findings)
        return {growth.fingerprint: growth for growth in new_or_grown(self.baseline, now)}

    def _accepted(self, finding: Finding, mark: str, grown: dict[str, Growth] | None) -> Judged | None:
        """Return the judgement of a site that somebody has decided to live with, None for any other."""
        suppression = self.suppressions.match(finding.frames)
        if suppression is not None:
            self.suppressions.record(suppression, finding.count, finding.bytes)
            reason = suppression.name if suppression.builtin else f"{suppression.name} ({suppression.place})"
            return Judged(finding, Outcome.SUPPRESSED, reason, mark)
        if grown is not None and mark not in grown and self.baseline is not None:
            return Judged(finding, Outcome.KNOWN, f"it is in {self.baseline.source} and has not grown", mark)
        return None

    def _weigh(self, finding: Finding, mark: str, change: str, sums: _Sums) -> Judged:
        broken = [each.text for each in self.budgets if not each.over_total and each.fails(finding, sums)]
        reason = "; ".join([*broken, change] if change else broken)
        return Judged(finding, Outcome.FAILED if broken else Outcome.PASSED, reason, mark)

    def _exit_code(self, report: Report, command_status: int, *, failed: bool, undecided: bool) -> int:
        if not self.judges:
            return command_status
        if not report.complete:
            return ExitCode.INCOMPLETE
        if not failed and (undecided or self._missing_misuses(report) or self._has_untraced(report)):
            return ExitCode.INCOMPLETE
        return self.error_exit_code if failed else command_status

    def _conclude(
        self, report: Report, sites: Sequence[Judged], totals: Sequence[str], *, undecided: bool
    ) -> str:
        """Return in one sentence what the exit code says."""
        if not self.judges:
            return ""
        over = sum(site.outcome is Outcome.FAILED for site in sites)
        found = f"{over} site{'s' * (over != 1)} over budget" if over else "sums over budget" if totals else ""
        if not report.complete:
            return f"NOT CERTAIN: events were lost, so nothing is decided{f' ({found})' if found else ''}"
        if found:
            return f"FAILED: {found}"
        if undecided:
            return "NOT CERTAIN: a figure that --fail-on compares could not be measured in this time"
        if missing := self._missing_misuses(report):
            return f"NOT CERTAIN: {missing}"
        if self._has_untraced(report):
            remedy = "--ignore-children judges what was traced" if report.follows else (
                "--follow-forks traces them, --ignore-children judges the command alone")
            return f"NOT CERTAIN: processes were not traced; {remedy}"
        return "PASSED: no site is over budget"

    def _missing_misuses(self, report: Report) -> str:
        """Return what the count of wrong frees lacks, where a budget compares it; empty if it is whole."""
        if not any("misuses" in each.needs for each in self.budgets):
            return ""
        return next((f"{loss.count} {loss.meaning}" for loss in report.losses if loss.name == MISUSES_FULL), "")

    def _has_untraced(self, report: Report) -> bool:
        return not self.ignore_children and (any(target.children for target in report.targets)
                                             or any(count for _, count in report.untraced))


def _possible(site: Finding) -> Iterator[Finding]:
    """Give the site with each verdict that it might have, where it has none for want of evidence."""
    if site.verdict != "undecided":
        return
    yield replace(site, verdict="growing")
    yield replace(site, verdict="steady")
    looked_at = site.reachability
    if looked_at is None or sum(count for _, count in astuple(looked_at)) < site.count:
        yield replace(site, verdict="lost")


def _describe(change: Growth | None) -> str:
    if change is None:
        return ""
    if change.change is Change.NEW:
        return "new since the baseline"
    return f"grown since the baseline by {change.gained_bytes} bytes, {change.gained_count} blocks"
