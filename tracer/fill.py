"""Fills a Report from a Snapshot: order, growth, names."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime

import numpy as np

from symbolizer.frame import Frame
from tracer.attach.tracee import Tracee
from tracer.collect.snapshot import Snapshot, gained
from tracer.judge.ranking import rank, relative_errors
from tracer.limits import MAX_SLOTS
from tracer.losses import LOSSES
from tracer.naming import Sites
from tracer.report.model import Block, Finding, LossNote, Report, Target, Totals
from tracer.settings import Settings

SECOND = 1_000_000_000
_MEANINGS = {loss.name: loss for loss in LOSSES}


def fill_report(
    sites: Sites,
    earlier: tuple[int, Snapshot] | None,
    settings: Settings,
    tracees: Sequence[Tracee],
    *,
    elapsed_s: float,
    taken: datetime,
    kernel: str,
    last: bool,
    notes_on: Callable[[Sequence[Sequence[Frame]]], tuple[str, ...]] = lambda _: (),
) -> Report:
    """Return the report of a snapshot's sites; earlier is the snapshot before with its monotonic time in ns.

    notes_on says what the stacks that are shown lack.
    """
    snapshot = sites.snapshot
    rows = rank(snapshot, settings.sort, settings.top)
    gains = _Gains(snapshot, earlier)
    errors = relative_errors(snapshot) if settings.sampling else None
    findings = []
    for number, row in enumerate(rows.tolist(), 1):
        stack = snapshot.stacks[row]
        tracee = tracees[int(stack["image"]) % MAX_SLOTS % len(tracees)]
        counters = snapshot.counters[row]
        findings.append(
            Finding(
                rank=number,
                pid=tracee.process.pid,
                bytes=int(snapshot.live_bytes[row]),
                count=int(snapshot.live_count[row]),
                allocated_bytes=int(counters["allocated_bytes"]),
                allocated_count=int(counters["allocated_count"]),
                freed_count=int(counters["freed_count"]),
                oldest_s=_seconds(int(snapshot.oldest_ns[row])),
                growth_bytes_per_s=gains.rate(row),
                gained_bytes=gains.of_bytes(row),
                gained_count=gains.of_count(row),
                error=float(errors[row]) if errors is not None else None,
                frames=sites.frames(row),
                stacks=int(sites.stacks[row]),
                blocks=_blocks(snapshot, row),
            )
        )
    targets = tuple(Target(each.process.pid, each.process.comm, each.exe, each.children) for each in tracees)
    losses = tuple(
        LossNote(loss.name, loss.count, loss.bytes, _MEANINGS[loss.name].meaning.format(bytes=loss.bytes),
                 _MEANINGS[loss.name].remedy)
        for loss in snapshot.losses
    )
    return Report(
        taken=taken,
        elapsed_s=elapsed_s,
        kernel=kernel,
        targets=targets,
        totals=_totals(snapshot),
        findings=tuple(findings),
        losses=losses,
        complete=not any(_MEANINGS[loss.name].hides_bytes for loss in losses),
        total_error=_total_error(snapshot) if settings.sampling else None,
        sampling=_sampling(settings),
        last=last,
        notes=(*_of_children(targets), *notes_on([finding.frames for finding in findings])),
    )


def _of_children(targets: Sequence[Target]) -> list[str]:
    """Return who made processes that are not traced."""
    return [f"{each.children} child process{'es' if each.children > 1 else ''} of {each.comm} (pid {each.pid}) "
            f"{'were' if each.children > 1 else 'was'} not traced" for each in targets if each.children]


class _Gains:
    """What each row gained since the snapshot before, if there was one."""

    def __init__(self, snapshot: Snapshot, earlier: tuple[int, Snapshot] | None) -> None:
        self._seconds = (snapshot.taken_ns - earlier[0]) / SECOND if earlier else 0.0
        before = earlier[1] if earlier else None
        self._bytes = gained(before, snapshot, lambda each: each.live_bytes)
        self._counts = gained(before, snapshot, lambda each: each.live_count)

    def of_bytes(self, row: int) -> int | None:
        return int(self._bytes[row]) if self._seconds else None

    def of_count(self, row: int) -> int | None:
        return int(self._counts[row]) if self._seconds else None

    def rate(self, row: int) -> float | None:
        return round(float(self._bytes[row]) / self._seconds, 3) if self._seconds else None


def _blocks(snapshot: Snapshot, row: int) -> tuple[Block, ...]:
    if snapshot.blocks is None:
        return ()
    mine = snapshot.blocks.rows == row
    order = np.argsort(snapshot.blocks.ages[mine])[::-1]
    addresses, sizes = snapshot.blocks.addresses[mine][order], snapshot.blocks.sizes[mine][order]
    return tuple(Block(address, size) for address, size in zip(addresses.tolist(), sizes.tolist(), strict=True))


def _totals(snapshot: Snapshot) -> Totals:
    counters = snapshot.counters
    return Totals(
        live_bytes=int(snapshot.live_bytes.sum()),
        live_count=int(snapshot.live_count.sum()),
        allocated_bytes=int(counters["allocated_bytes"].sum()),
        allocated_count=int(counters["allocated_count"].sum()),
        freed_count=int(counters["freed_count"].sum()),
    )


def _total_error(snapshot: Snapshot) -> float:
    live = int(snapshot.live_bytes.sum())
    return float(np.sqrt(snapshot.variance.sum()) / live) if live > 0 else 0.0


def _sampling(settings: Settings) -> str | None:
    if settings.sample_bytes:
        return f"one allocation in about {settings.sample_bytes} bytes"
    return f"one in {settings.sample_rate} allocations" if settings.sample_rate > 1 else None


def _seconds(nanoseconds: int) -> float | None:
    return round(nanoseconds / SECOND, 3) if nanoseconds >= 0 else None


