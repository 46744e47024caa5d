"""What of a report goes to those who serve it: no more than they may show, and nothing that hangs on the session."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace

import numpy as np

from tracer.report.model import Finding, Report

#: Sites that are served: their stacks are sent anew with each report, and that is time which the trace loses.
SITES = 1000


@dataclass(frozen=True, slots=True)
class _Kept:
    """Findings by the rows of a table of sites."""

    of: dict[int, Finding]

    def __call__(self, row: int, rank: int) -> Finding:
        finding = self.of[row]
        return finding if finding.rank == rank else replace(finding, rank=rank)


def outline(report: Report, most: int = SITES) -> Report:
    """Return the report with the first sites as its findings, and those of which nothing is left while there is room.

    Its table has the columns of all sites, and findings for these.
    """
    sites = report.sites
    if sites is None:
        return replace(report, findings=report.findings[:most])
    findings = sites.findings(most)
    kept = dict(zip(sites.order[:most].tolist(), findings, strict=True))
    gone = np.setdiff1d(np.flatnonzero(sites.allocated_count > 0), sites.order)
    largest = gone[np.argsort(-sites.allocated_bytes[gone], kind="stable")][: most - len(findings)]
    kept |= {row: sites.finding(row, 0) for row in largest.tolist()}
    return replace(report, findings=findings, sites=replace(sites, finding=_Kept(kept)))


def profiled(report: Report, before: Report | None = None) -> Report:
    """Return what a profile is made of: all findings of an outline, also of sites of which nothing is left.

    before: an earlier outline of the same trace, since which what was allocated counts.
    """
    sites = report.sites
    if sites is None or not isinstance(sites.finding, _Kept):
        return report
    rows = np.fromiter(sites.finding.of, np.int64, len(sites.finding.of))
    count, size = sites.allocated_count[rows], sites.allocated_bytes[rows]
    if before is not None and before.sites is not None:
        known = dict(zip(before.sites.key.tolist(), range(len(before.sites)), strict=True))
        at = np.array([known.get(key, -1) for key in sites.key[rows].tolist()], np.int64)
        was = at >= 0
        count[was] -= before.sites.allocated_count[at[was]]
        size[was] -= before.sites.allocated_bytes[at[was]]
    # What is estimated from samples can become less.
    made = zip(sites.finding.of.values(), np.maximum(count, 0).tolist(), np.maximum(size, 0).tolist(), strict=True)
    findings = tuple(replace(finding, allocated_count=blocks, allocated_bytes=held)
                     for finding, blocks, held in made if blocks or finding.count)
    return replace(report, findings=findings, sites=None)


def packed(report: Report) -> bytes:
    """Return what load() reads."""
    return pickle.dumps(outline(report), pickle.HIGHEST_PROTOCOL)


def load(content: bytes) -> Report:
    """Return a report from packed() of the process that has more rights than this: never from anybody else."""
    report: Report = pickle.loads(content)
    return report
