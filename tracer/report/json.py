"""The report as JSON, schema leaktrace/1: one document per line."""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from math import isfinite
from typing import Any, TextIO

from symbolizer.frame import Frame
from tracer.report import cross_lines, memory_head, misuses
from tracer.report.model import Finding, Judgement, Reachability, Report, Target

SCHEMA = "leaktrace/1"


def write(report: Report, out: TextIO, judgement: Judgement | None = None) -> None:
    """Write one report as one line, with what was judged of it."""
    out.write(json.dumps(document(report, judgement), ensure_ascii=True) + "\n")
    out.flush()


def document(report: Report, judgement: Judgement | None = None) -> dict[str, Any]:
    """Return the report as JSON's own types. Keys are only ever added to this schema."""
    made = _document(report)
    if judgement is not None:
        for site, judged in zip(made["sites"], judgement.sites, strict=True):
            site |= {"outcome": judged.outcome.value, "reason": judged.reason, "fingerprint": judged.fingerprint}
        made["judgement"] = {
            "exit_code": judgement.exit_code,
            "conclusion": judgement.conclusion,
            "failed_totals": list(judgement.failed_totals),
            "unused_suppressions": list(judgement.unused_suppressions),
            "used_suppressions": [asdict(use) for use in judgement.used_suppressions],
        }
    return made


def _document(report: Report) -> dict[str, Any]:
    targets = [_target(target) for target in report.targets]
    return {
        "schema": SCHEMA,
        "taken": report.taken.isoformat(),
        "elapsed_s": round(report.elapsed_s, 3),
        "kernel": report.kernel,
        "target": targets[0] if targets else None,
        "targets": targets,
        "complete": report.complete,
        "losses": {loss.name: loss.count for loss in report.losses},
        "lost_bytes": {loss.name: loss.bytes for loss in report.losses if loss.bytes},
        "sampling": report.sampling,
        "totals": {
            "live_bytes": report.totals.live_bytes,
            "live_count": report.totals.live_count,
            "allocated_bytes": report.totals.allocated_bytes,
            "allocated_count": report.totals.allocated_count,
            "freed_count": report.totals.freed_count,
            "relative_error": report.total_error,
            **({"reachability": _kinds(report.reachability)} if report.reachability is not None else {}),
        },
        "sites": [_site(finding) for finding in report.findings],
        "memory": [memory_head.document(head) for head in report.memory],
        "scans": [asdict(scan) for scan in report.scans],
        "pointers": [asdict(note) for note in report.pointers],
        "untraced": dict(report.untraced),
        "misuses": misuses.document(report.misuses, _frame) if report.misuses is not None else None,
        **({"sources": [asdict(each) for each in report.sources]} if report.sources else {}),
        **({"cross_check": cross_lines.documents(report.cross_checks)} if report.cross_checks else {}),
        "last": report.last,
        "notes": list(report.notes),
    }


def _target(target: Target) -> dict[str, Any]:
    """Return a process with what it holds, at the sites by their ranks."""
    inherited, dropped = target.inherited, target.dropped
    return {
        "pid": target.pid,
        "comm": target.comm,
        "exe": target.exe,
        "parent": target.parent,
        "children": target.children,
        "totals": asdict(target.totals) if target.totals else None,
        "inherited": {"bytes": inherited[0], "count": inherited[1]} if inherited else None,
        "execs": target.execs,
        "dropped": {"bytes": dropped[0], "count": dropped[1]},
        "ended": target.ended,
        "exit_code": os.waitstatus_to_exitcode(target.status) if target.status is not None else None,
        "container": asdict(target.container) if target.container else None,
        "sites": [asdict(share) for share in target.shares],
    }


def _site(finding: Finding) -> dict[str, Any]:
    site: dict[str, Any] = {
        "rank": finding.rank,
        "source": finding.source,
        "pid": finding.pid,
        "bytes": finding.bytes,
        "count": finding.count,
        "allocated_bytes": finding.allocated_bytes,
        "allocated_count": finding.allocated_count,
        "freed_count": finding.freed_count,
        "oldest_s": finding.oldest_s,
        "growth_bytes_per_s": finding.growth_bytes_per_s,
        "gained_bytes": finding.gained_bytes,
        "gained_count": finding.gained_count,
        "relative_error": finding.error,
        "stacks": finding.stacks,
        "processes": finding.processes,
        "verdict": finding.verdict,
        "confidence": finding.confidence,
        "evidence": finding.evidence,
        "expected_loss_bytes_per_s": finding.expected_loss,
        "slope_bytes_per_s": _slope(finding),
        "reachability": _kinds(finding.reachability),
        "frames": [_frame(frame) for frame in finding.frames],
    }
    if finding.kernel is not None:
        site["kernel"] = asdict(finding.kernel)
    if finding.blocks:
        site["blocks"] = [{"address": f"{block.address:#x}", "size": block.size} for block in finding.blocks]
    return site


def _slope(finding: Finding) -> dict[str, float | None] | None:
    """Return the slope and the ends of its interval; None for one that is infinite, as JSON has no such number."""
    if finding.slope is None:
        return None
    named = zip(("estimate", "low", "high"), finding.slope, strict=True)
    return {name: value if isfinite(value) else None for name, value in named}


def _kinds(reachability: Reachability | None) -> dict[str, Any] | None:
    if reachability is None:
        return None
    return {name: {"bytes": size, "count": count} for name, (size, count) in asdict(reachability).items()}


def _frame(frame: Frame) -> dict[str, Any]:
    return {
        "address": f"{frame.address:#x}",
        "function": frame.function,
        "offset": frame.offset,
        "module": frame.module,
        "module_offset": None if frame.module_offset is None else f"{frame.module_offset:#x}",
        "build_id": frame.build_id,
        "file": frame.file,
        "line": frame.line,
        "inlined": frame.inlined,
        "why": frame.why.value if frame.why else None,
        "repeats": frame.repeats,
    }
