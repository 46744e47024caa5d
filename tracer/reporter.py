"""Makes one report: what there is now, who can still get at it, what it means, and its names."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime

from symbolizer.symbolizer import Symbolizer
from tracer.address_maps import AddressMaps
from tracer.attach.objects import Objects
from tracer.closing import ClosingNotes
from tracer.collect.sites import SiteReader
from tracer.collect.snapshot import Snapshot
from tracer.containers import ContainerNames
from tracer.fill import fill_report
from tracer.holdings import Holdings, Sites
from tracer.listener import Listener
from tracer.looks import Looked, Looks
from tracer.membership import Membership
from tracer.memory_heads import MemoryHeads
from tracer.misuses import MisuseCollector
from tracer.pointed import Pointed
from tracer.records import StackEnd
from tracer.report.model import PointerNote, Report
from tracer.roster import Roster
from tracer.settings import Settings
from tracer.verdicts import Watch

SECOND = 1_000_000_000


@dataclass(slots=True)
class Reporter:
    """What the reports of one session are made of. start: of the trace, in monotonic ns."""

    settings: Settings
    start: int
    symbolizer: Symbolizer
    objects: Objects
    roster: Roster
    listener: Listener
    reader: SiteReader
    holdings: Holdings
    looks: Looks
    watch: Watch
    memory: MemoryHeads
    containers: ContainerNames
    closing: ClosingNotes
    misuses: MisuseCollector | None
    _earlier: tuple[int, Snapshot] | None = None
    _maps: AddressMaps = field(init=False)

    def __post_init__(self) -> None:
        self._maps = AddressMaps(self.symbolizer)

    def report(self, members: Membership, *, last: bool) -> Report:
        """Return what is outstanding now. members: who also handles what the kernel side sends meanwhile."""
        settings, roster, began = self.settings, self.roster, time.monotonic_ns()
        members.look_around()
        for tracee in roster.running:
            members.look_again(tracee)
        looked = self.looks.look(roster.running) if settings.reachability else None
        snapshot = self._snapshot(members, looked)
        drained = time.monotonic_ns()
        self.containers.complete(roster.everyone)
        sites = self.holdings.sites(snapshot)
        self.watch.look(now=True)
        report = fill_report(
            sites,
            self._earlier,
            settings,
            roster.everyone,
            elapsed_s=(began - self.start) / SECOND,
            taken=datetime.now().astimezone(),
            kernel=platform.release(),
            last=last,
            notes_on=self.closing.notes,
            untraced=members.untraced,
            misuses=self.misuses.collect() if self.misuses is not None else None,
            verdicts=self.watch.judge(sites, over=len(roster.everyone) == 1 and not roster.running_count),
            looked=looked,
            pointed=self._pointed(sites, looked),
            memory=self.memory.heads(roster.running, sites),
        )
        report = replace(report, mappings=self._maps.of(roster.everyone))
        # Of this one the next report wants the sums only.
        self._earlier = (began, replace(sites.snapshot, blocks=None, members=None))
        # Until there is something new to name, which is seldom, nothing needs to wait for it in memory.
        self.symbolizer.close()
        named = time.monotonic_ns()
        self.listener.timing(
            f"report took {(named - began) / SECOND:.3f} s (drain {(drained - began) / SECOND:.3f} s, "
            f"symbols {(named - drained) / SECOND:.3f} s) for {len(snapshot)} stacks, {len(sites.snapshot)} sites, "
            f"{int(snapshot.live_count.sum())} blocks"
        )
        return report

    def _snapshot(self, members: Membership, looked: Looked | None) -> Snapshot:
        scanned = looked.captures if looked is not None else ()
        older = self.settings.older_ns or 0
        snapshot = self.reader.snapshot(older_ns=older, keep_blocks=True, scanned=scanned)
        if not scanned and (snapshot.stacks["ended"] == StackEnd.PENDING).any() and members.drain():
            # A stack was on its way; it is here now.
            snapshot = self.reader.snapshot(older_ns=older, keep_blocks=True)
        return snapshot

    def _pointed(self, sites: Sites, looked: Looked | None) -> Callable[..., tuple[PointerNote, ...]]:
        if looked is None or not self.settings.who_points_at:
            return lambda _: ()
        return Pointed(self.settings, self.symbolizer, self.objects, sites, looked).notes
