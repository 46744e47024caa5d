"""The verdicts of a report, a line each, and what was found of pointers, for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from tracer.report import wording
from tracer.report.model import Finding, Reachability, Report, ScanNote

#: Characters of a verdict with its place, and of the figures behind it.
_VERDICT, _FIGURES = 12, 40


def write(report: Report, out: TextIO) -> None:
    """Write a line for each site: its place, verdict, figures, function and evidence; then what the looks brought."""
    for finding in report.findings:
        if finding.verdict is not None:
            out.write(f"  {describe(finding)}\n")
    write_scans(report, out)


def describe(finding: Finding) -> str:
    """Return one line for a site."""
    verdict = finding.verdict or ""
    doubt = f" ({finding.confidence})" if finding.confidence not in (None, "high") and verdict != "undecided" else ""
    return (f"#{finding.rank:<3} {verdict + doubt:<{_VERDICT}} {_figures(finding):<{_FIGURES}} "
            f"{_where(finding)}: {finding.evidence}")


def _figures(finding: Finding) -> str:
    loses = finding.verdict in ("lost", "growing") and finding.slope is not None
    growth = finding.slope[0] if loses and finding.slope is not None else 0.0
    grows = f", {growth:+.0f} bytes/s" if 0.5 <= abs(growth) < 1000 else (
        f", {'+' if growth > 0 else ''}{wording.size(growth)}/s" if abs(growth) >= 1000 else "")
    return f"{wording.size(finding.bytes)} in {wording.blocks(finding.count)}{grows}"


def _where(finding: Finding) -> str:
    if function := wording.known_by(finding.frames):
        return wording.short(function)
    module = finding.frames[0].module if finding.frames else None
    return module.rpartition("/")[2] if module else "no name"


def write_scans(report: Report, out: TextIO) -> None:
    """Write what the looks at memory brought, and how long each process stood still for it."""
    if report.reachability is not None:
        out.write(f"  {kinds(report.reachability)}\n")
    for scan in report.scans:
        if scan.failed:
            out.write(f"  the memory of pid {scan.pid} was not looked at: {scan.failed}\n")
        else:
            how = ", piece by piece" if scan.streamed else ""
            out.write(f"  {wording.size(scan.bytes_read)} of pid {scan.pid} looked at{how}; "
                      f"it stood still for {1000 * scan.stopped_s:.0f} ms\n")
            out.writelines(f"  {doubt}: what is called lost may have a pointer there\n" for doubt in _doubts(scan))
    for note in report.pointers:
        out.write(f"  who points at {note.asked}:\n")
        for step in note.chain:
            out.write(f"    {step}\n")


def _doubts(scan: ScanNote) -> Iterator[str]:
    """Give what of a process a look could not see."""
    if scan.unreadable:
        yield f"{wording.size(scan.unreadable)} of pid {scan.pid} could not be read"
    if scan.not_stopped:
        yield f"{scan.not_stopped} thread{'s' * (scan.not_stopped > 1)} of pid {scan.pid} did not stop"


def kinds(reachability: Reachability) -> str:
    """Return the four kinds in one line."""
    return "; ".join(f"{name}: {size:,} bytes in {wording.blocks(count)}" for name, (size, count) in (
        ("definitely lost", reachability.definitely), ("indirectly lost", reachability.indirectly),
        ("possibly lost", reachability.possibly), ("still reachable", reachability.reachable)))
