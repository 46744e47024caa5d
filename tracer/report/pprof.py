"""The report as a pprof profile, for Google's pprof and what else reads that: Pyroscope, Parca, Perfetto."""

from __future__ import annotations

import gzip
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from tracer import VERSION
from tracer.report.model import Finding, Report
from tracer.report.pprof_messages import profile_class
from tracer.report.pprof_places import Places, Texts

#: What each sample says, in the order of Go's heap profiles, with its unit.
VALUES = (("alloc_objects", "count"), ("alloc_space", "bytes"), ("inuse_objects", "count"), ("inuse_space", "bytes"))
#: Processes that are named in comments.
_NAMED = 10
_LARGEST = (1 << 63) - 1


def write(report: Report, out: BinaryIO, command: Sequence[str] = (), version: str = VERSION) -> None:
    """Write one report as a gzipped profile; command: what made the trace, version: of the leaktrace that did.

    Where the report has all sites that hold anything, those of which all was freed are in it as well.
    """
    out.write(gzip.compress(profile(report, command, version).SerializeToString(), 6, mtime=0))
    out.flush()


def profile(report: Report, command: Sequence[str] = (), version: str = VERSION) -> Any:
    """Return the profile as protobuf has it."""
    made, texts = profile_class()(), Texts()
    places = Places(made, texts, report)
    for name, unit in VALUES:
        made.sample_type.add(type=texts.place(name), unit=texts.place(unit))
    several = len(report.targets) > 1 or report.follows
    for finding in _all_sites(report):
        sample = made.sample.add(location_id=places.of(finding.pid, finding.frames), value=_values(finding))
        for key, text in _labels(finding, several):
            sample.label.add(key=texts.place(key), str=texts.place(text))
    made.period_type.type, made.period_type.unit = texts.place("space"), texts.place("bytes")
    made.period = 1
    made.default_sample_type = texts.place("inuse_space")
    made.duration_nanos = max(0, _nanoseconds(report.elapsed_s))
    made.time_nanos = _nanoseconds(report.taken.timestamp()) - made.duration_nanos
    made.comment.extend([texts.place(comment) for comment in _comments(report, command, version)])
    made.string_table.extend(texts.all())
    return made


def _all_sites(report: Report) -> Sequence[Finding]:
    """Return the findings and, unless only the first are wanted, the sites of which nothing is left."""
    sites = report.sites
    if sites is None or len(report.findings) < len(sites.order):
        return report.findings
    gone = np.setdiff1d(np.flatnonzero(sites.allocated_count > 0), sites.order)
    return (*report.findings, *[sites.finding(row, 0) for row in gone.tolist()])


def _values(finding: Finding) -> list[int]:
    values = finding.allocated_count, finding.allocated_bytes, finding.count, finding.bytes
    return [max(-_LARGEST, min(value, _LARGEST)) for value in values]


def _labels(finding: Finding, several: bool) -> Iterator[tuple[str, str]]:
    """Yield what a sample can be selected by, with pprof's -tagfocus."""
    if finding.verdict is not None:
        yield "verdict", finding.verdict
    if finding.source != "heap":
        yield "source", finding.source
    if finding.kernel is not None and finding.kernel.cache:
        yield "cache", finding.kernel.cache
    if several:
        yield ("pid", str(finding.pid)) if finding.processes == 1 else ("processes", str(finding.processes))


def _comments(report: Report, command: Sequence[str], version: str) -> Iterator[str]:
    yield f"leaktrace {version}"
    if command:
        yield f"command: {shlex.join(command)}"
    yield f"kernel {report.kernel}"
    for target in report.targets[:_NAMED]:
        yield f"process {target.pid}: {target.comm}" + (f", {target.exe}" if target.exe else "")
    if len(report.targets) > _NAMED:
        yield f"and {len(report.targets) - _NAMED} more processes"
    if report.sampling:
        error = f", ±{report.total_error:.0%} in total" if report.total_error else ""
        yield f"estimates from {report.sampling}{error}"
    if not report.complete:
        yield "not complete: there are allocations that were not counted"
    for loss in report.losses:
        yield f"{loss.name}: {loss.count} {loss.meaning}: {loss.remedy}"
    yield from report.notes


def _nanoseconds(seconds: float) -> int:
    """Return a time in ns, 0 for one that a profile has no room for."""
    return int(seconds * 1e9) if abs(seconds) < 9e9 else 0
