"""A judgement as SARIF 2.1.0, for code scanning: what failed, and what was accepted.

Sections are those of https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/sarif-v2.1.0-errata01-os-complete.html
"""

from __future__ import annotations

import json
import posixpath
from datetime import UTC
from typing import Any, TextIO
from urllib.parse import quote

from symbolizer.frame import Frame
from tracer.report.model import Finding, Judged, Judgement, LossNote, Outcome, Report, Target
from tracer.report.wording import amount, below, held

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
#: The name that GitHub and others know for the folder of the sources.
SOURCE_ROOT = "%SRCROOT%"
FINGERPRINT = "leaktraceFingerprint/v1"

_SITE, _TOTAL = "outstanding-memory", "total-over-budget"
_RULES: tuple[dict[str, Any], ...] = (
    {
        "id": _SITE,
        "name": "OutstandingMemory",
        "shortDescription": {"text": "Memory that is not given back"},
        "fullDescription": {"text": "A call site holds more memory at the end of the run than its budget allows."},
        "help": {"text": "Find out who should free what is allocated here. If it is kept on purpose, suppress the site "
                         "or raise the budget."},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["memory", "leak"]},
    },
    {
        "id": _TOTAL,
        "name": "TotalOverBudget",
        "shortDescription": {"text": "More memory in total than allowed"},
        "fullDescription": {"text": "All call sites together hold more memory at the end of the run than allowed."},
        "help": {"text": "Look at the largest call sites of the report first."},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["memory", "leak"]},
    },
)


def write(report: Report, judgement: Judgement, out: TextIO, *, folder: str, version: str) -> None:
    """Write one log with one run.

    folder: absolute path of the sources; files below it are named relative to it. version: leaktrace's own.
    """
    json.dump(document(report, judgement, folder=folder, version=version), out, ensure_ascii=True, indent=2)
    out.write("\n")
    out.flush()


def document(report: Report, judgement: Judgement, *, folder: str, version: str) -> dict[str, Any]:
    """Return the log as JSON's own types."""
    files = _Files(folder, {target.pid: target for target in report.targets})
    results = [_total(expression, report, files) for expression in judgement.failed_totals]
    results += [_result(site, files) for site in judgement.sites if site.outcome is not Outcome.PASSED]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "leaktrace", "version": version, "rules": list(_RULES)}},
            "invocations": [_invocation(report, judgement)],
            "originalUriBaseIds": {SOURCE_ROOT: {"uri": _file_uri(folder.rstrip("/") + "/")}},
            "results": results,
        }],
    }


def _invocation(report: Report, judgement: Judgement) -> dict[str, Any]:
    notices = [_notice(loss) for loss in report.losses]
    if not report.complete:
        notices.insert(0, {"level": "error", "descriptor": {"id": "incomplete"}, "message": _message(
            "The measurement is not complete: memory may be missing from the results.")})
    return {
        "executionSuccessful": report.complete,
        "exitCode": judgement.exit_code,
        "endTimeUtc": report.taken.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "toolExecutionNotifications": notices,
        "toolConfigurationNotifications": [
            {"level": "warning", "descriptor": {"id": "unused-suppression"},
             "message": _message(f"Nothing matched the suppression {name}.")}
            for name in judgement.unused_suppressions],
    }


def _notice(loss: LossNote) -> dict[str, Any]:
    return {
        "level": "warning",
        "descriptor": {"id": loss.name},
        "message": _message(f"{loss.count} {loss.meaning}. Remedy: {loss.remedy}."),
        "properties": {"count": loss.count, "bytes": loss.bytes},
    }


def _total(expression: str, report: Report, files: _Files) -> dict[str, Any]:
    totals = report.totals
    total = amount(totals.live_bytes, totals.live_count)
    first = report.targets[0].pid if report.targets else 0
    return {
        "ruleId": _TOTAL,
        "ruleIndex": 1,
        "level": "error",
        "message": _message(f"{total} in total, over the budget: {expression}."),
        "locations": [{"physicalLocation": files.program((), first)}],
        "partialFingerprints": {FINGERPRINT: expression},
        "properties": {"bytes": totals.live_bytes, "count": totals.live_count, "reason": expression},
    }


