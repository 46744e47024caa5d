"""Where the memory of the traced processes went: one head for each that a report has room for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tracer.attach.tracee import Tracee
from tracer.holdings import Sites
from tracer.judge.reconcile import Held, chunk_bytes
from tracer.looks import began_with_trace
from tracer.memory_watch import MemoryWatch
from tracer.report.memory_model import MemoryHead
from tracer.settings import Settings

#: Processes whose memory is added up: each costs some milliseconds, and each has its lines in a report.
MOST = 4


class MemoryHeads:
    """The watches of one session."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._watches: dict[int, MemoryWatch] = {}

    def heads(self, running: Sequence[Tracee], sites: Sites) -> tuple[MemoryHead, ...]:
        """Return the heads of the processes that hold most."""
        held = {tracee.uid: _held(sites, tracee.uid) for tracee in running}
        self._watches = {uid: watch for uid, watch in self._watches.items() if uid in held}
        order = sorted(running, key=lambda tracee: (-held[tracee.uid].bytes, tracee.uid))[:MOST]
        found = [self._watch(tracee).observe(held[tracee.uid], {each.plan.allocator.kind for each in tracee.attached})
                 for tracee in order]
        return tuple(head for head in found if head is not None)

    def _watch(self, tracee: Tracee) -> MemoryWatch:
        if tracee.uid not in self._watches:
            since_start = began_with_trace(tracee, self._settings)
            self._watches[tracee.uid] = MemoryWatch(tracee.process, since_start=since_start)
        return self._watches[tracee.uid]


def _held(sites: Sites, uid: int) -> Held:
    mine = sites.shares.uid == uid
    bytes_, count = sites.shares.bytes[mine], sites.shares.count[mine]
    return Held(int(bytes_.sum()), int(count.sum()), chunk_bytes(bytes_.astype(np.int64), count.astype(np.int64)))
