"""The processes of a report, a line each: who it was, what it holds, and at which sites."""

from __future__ import annotations

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import TextIO

from tracer.report.model import ContainerNote, Report, Target

#: Sites that are named of one process.
SITES = 4
#: Digits of a container's id, as docker shows it.
SHORT_ID = 12


def write(report: Report, out: TextIO, *, top: int) -> None:
    """Write a line for each process that holds anything, the largest first, at most `top`.

    Of one process that stands alone, only the container that it is in.
    """
    if len(report.targets) < 2 and not report.follows:
        for target in report.targets:
            if target.container:
                runtime = f"{target.container.runtime} " if target.container.runtime else ""
                out.write(f"in {runtime}container {_called(target.container)}\n")
        return
    order = sorted(report.targets, key=lambda target: -(target.totals.live_bytes if target.totals else 0))
    shown = [target for target in order if target.totals and target.totals.live_count][:top]
    count = len(report.targets)
    if not count:
        out.write("no process of the selection has come yet\n")
        return
    out.write(f"{count} process{'' if count == 1 else 'es'}{':' if shown else ', which hold nothing'}\n")
    for target in shown:
        out.write(f"\t{describe(target)}\n")
    rest = [target for target in order if target not in shown]
    if shown and rest:
        out.write(f"\tand {len(rest)} more: {_amount(rest)}\n")


def describe(target: Target) -> str:
    """Return one line for a process."""
    sites = ", ".join(f"{share.bytes} at site {share.rank}" for share in target.shares[:SITES])
    more = len(target.shares) - SITES
    parts = [f"{name(target)}: {_amount([target])}"]
    if sites:
        parts[0] += f" ({sites}{f', and at {more} more' if more > 0 else ''})"
    if target.inherited and target.inherited[1]:
        parts.append(f"inherited {target.inherited[0]} bytes in {_allocations(target.inherited[1])}")
    if target.dropped[1]:
        parts.append(f"{target.dropped[0]} bytes in {_allocations(target.dropped[1])} went with exec")
    return "; ".join(parts)


def name(target: Target) -> str:
    """Return what a process is known by, and what became of it."""
    remarks = [f"child of {target.parent}"] if target.parent is not None else []
    if target.container:
        remarks.append(f"container {_called(target.container)}")
    if target.ended:
        remarks.append(_end(target.status))
    return f"{target.comm} (pid {', '.join([str(target.pid), *remarks])})"


def _called(container: ContainerNote) -> str:
    """Return a container's name and, where that is not all there is, its id in short."""
    short = container.id[:SHORT_ID]
    return container.label if container.label in (short, container.id) else f"{container.label} {short}"


def _end(status: int | None) -> str:
    if status is None:
        return "ended"
    code = os.waitstatus_to_exitcode(status)
    if code >= 0:
        return f"exit code {code}" if code else "ended"
    with suppress(ValueError):
        return f"ended by {signal.Signals(-code).name}"
    return f"ended by signal {-code}"


def _amount(targets: Sequence[Target]) -> str:
    totals = [target.totals for target in targets if target.totals]
    count = sum(each.live_count for each in totals)
    return f"{sum(each.live_bytes for each in totals)} bytes in {_allocations(count)}"


def _allocations(count: int) -> str:
    return f"{count} allocation{'' if count == 1 else 's'}"