def _result(site: Judged, files: _Files) -> dict[str, Any]:
    finding = site.finding
    failed = site.outcome is Outcome.FAILED
    blamed = files.blamed(finding.frames)
    what = held(finding)
    by = f", allocated by {blamed.function}" if blamed and blamed.function else ""
    reason = f"Over the budget: {site.reason}" if failed else f"Accepted: {site.reason}"
    result = {
        "ruleId": _SITE,
        "ruleIndex": 0,
        "level": "error" if failed else "note",
        "message": _message(f"{what}{by}. {reason}."),
        "locations": [_place(blamed, files.source(blamed) or files.program(finding.frames, finding.pid))],
        "partialFingerprints": {FINGERPRINT: site.fingerprint} if site.fingerprint else {},
        "properties": _figures(finding) | {"outcome": site.outcome.value, "reason": site.reason},
    }
    if finding.frames:
        result["stacks"] = [{"message": _message("Where it was allocated, innermost call first."),
                             "frames": [_frame(frame, files) for frame in finding.frames]}]
    if not failed:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": site.reason}]
    return result


def _figures(finding: Finding) -> dict[str, Any]:
    return {
        "pid": finding.pid, "source": finding.source, "bytes": finding.bytes, "count": finding.count,
        "allocated_bytes": finding.allocated_bytes, "allocated_count": finding.allocated_count,
        "freed_count": finding.freed_count, "oldest_s": finding.oldest_s,
        "growth_bytes_per_s": finding.growth_bytes_per_s, "relative_error": finding.error, "stacks": finding.stacks,
    }  # fmt: skip


def _frame(frame: Frame, files: _Files) -> dict[str, Any]:
    made: dict[str, Any] = {"location": _place(frame, files.source(frame))}
    if frame.module:
        made["module"] = frame.module
    # As text: many readers have no 64-bit unsigned numbers, which addresses in the kernel are.
    made["properties"] = {"address": f"{frame.address:#x}", "offset": frame.offset, "build_id": frame.build_id,
                          "inlined": frame.inlined, "repeats": frame.repeats}
    return made


def _place(frame: Frame | None, physical: dict[str, Any] | None) -> dict[str, Any]:
    """Return a location: the physical one if any, and the function, or a sentence on why it has no name."""
    place: dict[str, Any] = {"physicalLocation": physical} if physical else {}
    if frame and frame.function:
        place["logicalLocations"] = [{"fullyQualifiedName": frame.function, "kind": "function"}]
    elif frame:
        place["message"] = _message(f"No name is known for this call: {(frame.why or 'unknown').replace('_', ' ')}.")
    return place


class _Files:
    """Turns paths into SARIF's locations."""

    def __init__(self, folder: str, targets: dict[int, Target]) -> None:
        self._folder = folder
        self._targets = targets

    def blamed(self, frames: tuple[Frame, ...]) -> Frame | None:
        """Return the innermost frame in the sources; failing that in any known source, with a name, or at all.

        The standard library's headers are known sources too, and nobody looks there for a leak.
        """
        wishes = (lambda frame: below(self._folder, frame.file) and frame.line, lambda frame: frame.file and frame.line,
                  lambda frame: frame.function, lambda frame: True)
        return next((frame for wish in wishes for frame in frames if wish(frame)), None)

    def source(self, frame: Frame | None) -> dict[str, Any] | None:
        """Return file and line of a frame, None without either."""
        if not frame or not frame.file or not frame.line:
            return None
        return {"artifactLocation": self._artifact(frame.file), "region": {"startLine": frame.line}}

    def program(self, frames: tuple[Frame, ...], pid: int) -> dict[str, Any]:
        """Return something to point to where no source is known: GitHub rejects a whole log for one bare result."""
        target = self._targets.get(pid)
        module = next((frame.module for frame in frames if frame.module), None) or (target.exe if target else None)
        return {"artifactLocation": self._artifact(module or ".")}

    def _artifact(self, path: str) -> dict[str, Any]:
        relative = below(self._folder, path)
        if relative:
            return {"uri": _quoted(relative), "uriBaseId": SOURCE_ROOT}
        return {"uri": _file_uri(posixpath.normpath(posixpath.join(self._folder, path)))}


def _file_uri(path: str) -> str:
    # Two slashes at the start would name a host.
    return "file:///" + _quoted(path.lstrip("/"))


def _quoted(path: str) -> str:
    return quote(path, errors="replace")


def _message(text: str) -> dict[str, str]:
    """Return a message that reads as the text: braces doubled (3.11.5), and `operator[](int)` no link (3.11.6)."""
    return {"text": text.replace("{", "{{").replace("}", "}}").replace("](", "] (")}
