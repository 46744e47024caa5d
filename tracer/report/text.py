"""The plain report, in memleak's form, so that what reads memleak's output reads this."""

from __future__ import annotations

from typing import TextIO

from symbolizer.frame import Frame, Why
from tracer.report import cross_lines, kernel_lines, memory_head, misuses, processes, verdict_lines
from tracer.report.model import Finding, Report

#: Processes that are shown.
PROCESSES = 10
#: What stands in a frame's place when it has no name.
_WHY = {
    Why.UNMAPPED: "nothing is mapped there",
    Why.NO_SYMBOLS: "no symbols",
    Why.NOT_COVERED: "no symbol covers it",
    Why.GONE: "file gone",
    Why.UNREADABLE: "file unreadable",
}


def write(report: Report, out: TextIO) -> None:
    """Write one report: what is to be said of each site in a line, then the time, then each site with its stack."""
    time = report.taken.strftime("%H:%M:%S")
    for head in report.memory:
        out.writelines(f"{line}\n" for line in memory_head.lines(head))
    out.writelines(f"{line}\n" for line in kernel_lines.head(report))
    verdict_lines.write(report, out)
    out.write(f"[{time}] Top {len(report.findings)} stacks with outstanding allocations:\n")
    if report.sampling:
        error = f", ±{report.total_error:.0%} in total" if report.total_error else ""
        out.write(f"\t(estimates from {report.sampling}{error}; ± is one standard error)\n")
    several = len(report.targets) > 1 or report.follows
    for finding in report.findings:
        _write_finding(finding, out, several=several)
    if report.misuses is not None:
        misuses.write(report.misuses, out, describe)
    processes.write(report, out, top=PROCESSES)
    out.writelines(f"{line}\n" for line in cross_lines.lines(report, max(1, len(report.findings))))
    for note in report.notes:
        out.write(f"{note}{'' if note.endswith('.') else '.'}\n")
    out.flush()


def _write_finding(finding: Finding, out: TextIO, *, several: bool) -> None:
    for block in finding.blocks:
        out.write(f"\taddr = {block.address:x} size = {block.size}\n")
    out.write(f"\t{finding.bytes} bytes in {finding.count} allocations from stack{_remarks(finding, several)}\n")
    write_stack(finding, out)


def write_stack(finding: Finding, out: TextIO) -> None:
    """Write a line for each frame; before them, of a site of the kernel, what it says of it."""
    about = kernel_lines.describe(finding)
    if about is not None:
        out.write(f"\t\t{about}\n")
    for frame in finding.frames:
        out.write(f"\t\t{describe(frame)}\n")


def _remarks(finding: Finding, several: bool) -> str:
    remarks = []
    if finding.gained_bytes is not None and finding.gained_count is not None:
        remarks.append(f"{finding.gained_bytes:+d} bytes, {finding.gained_count:+d} allocations")
    if finding.error:
        remarks.append(f"±{finding.error:.0%}")
    if several:
        remarks.append(f"site {finding.rank}, {where(finding)}")
    return f" ({'; '.join(remarks)})" if remarks else ""


def where(finding: Finding) -> str:
    """Return which process holds what a site has, or how many do."""
    return f"pid {finding.pid}" if finding.processes == 1 else f"in {finding.processes} processes"


def describe(frame: Frame) -> str:
    """Return one line for a frame: address, function+offset, [module], file:line."""
    if frame.why is Why.UNWIND_STOPPED and not frame.address:
        return "(no room was left to record their stacks)"
    if frame.why is Why.UNWIND_STOPPED:
        return "(the stack could not be followed further)"
    parts = [f"{frame.address:#018x}"]
    if frame.function is not None:
        offset = "" if frame.offset is None or frame.inlined else f"+{frame.offset:#x}"
        parts.append(f"{frame.function}{offset}")
    elif frame.why is not None:
        parts.append(f"({_WHY[frame.why]})")
    if frame.inlined:
        parts.append("[inlined]")
    if frame.repeats > 1:
        parts.append(f"(x{frame.repeats})")
    if frame.module is not None:
        # Who has the symbols elsewhere can look the address up there.
        offset = f"+{frame.module_offset:#x}" if frame.function is None and frame.module_offset is not None else ""
        parts.append(f"[{frame.module.rpartition('/')[2]}{offset}]")
    if frame.file is not None:
        parts.append(f"{frame.file}:{frame.line}" if frame.line else frame.file)
    return " ".join(parts)
