"""A judgement for people: what failed and why, what was accepted and by whom, in the form of the plain report."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from tracer.report import cross_lines, misuses, processes, verdict_lines
from tracer.report.model import Judged, Judgement, Outcome, Report
from tracer.report.text import describe, where, write_stack

#: In the order of how much a reader wants to know of them.
_ORDER = (Outcome.FAILED, Outcome.PASSED, Outcome.KNOWN)


def write(report: Report, judgement: Judgement, out: TextIO, *, top: int) -> None:
    """Write the sites that hold memory, failed ones first, at most `top` of those that did not fail; and the sums."""
    first, all_live = shown(judgement, top), live(judgement)
    out.write(f"{targets(report)}: {amount(all_live)}\n")
    several = len(report.targets) > 1
    for site in first:
        _write_site(site, out, several=several)
    if len(all_live) > len(first):
        out.write(f"and {len(all_live) - len(first)} more sites\n")
    verdict_lines.write_scans(report, out)
    if report.misuses is not None:
        misuses.write(report.misuses, out, describe)
    processes.write(report, out, top=top)
    out.writelines(f"{line}\n" for line in cross_lines.lines(report, top))
    for text in judgement.failed_totals:
        out.write(f"FAILED: {text}\n")
    write_accepted(judgement, out)
    for loss in report.losses:
        out.write(f"{loss.count} {loss.meaning}: {loss.remedy}\n")
    for note in report.notes:
        out.write(f"{note}{'' if note.endswith('.') else '.'}\n")
    if judgement.conclusion:
        out.write(f"{judgement.conclusion}\n")
    out.flush()


def live(judgement: Judgement) -> list[Judged]:
    """Return the sites that are not suppressed."""
    return [site for site in judgement.sites if site.outcome is not Outcome.SUPPRESSED]


def shown(judgement: Judgement, top: int) -> list[Judged]:
    """Return the sites that failed, and after them at most `top` of the others that are not suppressed."""
    failed, *others = ([site for site in judgement.sites if site.outcome is outcome] for outcome in _ORDER)
    return failed + [site for sites in others for site in sites][:top]


def targets(report: Report) -> str:
    """Return what was traced."""
    if report.sources:
        return "the kernel"
    if not report.targets:
        return "nothing was traced"
    first, others = report.targets[0], len(report.targets) - 1
    more = f" and {others} more process{'es' if others > 1 else ''}" if others else ""
    return f"{first.comm} (pid {first.pid}){more}"


def amount(sites: Iterable[Judged]) -> str:
    """Return what sites hold, as the end of a sentence."""
    findings = [site.finding for site in sites]
    if not findings:
        return "nothing is outstanding"
    blocks, size = sum(each.count for each in findings), sum(each.bytes for each in findings)
    return f"{size} bytes in {blocks} allocations from {_sites(len(findings))} are outstanding"


def _write_site(site: Judged, out: TextIO, *, several: bool) -> None:
    finding = site.finding
    if finding.verdict not in (None, "undecided") or finding.reachability is not None:
        out.write(f"\t{verdict_lines.describe(finding)}\n")
    remarks = [f"site {finding.rank}, {where(finding)}"] if several else []
    word = f"FAILED ({site.reason}): " if site.outcome is Outcome.FAILED else ""
    if site.reason and site.outcome is not Outcome.FAILED:
        remarks.append(site.reason)
    remark = f" ({'; '.join(remarks)})" if remarks else ""
    out.write(f"\t{word}{finding.bytes} bytes in {finding.count} allocations from stack{remark}\n")
    write_stack(finding, out)


def write_accepted(judgement: Judgement, out: TextIO) -> None:
    """Write what was accepted, a line for each suppression and one for the baseline; and suppressions without use."""
    known = [site for site in judgement.sites if site.outcome is Outcome.KNOWN]
    for use in judgement.used_suppressions:
        out.write(f"suppressed: {use.bytes} bytes in {use.blocks} allocations from {_sites(use.sites)}: {use.name}\n")
    if known:
        out.write(f"in the baseline: {amount(known).removesuffix(' are outstanding')}\n")
    for name in judgement.unused_suppressions:
        out.write(f"not used: {name}\n")


def _sites(count: int) -> str:
    return "1 site" if count == 1 else f"{count} sites"
