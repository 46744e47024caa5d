"""Fills a Report from a Snapshot: order, growth, names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from types import MappingProxyType
from typing import Any

import numpy as np

from symbolizer.frame import Frame
from tracer.attach.container import Container
from tracer.attach.tracee import Tracee
from tracer.collect.snapshot import Snapshot, gained
from tracer.holdings import Sites, totals_of
from tracer.judge.ranking import rank, relative_errors
from tracer.judge.reachability import Kind
from tracer.judge.verdict import LEAST_INTERVALS, TABLE, Verdicts
from tracer.kernel_settings import KernelSettings
from tracer.looks import Looked
from tracer.losses import LOSSES, Loss
from tracer.report.memory_model import MemoryHead
from tracer.report.misuse_model import Misuses
from tracer.report.model import (
    Block,
    ContainerNote,
    Finding,
    LossNote,
    PointerNote,
    Reachability,
    Report,
    Share,
    Target,
    Totals,
)
from tracer.report.site_table import VERDICTS, SiteTable
from tracer.settings import Settings

SECOND = 1_000_000_000
_MEANINGS = {loss.name: loss for loss in LOSSES}
#: The code of each row of the table of verdicts.
_CODES = np.array([VERDICTS.index(row.verdict.value) for row in TABLE], np.uint8)


def fill_report(
    sites: Sites,
    earlier: tuple[int, Snapshot] | None,
    settings: Settings | KernelSettings,
    tracees: Sequence[Tracee],
    *,
    elapsed_s: float,
    taken: datetime,
    kernel: str,
    last: bool,
    notes_on: Callable[[Sequence[Sequence[Frame]]], tuple[str, ...]] = lambda _: (),
    untraced: Mapping[str, int] = MappingProxyType({}),
    misuses: Misuses | None = None,
    verdicts: Verdicts | None = None,
    looked: Looked | None = None,
    pointed: Callable[[Sequence[tuple[int, Finding]]], tuple[PointerNote, ...]] = lambda _: (),
    memory: tuple[MemoryHead, ...] = (),
    more: Callable[[int], dict[str, Any]] = lambda _: {},
    losses_said: Mapping[str, Loss] = MappingProxyType({}),
) -> Report:
    """Return the report of a snapshot's sites; earlier is the snapshot before with its monotonic time in ns.

    verdicts: on these sites. looked: what looks at the memory of processes brought, where there were any. pointed: says
    who points at what was asked for; it is given rows and findings. memory: where that of the processes went.
    more: of a row, what else its finding says. losses_said: what losses mean in this trace, where it is not the usual.

    notes_on says what the stacks that are shown lack. untraced: how many processes could not be, by reason.
    """
    snapshot = sites.snapshot
    order = rank(snapshot, settings.sort, len(snapshot), verdicts.expected if verdicts is not None else None)
    rows = order[: settings.top]
    holders = _Holders(sites, rows, tracees)
    gains = _Gains(snapshot, earlier)
    errors = relative_errors(snapshot) if settings.sampling else None
    # Findings are made as long as the report lives, which is until the next one is there: they must not hold what there
    # is of every block, nor the processes' memory.
    figures = snapshot if settings.show_allocs else replace(snapshot, blocks=None, members=None)
    frames, stacks, kinds, was_looked_at = sites.frames, sites.stacks, sites.kinds, looked is not None

    def finding(row: int, number: int) -> Finding:
        counters = figures.counters[row]
        return Finding(
            rank=number,
            pid=holders.main_pid(row),
            bytes=int(figures.live_bytes[row]),
            count=int(figures.live_count[row]),
            allocated_bytes=int(counters["allocated_bytes"]),
            allocated_count=int(counters["allocated_count"]),
            freed_count=int(counters["freed_count"]),
            oldest_s=_seconds(int(figures.oldest_ns[row])),
            growth_bytes_per_s=gains.rate(row),
            gained_bytes=gains.of_bytes(row),
            gained_count=gains.of_count(row),
            error=float(errors[row]) if errors is not None else None,
            frames=frames(row),
            stacks=int(stacks[row]),
            processes=holders.number(row),
            blocks=_blocks(figures, row) if settings.show_allocs else (),
            **_opinion(verdicts, row),
            reachability=_reachability(kinds[row]) if was_looked_at else None,
            **more(row),
        )

    table = _table(snapshot, order, gains, verdicts, finding)
    findings = table.findings(settings.top)
    targets = tuple(holders.target(each) for each in tracees)
    meanings = {**_MEANINGS, **losses_said}
    losses = tuple(
        LossNote(loss.name, loss.count, loss.bytes, meanings[loss.name].meaning.format(bytes=loss.bytes),
                 meanings[loss.name].remedy)
        for loss in snapshot.losses
    )
    return Report(
        taken=taken,
        elapsed_s=elapsed_s,
        kernel=kernel,
        targets=targets,
        totals=totals_of(snapshot),
        findings=findings,
        losses=losses,
        complete=not any(meanings[loss.name].hides_bytes for loss in losses),
        total_error=_total_error(snapshot) if settings.sampling else None,
        sampling=_sampling(settings),
        last=last,
        notes=(*_of_children(targets), *_of_untraced(untraced), *notes_on([finding.frames for finding in findings])),
        untraced=tuple(untraced.items()),
        misuses=misuses,
        follows=settings.follows,
        reachability=_reachability(sites.kinds.sum(axis=0)) if looked is not None else None,
        scans=looked.scans if looked is not None else (),
        pointers=pointed(list(zip(rows.tolist(), findings, strict=True))),
        memory=memory,
        sites=table,
    )


def _table(snapshot: Snapshot, order: np.ndarray, gains: _Gains, verdicts: Verdicts | None,
           finding: Callable[[int, int], Finding]) -> SiteTable:
    """Return all sites of a snapshot as columns."""
    counters, nothing = snapshot.counters, np.zeros(len(snapshot))
    return SiteTable(
        key=snapshot.identity,
        bytes=snapshot.live_bytes,
        count=snapshot.live_count,
        allocated_bytes=counters["allocated_bytes"].astype(np.int64),
        allocated_count=counters["allocated_count"].astype(np.int64),
        freed_count=counters["freed_count"].astype(np.int64),
        oldest_s=np.where(snapshot.oldest_ns >= 0, snapshot.oldest_ns / SECOND, np.nan),
        growth=gains.rates(),
        verdict=_CODES[verdicts.rows] if verdicts is not None else np.zeros(len(snapshot), np.uint8),
        expected_loss=verdicts.expected if verdicts is not None else nothing,
        slope=verdicts.facts.growth.slope if verdicts is not None else nothing,
        order=order,
        finding=finding,
    )


def _opinion(verdicts: Verdicts | None, row: int) -> dict[str, Any]:
    """Return what a finding says of its verdict."""
    if verdicts is None:
        return {}
    opinion, growth = verdicts.opinion(row), verdicts.facts.growth
    slope = tuple(round(float(each[row]), 3) for each in (growth.slope, growth.low, growth.high))
    return {"verdict": opinion.verdict.value, "confidence": opinion.confidence.value, "evidence": opinion.evidence,
            "expected_loss": round(float(verdicts.expected[row]), 3),
            "slope": slope if growth.intervals[row] >= LEAST_INTERVALS else None}


def _reachability(kinds: np.ndarray) -> Reachability:
    """kinds: i64 (4, 2), bytes and blocks by how they are reached."""
    of = {kind: (int(kinds[kind, 0]), int(kinds[kind, 1])) for kind in Kind}
    return Reachability(of[Kind.DEFINITELY], of[Kind.INDIRECTLY], of[Kind.POSSIBLY], of[Kind.REACHABLE])


def _of_children(targets: Sequence[Target]) -> list[str]:
    """Return who made processes that are not traced."""
    return [f"{each.children} child process{'es' if each.children > 1 else ''} of {each.comm} (pid {each.pid}) "
            f"{'were' if each.children > 1 else 'was'} not traced" for each in targets if each.children]


def _of_untraced(untraced: Mapping[str, int]) -> list[str]:
    """Return why processes that should be traced are not."""
    return [f"{count} process{'es were' if count > 1 else ' was'} not traced: {reason}"
            for reason, count in untraced.items()]


class _Holders:
    """Which processes hold what."""

    def __init__(self, sites: Sites, rows: np.ndarray, tracees: Sequence[Tracee]) -> None:
        """rows: those that are shown, in the order of their ranks."""
        self._shares, self._totals = sites.shares, sites.totals
        self._pids = {each.uid: each.process.pid for each in tracees}
        self._first = tracees[0].process.pid if tracees else 0
        count = len(sites.snapshot)
        self._ranks = np.zeros(count, np.int64)
        self._ranks[rows] = np.arange(1, len(rows) + 1)
        self._numbers = np.bincount(self._shares.row, minlength=count)
        self._main = np.full(count, -1, np.int64)
        # The last assignment to a row wins: that of the largest share, of equal ones that of the older process.
        order = np.lexsort((-self._shares.uid, self._shares.count, self._shares.bytes))
        self._main[self._shares.row[order]] = self._shares.uid[order]
        by_process = np.lexsort((-self._shares.bytes, self._shares.uid))
        self._order = by_process[self._ranks[self._shares.row[by_process]] > 0]

    def main_pid(self, row: int) -> int:
        return self._pids.get(int(self._main[row]), self._first)

    def number(self, row: int) -> int:
        return max(1, int(self._numbers[row]))

    def target(self, tracee: Tracee) -> Target:
        process, inherited, dropped = tracee.process, tracee.inherited, tracee.dropped
        return Target(
            process.pid, process.comm, tracee.exe, tracee.children, tracee.parent,
            self._totals.get(tracee.uid, Totals(0, 0, 0, 0, 0)),
            (inherited.bytes, inherited.count) if inherited else None,
            tracee.execs, (dropped.bytes, dropped.count), not tracee.alive, tracee.status,
            tuple(self._shares_of(tracee.uid)), _container(tracee.container))

    def _shares_of(self, uid: int) -> Iterator[Share]:
        """Give what a process holds at the sites that are shown, the largest first."""
        shares, uids = self._shares, self._shares.uid[self._order]
        for at in self._order[np.searchsorted(uids, uid) : np.searchsorted(uids, uid, side="right")].tolist():
            yield Share(int(self._ranks[shares.row[at]]), int(shares.bytes[at]), int(shares.count[at]))


def _container(container: Container | None) -> ContainerNote | None:
    if container is None:
        return None
    return ContainerNote(container.id, container.runtime, container.name, container.pod, container.label)


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

    def rates(self) -> np.ndarray:
        """Return bytes per second of every row, f64 (n,), NaN where there is no snapshot before."""
        return self._bytes / self._seconds if self._seconds else np.full(len(self._bytes), np.nan)

    def rate(self, row: int) -> float | None:
        return round(float(self._bytes[row]) / self._seconds, 3) if self._seconds else None


def _blocks(snapshot: Snapshot, row: int) -> tuple[Block, ...]:
    if snapshot.blocks is None:
        return ()
    mine = snapshot.blocks.rows == row
    order = np.argsort(snapshot.blocks.ages[mine])[::-1]
    addresses, sizes = snapshot.blocks.addresses[mine][order], snapshot.blocks.sizes[mine][order]
    return tuple(Block(address, size) for address, size in zip(addresses.tolist(), sizes.tolist(), strict=True))


def _total_error(snapshot: Snapshot) -> float:
    live = int(snapshot.live_bytes.sum())
    return float(np.sqrt(snapshot.variance.sum()) / live) if live > 0 else 0.0


def _sampling(settings: Settings | KernelSettings) -> str | None:
    if settings.sample_bytes:
        return f"one allocation in about {settings.sample_bytes} bytes"
    return f"one in {settings.sample_rate} allocations" if settings.sample_rate > 1 else None


def _seconds(nanoseconds: int) -> float | None:
    return round(nanoseconds / SECOND, 3) if nanoseconds >= 0 else None


