"""What the kernel says of a site, and what each source holds, in lines for people."""

from __future__ import annotations

from collections.abc import Iterator

from tracer.report import wording
from tracer.report.model import Finding, KernelNote, Report

#: Processes that are named.
NAMED = 3


def head(report: Report) -> Iterator[str]:
    """Give one line for each source."""
    for each in report.sources:
        serving = f", {wording.size(each.serving)} of it for slabs and vmalloc" if each.serving else ""
        yield f"{each.source:<8} {wording.size(each.bytes)} in {wording.blocks(each.count)}{serving}"


def describe(finding: Finding) -> str | None:
    """Return one line for a site of the kernel, None for any other."""
    note = finding.kernel
    if note is None:
        return None
    parts = [f"slab {note.cache or 'of unknown name'}" if finding.source == "slab" else _pages(note)
             if finding.source == "pages" else finding.source]
    if note.gfp:
        parts.append("|".join(note.gfp))
    if finding.bytes and note.requested_bytes < finding.bytes:
        waste = 1 - note.requested_bytes / finding.bytes
        parts.append(f"{note.requested_bytes} bytes asked for ({waste:.0%} wasted)")
    parts.append(f"node {note.node}")
    if note.processes:
        parts.append(_holders(finding, note))
    if note.unseen_frees:
        parts.append(f"{note.unseen_frees} frees were not seen")
    return ", ".join(parts)


def _pages(note: KernelNote) -> str:
    serves = f" for {note.serves}" if note.serves else ""
    return f"pages of order {note.order}{serves}"


def _holders(finding: Finding, note: KernelNote) -> str:
    named = []
    for each in note.processes[:NAMED]:
        share = f" {each.bytes / finding.bytes:.0%}" if len(note.processes) > 1 else ""
        named.append(f"{each.comm or 'ended'} ({each.pid}){share}")
    return f"for {', '.join(named)}{', …' if len(note.processes) > NAMED else ''}"
