"""Who is told of what is not the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tracer.attach.tracee import Attached


@dataclass(frozen=True, slots=True)
class TraceLine:
    """One allocation or free as it happens (--trace): seconds since the start, thread, address, size in bytes."""

    elapsed_s: float
    pid: int
    tid: int
    allocated: bool
    address: int
    size: int


@dataclass(slots=True)
class Listener:
    """Who is told of what is not the report: all optional."""

    attached: Callable[[Attached], None] = lambda _: None
    progress: Callable[[str], None] = lambda _: None
    notice: Callable[[str], None] = lambda _: None
    traced: Callable[[TraceLine], None] = lambda _: None
    timing: Callable[[str], None] = lambda _: None
