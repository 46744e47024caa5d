"""Makes the report of a kernel trace: what its snapshots say, with names, processes and verdicts."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import numpy as np

from tracer.attach.kernel_program import KernelProgram
from tracer.attach.target import PROC
from tracer.collect.kernel_records import Source
from tracer.collect.kernel_sites import KernelReader, KernelSnapshot
from tracer.collect.snapshot import Snapshot
from tracer.fill import fill_report
from tracer.holdings import KINDS, Shares, Sites
from tracer.kernel_cross import BookCheck
from tracer.kernel_names import KernelNames
from tracer.kernel_settings import KernelSettings
from tracer.losses import Loss
from tracer.report.model import Holder, KernelNote, Report, SourceTotal
from tracer.verdicts import Watch

SECOND = 1_000_000_000
#: Of events, so many may go uncounted before a judgement is uncertain.
ONE_IN = 1000
#: Processes that are named of each site.
MOST_HOLDERS = 8
SOURCES = {Source.SLAB: "slab", Source.PAGES: "pages", Source.PERCPU: "percpu", Source.VMALLOC: "vmalloc"}
#: What losses mean where it is not what they mean in a trace of a process.
KERNEL_LOSSES = {
    "missed_free": Loss(
        "missed_free", "LOSS_MISSED_FREE",
        "blocks ({bytes} bytes) were given out again though their free was not seen; they are counted as freed then",
        "figures of sites with unseen frees are too high by what has not been given out again", hides_bytes=False),
    "nested": Loss(
        "nested", "LOSS_NESTED",
        "allocations and frees were not counted: interrupts came while others were being counted",
        "figures of sites that work in interrupts may be off by so many blocks", hides_bytes=False),
    "stack_unreadable": Loss(
        "stack_unreadable", "LOSS_STACK_UNREADABLE", "stacks are missing: the kernel could not walk them",
        "trace again; their bytes are counted at a site without a name", hides_bytes=False),
}


@dataclass(slots=True)
class KernelReporter:
    """What the reports of one trace are made of. start: of the trace, in monotonic ns.

    notes: says what is not covered. books: the kernel's own, where they are to be compared with.
    """

    settings: KernelSettings
    start: int
    program: KernelProgram
    reader: KernelReader
    names: KernelNames
    watch: Watch
    notes: Callable[[], tuple[str, ...]]
    books: BookCheck | None = None
    _earlier: tuple[int, Snapshot] | None = None

    def report(self, *, last: bool) -> Report:
        """Return what is outstanding now."""
        began = time.monotonic_ns()
        taken = self.reader.snapshot(self.settings.older_ns, self.names.groups)
        self.watch.look(now=True)
        sites = self._sites(taken)
        details = _Details(taken, self.names, self.program)
        report = fill_report(
            sites, self._earlier, self.settings, (),
            elapsed_s=(began - self.start) / SECOND, taken=datetime.now().astimezone(), kernel=platform.release(),
            last=last, notes_on=lambda _: self.notes(), verdicts=self.watch.judge(sites), more=details.of,
            losses_said=KERNEL_LOSSES)
        self._earlier = (began, replace(taken.snapshot, blocks=None, members=None))
        return replace(report, sources=details.sources(), cross_checks=self.books.check() if self.books else ())

    def _sites(self, taken: KernelSnapshot) -> Sites:
        snapshot = taken.snapshot
        nothing = np.zeros(0, np.int64)

        def frames(row: int) -> Any:
            stack = snapshot.stacks[row]
            return self.names.stack(stack["addresses"][: int(stack["depth"])]).frames

        return Sites(snapshot, np.ones(len(snapshot), np.int64), frames, Shares(nothing, nothing, nothing, nothing), {},
                     np.zeros((len(snapshot), KINDS, 2), np.int64), np.zeros(len(snapshot), np.int64))


def _lost_much(report: Report) -> bool:
    """Return whether so many events were not counted that no figure can be trusted."""
    nested = sum(loss.count for loss in report.losses if loss.name == "nested")
    return nested > (report.totals.allocated_count + report.totals.freed_count) // ONE_IN


class _Details:
    """What the kernel says of each row of a snapshot."""

    def __init__(self, taken: KernelSnapshot, names: KernelNames, program: KernelProgram) -> None:
        self._taken, self._names, self._program = taken, names, program
        self._comms: dict[int, str | None] = {}
        self._holders = self._shares()
        # This lives as long as the report; what there is of every block is not needed any more.
        self._taken = replace(taken, snapshot=replace(taken.snapshot, blocks=None, members=None),
                              processes=np.zeros(0, np.uint32))

    def _shares(self) -> dict[int, list[tuple[int, int, int]]]:
        """Return process, bytes and blocks by row, the largest first."""
        blocks = self._taken.snapshot.blocks
        if blocks is None or not len(blocks.rows):
            return {}
        both = np.stack([blocks.rows, self._taken.processes.astype(np.int64)])
        pairs, at = np.unique(both, axis=1, return_inverse=True)
        at = at.reshape(-1)
        sizes, counts = np.zeros(pairs.shape[1], np.int64), np.bincount(at, minlength=pairs.shape[1])
        np.add.at(sizes, at, blocks.sizes.astype(np.int64))
        found: dict[int, list[tuple[int, int, int]]] = {}
        for place in np.argsort(-sizes, kind="stable").tolist():
            found.setdefault(int(pairs[0, place]), []).append(
                (int(pairs[1, place]), int(sizes[place]), int(counts[place])))
        return found

    def of(self, row: int) -> dict[str, Any]:
        """Return what a finding says beside its figures."""
        about, snapshot = self._taken.about[row], self._taken.snapshot
        source = int(about["source"])
        stack = snapshot.stacks[row]
        named = self._names.stack(stack["addresses"][: int(stack["depth"])])
        holders = tuple(Holder(pid, self._comm(pid), size, count)
                        for pid, size, count in self._holders.get(row, [])[:MOST_HOLDERS])
        live = int(snapshot.live_bytes[row])
        note = KernelNote(
            cache=self._names.cache(about), gfp=self._names.gfp(int(about["gfp"])),
            requested_bytes=live - max(0, int(about["wasted_bytes"])),
            order=int(about["order"]) if source == Source.PAGES else None, node=int(about["node"]),
            serves=named.serves if source == Source.PAGES else None, processes=holders,
            unseen_frees=int(about["unseen_frees"]))
        return {"source": _named(source), "kernel": note}

    def _comm(self, pid: int) -> str | None:
        if pid == 0:
            return "idle"
        if pid not in self._comms:
            try:
                self._comms[pid] = (PROC / str(pid) / "comm").read_text(errors="backslashreplace").strip()
            except OSError:
                self._comms[pid] = self._program.ended_name(pid)
        return self._comms[pid]

    def sources(self) -> tuple[SourceTotal, ...]:
        """Return what each source holds."""
        snapshot, about = self._taken.snapshot, self._taken.about
        serving = 0
        for row in np.flatnonzero((about["source"] == Source.PAGES) & (snapshot.live_bytes > 0)).tolist():
            stack = snapshot.stacks[row]
            if self._names.stack(stack["addresses"][: int(stack["depth"])]).serves is not None:
                serving += int(snapshot.live_bytes[row])
        found = []
        for source in Source:
            mine = about["source"] == source
            if mine.any():
                sums = int(snapshot.live_bytes[mine].sum()), int(snapshot.live_count[mine].sum())
                found.append(SourceTotal(_named(source), *sums, serving if source == Source.PAGES else 0))
        return tuple(sorted(found, key=lambda each: -each.bytes))


def _named(source: int) -> str:
    return SOURCES.get(Source(source), "kernel") if source in set(Source) else "kernel"
