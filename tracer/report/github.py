"""A judgement as GitHub's workflow commands: marks at the lines of a pull request, and at the step that failed.

https://docs.github.com/actions/reference/workflow-commands-for-github-actions; the escapes are those of
actions/toolkit, packages/core/src/command.ts. The lines must reach the step's standard output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TextIO

from symbolizer.frame import Frame
from tracer.report import for_machines
from tracer.report.misuse_model import Misuse
from tracer.report.misuses import sentence
from tracer.report.model import Judged, Judgement, Outcome, Report
from tracer.report.wording import below, held

#: GitHub shows that many errors of one step, and as many warnings, and drops the others without a word
#: (actions/toolkit pull request 734).
MOST_ERRORS = 10
#: A mark is for a glance; the whole stack is in the other formats.
MOST_FRAMES = 20


def write(report: Report, judgement: Judgement, out: TextIO, *, workspace: str | None) -> None:
    """Write an error for each thing that fails, those of the whole run first; workspace: $GITHUB_WORKSPACE.

    Wrong frees are errors where a budget that names them fails, else warnings.
    """
    failed = for_machines.failed_on_misuses(judgement)
    misuses = [_misuse(misuse, failed, workspace) for misuse in (report.misuses.found if report.misuses else ())]
    errors = [*_of_run(report, judgement), *(misuses if failed else ())]
    errors += [_site(site, workspace) for site in judgement.sites if site.outcome is Outcome.FAILED]
    warnings = []
    if judgement.unused_suppressions:
        names = "\n".join(judgement.unused_suppressions)
        warnings.append(_command("warning", f"Nothing matched these suppressions:\n{names}",
                                 title="leaktrace: suppressions"))
    warnings += [] if failed else misuses
    out.writelines(_shown("error", errors))
    out.writelines(_shown("warning", warnings))
    out.flush()


def _shown(name: str, commands: list[str]) -> list[str]:
    """Return as many as GitHub shows, the last of which says how many more there are."""
    if len(commands) <= MOST_ERRORS:
        return commands
    more = len(commands) - MOST_ERRORS + 1
    said = _command(name, f"{more} more {name}s are not shown here: GitHub shows {MOST_ERRORS} of a step.",
                    title=f"leaktrace: {more} more")
    return [*commands[:MOST_ERRORS - 1], said]


def _of_run(report: Report, judgement: Judgement) -> Iterator[str]:
    if not report.complete:
        losses = [f"{loss.count} {loss.meaning}: {loss.remedy}" for loss in report.losses]
        yield _command("error", "\n".join(["Memory may be missing from the report.", *losses]),
                       title="leaktrace: the measurement is not complete")
    for expression in judgement.failed_totals:
        yield _command("error", f"Over the budget: {expression}",
                       title=f"leaktrace: {for_machines.in_total(report, expression)}")


def _site(site: Judged, workspace: str | None) -> str:
    finding = site.finding
    verdict = for_machines.verdict(finding)
    lines = [f"Over the budget: {site.reason}", *([verdict] if verdict else []), *_stack(finding.frames)]
    return _command("error", "\n".join(lines), **_place(finding.frames, workspace), title=f"leaktrace: {held(finding)}")


def _misuse(misuse: Misuse, failed: str, workspace: str | None) -> str:
    lines = [sentence(misuse)]
    for done, frames in for_machines.stacks(misuse):
        lines += [f"{done}:", *_stack(frames)]
    if failed:
        lines.insert(0, f"Over the budget: {failed}")
    return _command("error" if failed else "warning", "\n".join(lines), **_place(misuse.freed, workspace),
                    title=f"leaktrace: {for_machines.title(misuse)}")


def _stack(frames: Sequence[Frame]) -> Iterator[str]:
    yield from map(_line, frames[:MOST_FRAMES])
    if len(frames) > MOST_FRAMES:
        yield f"and {len(frames) - MOST_FRAMES} more frames"


def _place(frames: Sequence[Frame], workspace: str | None) -> dict[str, str]:
    """Return file and line of the innermost frame in the workspace, nothing if there is none."""
    for frame in frames:
        path = below(workspace, frame.file)
        if path and frame.line:
            return {"file": path, "line": str(frame.line)}
    return {}


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
