"""What the page shows, as JSON's own types: of sites, columns, and numbers for texts that many have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import isfinite
from typing import Any

from symbolizer.frame import Frame
from tracer.report import cross_lines, kernel_lines, memory_head, misuses, processes, wording
from tracer.report.html_source import Excerpt
from tracer.report.html_stacks import Stacks, Texts
from tracer.report.memory_model import MemoryHead
from tracer.report.model import Finding, Reachability, Report, Target
from tracer.report.site_table import VERDICTS

#: Processes, blocks of a site, and lines of a comparison with the kernel's books that are shown.
PROCESSES, BLOCKS, CROSS_ROWS = 1000, 50, 50
_CONFIDENCES = (None, "high", "medium", "low")


def document(report: Report, stacks: Stacks, texts: Texts) -> dict[str, Any]:
    """Return all of a report but its curves and source lines; stacks and texts take what its sites and misuses have."""
    reach = report.reachability
    made = {
        "title": title(report),
        "taken": report.taken.isoformat(sep=" ", timespec="seconds"),
        "elapsed": round(report.elapsed_s, 3),
        "kernel": report.kernel,
        "complete": report.complete,
        "last": report.last,
        "sampling": report.sampling,
        "error": _number(report.total_error),
        "totals": asdict(report.totals),
        "reachability": _kinds(reach),
        "memory": [_memory(head) for head in report.memory],
        "known": len(report.findings) if report.sites is None else len(report.sites.order),
        "sites": _sites(report, stacks, texts),
        "losses": [asdict(loss) for loss in report.losses],
        "notes": list(report.notes),
        "untraced": [list(each) for each in report.untraced],
        "scans": [asdict(scan) for scan in report.scans],
        "pointers": [asdict(note) for note in report.pointers],
        "sources": [asdict(each) for each in report.sources],
        "cross": list(cross_lines.lines(report, CROSS_ROWS)),
        "processes": [_process(target) for target in _largest(report.targets)],
        "misuses": _misuses(report, stacks),
    }
    return made | stacks.document() | {"texts": texts.document()}


def title(report: Report) -> str:
    """Return what a report is of in a few words."""
    if not report.targets:
        return "kernel memory" if report.sources else "no process"
    first, more = report.targets[0], len(report.targets) - 1
    others = f" and {more} other process{'es' if more > 1 else ''}" if more else ""
    return f"{first.comm} (pid {first.pid}){others}"


def excerpts_document(excerpts: Mapping[str, Excerpt], texts: Texts) -> dict[str, Any]:
    """Return lines of source by the number of the file's name."""
    return {str(texts(file)): {"changed": excerpt.changed, "lines": list(excerpt.lines.items())}
            for file, excerpt in excerpts.items()}


def places(frames: Sequence[Frame]) -> list[tuple[str, int]]:
    """Return where in the source frames are, as far as is known."""
    return [(frame.file, frame.line) for frame in frames if frame.file and frame.line]


def _sites(report: Report, stacks: Stacks, texts: Texts) -> dict[str, list[Any]]:
    findings = report.findings
    table = report.sites
    keys = [f"{each.rank:x}" for each in findings] if table is None else [
        f"{key:x}" for key in table.key[table.order[: len(findings)]].tolist()]
    return {
        "key": keys,
        "stack": [stacks.add(each.frames) for each in findings],
        "name": [texts(_known_by(each)) for each in findings],
        "source": [texts(each.source) for each in findings],
        "pid": [each.pid for each in findings],
        "processes": [each.processes for each in findings],
        "stacks": [each.stacks for each in findings],
        "bytes": [each.bytes for each in findings],
        "count": [each.count for each in findings],
        "allocatedBytes": [each.allocated_bytes for each in findings],
        "allocated": [each.allocated_count for each in findings],
        "freed": [each.freed_count for each in findings],
        "oldest": [_number(each.oldest_s) for each in findings],
        "gained": [each.gained_bytes for each in findings],
        "gainedCount": [each.gained_count for each in findings],
        "growth": [_growth(each) for each in findings],
        "slope": [[_number(end) for end in each.slope] if each.slope else None for each in findings],
        "loss": [_number(each.expected_loss) for each in findings],
        "error": [_number(each.error) for each in findings],
        "verdict": [VERDICTS.index(each.verdict) if each.verdict in VERDICTS else 0 for each in findings],
        "confidence": [_CONFIDENCES.index(each.confidence) if each.confidence in _CONFIDENCES else 0
                       for each in findings],
        "evidence": [texts(each.evidence) for each in findings],
        "reachability": [_kinds(each.reachability) for each in findings],
        "about": [texts(kernel_lines.describe(each)) for each in findings],
        "blocks": [[[f"{block.address:x}", block.size] for block in each.blocks[:BLOCKS]] for each in findings],
    }


def _known_by(finding: Finding) -> str:
    name = wording.known_by(finding.frames)
    module = finding.frames[0].module if finding.frames else None
    return name or (module.rpartition("/")[2] if module else "no name")


def _growth(finding: Finding) -> float | None:
    """Return bytes a second over the whole trace where that is known, else since the report before."""
    over_all = _number(finding.slope[0]) if finding.slope else None
    return over_all if over_all is not None else _number(finding.growth_bytes_per_s)


def _number(value: float | None) -> float | None:
    return round(value, 3) if value is not None and isfinite(value) else None


def _kinds(reachability: Reachability | None) -> list[tuple[int, int]] | None:
    """Return bytes and blocks that are definitely, indirectly and possibly lost, and reachable."""
    if reachability is None:
        return None
    return [reachability.definitely, reachability.indirectly, reachability.possibly, reachability.reachable]


def _memory(head: MemoryHead) -> dict[str, Any]:
    return {
        "title": memory_head.lines(head)[0],
        "rss": head.rss,
        "conclusion": memory_head.conclusion(head),
        "limit": [line.strip() for line in memory_head.limit_lines(head.limit)],
        "parts": [{"name": part.name, "label": memory_head.label(head, part.name), "bytes": part.bytes,
                   "growth": _number(part.growth_bytes_per_s)}
                  for part in sorted(head.parts, key=lambda part: -part.bytes) if part.bytes],
    }


def _largest(targets: Sequence[Target]) -> list[Target]:
    return sorted(targets, key=lambda each: -(each.totals.live_bytes if each.totals else 0))[:PROCESSES]


def _process(target: Target) -> dict[str, Any]:
    return {
        "name": processes.name(target),
        "line": processes.describe(target),
        "pid": target.pid,
        "exe": target.exe,
        "totals": asdict(target.totals) if target.totals else None,
        "shares": [[share.rank, share.bytes, share.count] for share in target.shares],
    }


def _misuses(report: Report, stacks: Stacks) -> dict[str, Any] | None:
    if report.misuses is None:
        return None

    def stack(frames: tuple[Frame, ...] | None) -> int | None:
        return None if frames is None else stacks.add(frames)

    return {
        "undecided": report.misuses.undecided,
        "found": [{"kind": each.kind.value, "sentence": misuses.sentence(each), "allocated": stack(each.allocated),
                   "before": stack(each.freed_before), "freed": stack(each.freed)} for each in report.misuses.found],
    }
