"""Who decides what becomes of followed processes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tracer.attach.stopping import StoppedThread


class Owner(Protocol):
    """Who is told what followed processes do. Each is held meanwhile."""

    def made(self, pid: int, parent: int | None, *, shares_memory: bool) -> None:
        """A new process, before its first instruction; shares_memory: it works in its parent's until it execs."""

    def executed(self, pid: int) -> bool:
        """It is another program now, before its first instruction; return whether to follow it on."""

    def changed_leader(self, pid: int) -> None:
        """Another of its threads than its first has run another program, and is the first now; executed() follows."""

    def came_late(self, pid: int) -> None:
        """It has run code of its own already, before it was held."""

    def mapped(self, pid: int) -> None:
        """The dynamic loader has mapped code."""

    def exiting(self, pid: int) -> None:
        """Its first thread ends, and still has its memory; others may go on."""

    def leaving(self, pid: int, tid: int, ended: Sequence[StoppedThread]) -> None:
        """Its last thread ends, this one, and still has its memory. ended: those that ended with it."""

    def ended(self, pid: int, status: int) -> None:
        """It is gone; status as of wait(2)."""
