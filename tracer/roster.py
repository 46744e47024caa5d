"""The processes of one trace: those that run, by their slots, and those that have ended."""

from __future__ import annotations

from tracer.attach.objects import Objects
from tracer.attach.target import Process
from tracer.attach.tracee import Tracee
from tracer.limits import MAX_SLOTS
from tracer.settings import Settings
from tracer.stack_pool import NOBODY, Mapped


class Roster:
    """Gives every process a slot while it runs, and a number for ever."""

    def __init__(self, settings: Settings, objects: Objects) -> None:
        self._settings = settings
        self._objects = objects
        self._slots: list[Tracee | None] = [None] * MAX_SLOTS
        self._made = 0
        self._by_pid: dict[int, Tracee] = {}
        #: All, in the order in which they came.
        self.everyone: list[Tracee] = []

    @property
    def running(self) -> list[Tracee]:
        """Those that are traced and have not ended."""
        return [tracee for tracee in self._slots if tracee is not None and tracee.alive]

    @property
    def running_count(self) -> int:
        """How many have not ended."""
        return len(self._by_pid)

    def admit(self, process: Process) -> Tracee | None:
        """Return a new tracee in a free slot, None if none is free. Raises OSError if the process is gone."""
        # The slot that has been free for longest: what still speaks of its last process is most likely gone.
        for step in range(MAX_SLOTS):
            slot = (self._made + step) % MAX_SLOTS
            if self._slots[slot] is None:
                tracee = Tracee(process, slot, self._settings, self._objects, self._made)
                self._made += 1
                self._slots[slot] = self._by_pid[process.pid] = tracee
                self.everyone.append(tracee)
                return tracee
        return None

    def at(self, slot: int) -> Tracee | None:
        """Return whose slot it is."""
        return self._slots[slot]

    def of_image(self, image: int) -> Mapped:
        """Return whose image number it is; nobody's is that of blocks without a site.

        And that of a process that has ended: a child by vfork works in its parent's memory, and may outlive it.
        """
        tracee = self._slots[image % MAX_SLOTS] if image else None
        return tracee if tracee is not None else NOBODY

    def by_pid(self, pid: int) -> Tracee | None:
        """Return the running process of that id."""
        return self._by_pid.get(pid)

    def leave(self, tracee: Tracee) -> None:
        """Take note that a process has ended: its id may come again."""
        if self._by_pid.get(tracee.process.pid) is tracee:
            del self._by_pid[tracee.process.pid]

    def retire(self, tracee: Tracee) -> None:
        """Free the slot of a process that has ended, once nothing on its way speaks of it."""
        self._slots[tracee.slot] = None

    def forget(self, uids: set[int]) -> None:
        """Leave processes that ended out of further reports."""
        self.everyone = [tracee for tracee in self.everyone if tracee.uid not in uids]
