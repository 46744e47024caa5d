"""What the head of a report says of one process's memory, whatever format it is written in."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One part of resident memory: its name, resident bytes, and bytes per second where it surely grows."""

    name: str
    bytes: int
    growth_bytes_per_s: float | None = None


@dataclass(frozen=True, slots=True)
class MemoryLimit:
    """The control group whose limit is closest; sizes in bytes.

    limit is None where there is none; kind is the file it stands in. events: those that have occurred, by name.
    stall_percent: of the last 10 s, how long some task waited for memory. reached_in_s: at growth_bytes_per_s.
    """

    path: str
    usage: int
    limit: int | None = None
    kind: str = ""
    events: tuple[tuple[str, int], ...] = ()
    stall_percent: float | None = None
    growth_bytes_per_s: float | None = None
    reached_in_s: float | None = None


@dataclass(frozen=True, slots=True)
class MemoryHead:
    """Where the memory of one process went. The bytes of parts add up to rss; all sizes are in bytes.

    outstanding_bytes, outstanding_count: traced blocks that live, as asked for; absent: what of them is not resident.
    allocator: its name; complete: all its free chunks were counted. since_start: the trace began with the process.
    cause, cause_part, cause_amount: what is to be said of it all: an amount is bytes per second where something
    grows, else bytes. age_s: how old the parts are.
    """

    pid: int
    comm: str
    rss: int
    anonymous: int
    pss: int
    outstanding_bytes: int
    outstanding_count: int
    parts: tuple[MemoryPart, ...]
    absent: int = 0
    swap: int = 0
    hugetlb: int = 0
    growth_bytes_per_s: float | None = None
    allocator: str = "glibc"
    complete: bool = True
    since_start: bool = False
    cause: str = ""
    cause_part: str | None = None
    cause_amount: float = 0.0
    limit: MemoryLimit | None = None
    age_s: float = 0.0
