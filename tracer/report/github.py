"""A judgement as GitHub's workflow commands: marks at the lines of a pull request, and at the step that failed.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions; the escapes are those of
actions/toolkit, packages/core/src/command.ts. The lines must reach the step's standard output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TextIO

from symbolizer.frame import Frame
from tracer.report.model import Judged, Judgement, Outcome, Report
from tracer.report.wording import amount, below, held

#: GitHub shows that many errors of one step, and drops the others without a word (actions/toolkit pull request 734).
MOST_ERRORS = 10
#: A mark is for a glance; the whole stack is in the other formats.
MOST_FRAMES = 20


def write(report: Report, judgement: Judgement, out: TextIO, *, workspace: str | None) -> None:
    """Write an error for each thing that fails, those of the whole run first; workspace: $GITHUB_WORKSPACE."""
    errors = list(_errors(report, judgement, workspace))
    if len(errors) > MOST_ERRORS:
        more = len(errors) - MOST_ERRORS + 1
        del errors[MOST_ERRORS - 1:]
        errors.append(_command("error", f"{more} more errors are not shown here: GitHub shows {MOST_ERRORS} of a step.",
                               title=f"leaktrace: {more} more"))
    out.writelines(errors)
    if judgement.unused_suppressions:
        names = "\n".join(judgement.unused_suppressions)
        out.write(_command("warning", f"Nothing matched these suppressions:\n{names}", title="leaktrace: suppressions"))
    out.flush()


def _errors(report: Report, judgement: Judgement, workspace: str | None) -> Iterator[str]:
    if not report.complete:
        losses = [f"{loss.count} {loss.meaning}: {loss.remedy}" for loss in report.losses]
        yield _command("error", "\n".join(["Memory may be missing from the report.", *losses]),
                       title="leaktrace: the measurement is not complete")
    for expression in judgement.failed_totals:
        total = amount(report.totals.live_bytes, report.totals.live_count)
        yield _command("error", f"Over the budget: {expression}", title=f"leaktrace: {total} in total")
    for site in judgement.sites:
        if site.outcome is Outcome.FAILED:
            yield _site(site, workspace)


def _site(site: Judged, workspace: str | None) -> str:
    finding = site.finding
    lines = [f"Over the budget: {site.reason}", *map(_line, finding.frames[:MOST_FRAMES])]
    if len(finding.frames) > MOST_FRAMES:
        lines.append(f"and {len(finding.frames) - MOST_FRAMES} more frames")
    place = {}
    for frame in finding.frames:
        path = below(workspace, frame.file)
        if path and frame.line:
            place = {"file": path, "line": str(frame.line)}
            break
    return _command("error", "\n".join(lines), **place, title=f"leaktrace: {held(finding)}")


def _line(frame: Frame) -> str:
    name = frame.function or f"({frame.why.value if frame.why else 'no name'})"
    place = f"{frame.file}:{frame.line}" if frame.file and frame.line else frame.file or frame.module
    return f"{name} ({place})" if place else name


def _command(name: str, message: str, **properties: str) -> str:
    written = ",".join(f"{key}={_property(value)}" for key, value in properties.items())
    return f"::{name} {written}::{_data(message)}\n"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
