"""A judgement as SARIF 2.1.0, for code scanning: what failed, and what was accepted.

Sections are those of https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/sarif-v2.1.0-errata01-os-complete.html
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC
from typing import Any, TextIO

from symbolizer.frame import Frame
from tracer.report import for_machines
from tracer.report.misuse_model import Kind, Misuse
from tracer.report.misuses import sentence
from tracer.report.model import Finding, Judged, Judgement, LossNote, Outcome, Report
from tracer.report.sarif_places import SOURCE_ROOT, Files, file_uri, frame_of, message, place_of
from tracer.report.wording import held

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
FINGERPRINT = "leaktraceFingerprint/v1"

_SITE, _TOTAL = "outstanding-memory", "total-over-budget"
_MISUSES = {
    Kind.MISMATCH: "leaktrace/mismatched-free",
    Kind.DOUBLE: "leaktrace/double-free",
    Kind.UNKNOWN: "leaktrace/unknown-free",
}
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
        "shortDescription": {"text": "More in total than allowed"},
        "fullDescription": {"text": "A sum over the run, of memory held at its end or of misused frees, is too large."},
        "help": {"text": "Look at the largest call sites and the most frequent misused frees of the report first."},
        "defaultConfiguration": {"level": "error"},
        "properties": {"tags": ["memory", "leak"]},
    },
    {
        "id": _MISUSES[Kind.MISMATCH],
        "name": "MismatchedFree",
        "shortDescription": {"text": "A block is freed by a function of another kind"},
        "fullDescription": {"text": "A block of malloc, new or new[] is freed by what is not its counterpart."},
        "help": {"text": "Use free for malloc, delete for new and delete[] for new[]."},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["memory", "free"]},
    },
    {
        "id": _MISUSES[Kind.DOUBLE],
        "name": "DoubleFree",
        "shortDescription": {"text": "A block is freed twice"},
        "fullDescription": {"text": "A block is freed that was freed before, and was not given out again since."},
        "help": {"text": "Find out which of the two places owns the block; the other one must not free it."},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["memory", "free"]},
    },
    {
        "id": _MISUSES[Kind.UNKNOWN],
        "name": "UnknownFree",
        "shortDescription": {"text": "What is freed is no block"},
        "fullDescription": {"text": "An address is freed that no allocator gave, or that was freed long before."},
        "help": {"text": "Find out where the pointer comes from; it may lead into a block, or to other memory."},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["memory", "free"]},
    },
)
_INDEX = {rule["id"]: index for index, rule in enumerate(_RULES)}


def write(report: Report, judgement: Judgement, out: TextIO, *, folder: str, version: str) -> None:
    """Write one log with one run.

    folder: absolute path of the sources; files below it are named relative to it. version: leaktrace's own.
    """
    json.dump(document(report, judgement, folder=folder, version=version), out, ensure_ascii=True, indent=2)
    out.write("\n")
    out.flush()


def document(report: Report, judgement: Judgement, *, folder: str, version: str) -> dict[str, Any]:
    """Return the log as JSON's own types."""
    files = Files(folder, {target.pid: target for target in report.targets})
    results = [_total(expression, report, files) for expression in judgement.failed_totals]
    results += [_result(site, files) for site in judgement.sites if site.outcome is not Outcome.PASSED]
    if report.misuses is not None:
        reason = for_machines.failed_on_misuses(judgement)
        results += [_misuse(misuse, reason, files) for misuse in report.misuses.found]
    return {
        "$schema": SCHEMA,
        "version": "2.1.0",
        "runs": [{
            "tool": {"driver": {"name": "leaktrace", "version": version, "rules": list(_RULES)}},
            "invocations": [_invocation(report, judgement)],
            "originalUriBaseIds": {SOURCE_ROOT: {"uri": file_uri(folder.rstrip("/") + "/")}},
            "results": results,
        }],
    }


def _invocation(report: Report, judgement: Judgement) -> dict[str, Any]:
    notices = [_notice(loss) for loss in report.losses]
    if not report.complete:
        notices.insert(0, {"level": "error", "descriptor": {"id": "incomplete"}, "message": message(
            "The measurement is not complete: memory may be missing from the results.")})
    return {
        "executionSuccessful": report.complete,
        "exitCode": judgement.exit_code,
        "endTimeUtc": report.taken.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "toolExecutionNotifications": notices,
        "toolConfigurationNotifications": [
            {"level": "warning", "descriptor": {"id": "unused-suppression"},
             "message": message(f"Nothing matched the suppression {name}.")}
            for name in judgement.unused_suppressions],
    }


