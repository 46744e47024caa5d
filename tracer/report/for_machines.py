"""What the formats for machines say alike: of sums, of verdicts, and of frees that are wrong."""

from __future__ import annotations

import re
from hashlib import sha256

from symbolizer.frame import Frame
from tracer.report.misuse_model import Kind, Misuse
from tracer.report.model import Finding, Judgement, Report
from tracer.report.wording import amount

# What is hashed, and how: with another number no fingerprint is an earlier one by chance.
_VERSION = "misuse/1"
_NAMES_MISUSES = re.compile(r"\bmisuses\b")
#: An update renames libz.so.1.2.13, and a compiler makes clones as `f(int) [.cold]`, other ones with every build.
_LIBRARY_VERSION = re.compile(r"(?:-[0-9][0-9.]*)?\.so(?:\.[0-9]+)*$")
_CLONE = re.compile(r" \[\.[^\]]*\]$")
_WHAT = {Kind.MISMATCH: "mismatched free", Kind.DOUBLE: "double free", Kind.UNKNOWN: "free of an unknown address"}


def verdict(finding: Finding) -> str:
    """Return the verdict, how sure it is and why, in one sentence without its full stop; empty where there is none."""
    if finding.verdict is None:
        return ""
    sure = f" ({finding.confidence} confidence)" if finding.confidence is not None else ""
    return f"{finding.verdict}{sure}{f': {finding.evidence}' if finding.evidence else ''}"


def in_total(report: Report, expression: str) -> str:
    """Return in words what an expression over the sums compares."""
    totals, misuses = report.totals, report.misuses
    held = f"{amount(totals.live_bytes, totals.live_count)} in total"
    if misuses is None or not _NAMES_MISUSES.search(expression):
        return held
    wrong = f"{misuses.count} misused free{'' if misuses.count == 1 else 's'}"
    return f"{held} and {wrong}" if "total_" in expression else f"{wrong} in total"


def failed_on_misuses(judgement: Judgement) -> str:
    """Return the failed expressions that name wrong frees, empty if there are none."""
    return "; ".join(each for each in judgement.failed_totals if _NAMES_MISUSES.search(each))


def title(misuse: Misuse) -> str:
    """Return what is wrong with a free and where, by what stays when the program is built again."""
    function = next((frame.function for frame in misuse.freed if frame.function), "unknown function")
    return f"{_WHAT[misuse.kind]} in {function}"


def stacks(misuse: Misuse) -> list[tuple[str, tuple[Frame, ...]]]:
    """Return the stacks that are known, in the order in which it happened, each with what was done there."""
    named = (("allocated", misuse.allocated), ("freed before", misuse.freed_before), ("freed", misuse.freed))
    return [(done, frames) for done, frames in named if frames]


def fingerprint(misuse: Misuse) -> str:
    """Return 16 hex digits that depend on what is wrong, and the functions and files of the three stacks.

    A rebuild, another process and another count change nothing.
    """
    parts = [_VERSION, misuse.kind.value, misuse.allocated_by or "", misuse.freed_by, misuse.freed_before_by or ""]
    for stack in (misuse.allocated, misuse.freed_before, misuse.freed):
        names: list[str] = []
        for frame in stack or ():
            module = (frame.module or "").removesuffix(" (deleted)").rpartition("/")[2]
            name = f"{_CLONE.sub('', frame.function or '')}\0{_LIBRARY_VERSION.sub('.so', module)}"
            # How often a function called itself, and how many frames of a file have no name, says nothing of the place.
            if names[-1:] != [name]:
                names.append(name)
        parts.append("\1".join(names))
    return sha256("\2".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:16]