def _notice(loss: LossNote) -> dict[str, Any]:
    return {
        "level": "warning",
        "descriptor": {"id": loss.name},
        "message": message(f"{loss.count} {loss.meaning}. Remedy: {loss.remedy}."),
        "properties": {"count": loss.count, "bytes": loss.bytes},
    }


def _total(expression: str, report: Report, files: Files) -> dict[str, Any]:
    totals = report.totals
    first = report.targets[0].pid if report.targets else 0
    return {
        "ruleId": _TOTAL,
        "ruleIndex": _INDEX[_TOTAL],
        "level": "error",
        "message": message(f"{for_machines.in_total(report, expression)}, over the budget: {expression}."),
        "locations": [{"physicalLocation": files.program((), first)}],
        "partialFingerprints": {FINGERPRINT: expression},
        "properties": {"bytes": totals.live_bytes, "count": totals.live_count, "reason": expression,
                       "misuses": report.misuses.count if report.misuses is not None else None},
    }


def _result(site: Judged, files: Files) -> dict[str, Any]:
    finding = site.finding
    failed = site.outcome is Outcome.FAILED
    blamed = files.blamed(finding.frames)
    what = held(finding)
    by = f", allocated by {blamed.function}" if blamed and blamed.function else ""
    reason = f"Over the budget: {site.reason}" if failed else f"Accepted: {site.reason}"
    verdict = for_machines.verdict(finding)
    result = {
        "ruleId": _SITE,
        "ruleIndex": _INDEX[_SITE],
        "level": "error" if failed else "note",
        "message": message(f"{what}{by}. {reason}.{f' {verdict}.' if verdict else ''}"),
        "locations": [place_of(blamed, files.source(blamed) or files.program(finding.frames, finding.pid))],
        "partialFingerprints": {FINGERPRINT: site.fingerprint} if site.fingerprint else {},
        "properties": _figures(finding) | {"outcome": site.outcome.value, "reason": site.reason},
    }
    if finding.frames:
        result["stacks"] = [_stack("allocated", finding.frames, files)]
    if not failed:
        result["suppressions"] = [{"kind": "external", "status": "accepted", "justification": site.reason}]
    return result


def _misuse(misuse: Misuse, failed: str, files: Files) -> dict[str, Any]:
    """Return the result of a wrong free; failed: the expressions over the budget that name them."""
    blamed = files.blamed(misuse.freed)
    rule = _MISUSES[misuse.kind]
    stacks = for_machines.stacks(misuse)
    return {
        "ruleId": rule,
        "ruleIndex": _INDEX[rule],
        "level": "error" if failed else "warning",
        "message": message(f"{sentence(misuse)}.{f' Over the budget: {failed}.' if failed else ''}"),
        "locations": [place_of(blamed, files.source(blamed) or files.program(misuse.freed, misuse.pid))],
        "relatedLocations": [_related(done, frames, misuse.pid, files)
                             for done, frames in stacks if done != "freed"],
        "stacks": [_stack(done, frames, files) for done, frames in stacks],
        "partialFingerprints": {FINGERPRINT: for_machines.fingerprint(misuse)},
        "properties": {
            "pid": misuse.pid, "count": misuse.count, "kind": misuse.kind.value, "allocated_by": misuse.allocated_by,
            "freed_by": misuse.freed_by, "freed_before_by": misuse.freed_before_by, "reason": failed,
        },
    }  # fmt: skip


def _related(done: str, frames: tuple[Frame, ...], pid: int, files: Files) -> dict[str, Any]:
    blamed = files.blamed(frames)
    by = f" by {blamed.function}" if blamed and blamed.function else ""
    return place_of(blamed, files.source(blamed) or files.program(frames, pid)) | {
        "message": message(f"It was {done} here{by}.")}


def _stack(done: str, frames: tuple[Frame, ...], files: Files) -> dict[str, Any]:
    return {"message": message(f"Where it was {done}, innermost call first."),
            "frames": [frame_of(frame, files) for frame in frames]}


def _figures(finding: Finding) -> dict[str, Any]:
    return {
        "pid": finding.pid, "source": finding.source, "bytes": finding.bytes, "count": finding.count,
        "allocated_bytes": finding.allocated_bytes, "allocated_count": finding.allocated_count,
        "freed_count": finding.freed_count, "oldest_s": finding.oldest_s,
        "growth_bytes_per_s": finding.growth_bytes_per_s, "relative_error": finding.error, "stacks": finding.stacks,
        "verdict": finding.verdict, "confidence": finding.confidence, "reachability": _kinds(finding),
    }  # fmt: skip


def _kinds(finding: Finding) -> dict[str, dict[str, int]] | None:
    if finding.reachability is None:
        return None
    return {kind: {"bytes": size, "count": count} for kind, (size, count) in asdict(finding.reachability).items()}
