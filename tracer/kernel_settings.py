"""Everything a trace of the kernel can be told, frozen; and what of it becomes -D flags for the C side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tracer import limits
from tracer.settings import INITIAL_PID_NAMESPACE

#: 4 MB: some 400 stacks to learn from.
RING_BYTES = 4 << 20
#: Names of processes that have ended.
PROCESS_NAMES = 16_384
PROCESSES = 1024
#: Sites that are found without a hash; a power of two.
LATEST_SITES = 16_384
#: Which nodes of NUMA there can be; one alone is "0".
NODES = Path("/sys/devices/system/node/possible")
#: Areas that are being made: from where their size is known to where vmalloc returns.
AREAS = 1024


@dataclass(frozen=True, slots=True)
class KernelSettings:
    """One trace of the kernel. Times in seconds unless named otherwise, sizes in bytes."""

    slab: bool = True
    pages: bool = True
    percpu: bool = False
    vmalloc: bool = False
    command: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()
    cgroups: tuple[str, ...] = ()
    as_root: bool = True
    interval: float = 5.0
    count: int | None = None
    duration: float | None = None
    show_allocs: bool = False
    older_ms: float | None = None
    top: int = 10
    min_size: int | None = None
    max_size: int | None = None
    sort: str = "loss"
    format: str = "text"
    #: As in Settings.
    color: str = "auto"
    exact_bytes: bool = False
    max_outstanding: int = 1_000_000
    max_stacks: int = 32_768
    depth: int = 64
    raw_stacks: bool = False
    cross_check: bool = False
    verbose: bool = False
    hash_map: bool = False
    #: What reports of processes have, and this has not.
    sampling: bool = False
    sample_bytes: int = 0
    sample_rate: int = 1
    follows: bool = False

    @property
    def sources(self) -> tuple[str, ...]:
        """What is traced."""
        return tuple(name for name in ("slab", "pages", "percpu", "vmalloc") if getattr(self, name))

    @property
    def older_ns(self) -> int:
        """How old blocks must be to be reported."""
        return int((self.older_ms or 0) * 1_000_000)

    @property
    def block_buckets(self) -> int:
        """Buckets of the table of blocks."""
        return max(8, int(self.max_outstanding * limits.TABLE_SHARE) // limits.BLOCKS_PER_BUCKET)

    def map_entries(self, *, atomics: bool) -> dict[str, int]:
        """Return how many entries each map gets (the ring: how many bytes); a map that is not named has one."""
        sites = self.max_stacks + 2
        return {
            "sites": sites,
            "stacks": sites,
            "kernel_sites": sites,
            "kernel_charged": sites,
            "site_of_stack": sites,
            "claimed": sites,
            "rules": 1 << limits.RULE_BUCKET_BITS,
            "losses": limits.LOSSES,
            "blocks": self.block_buckets,
            # Preallocated, unlike that of programs: it must allocate nothing while it is in use.
            "overflow": max(64, int(self.max_outstanding * (limits.OVERFLOW_SHARE / 4 if atomics else 1))),
            "latest_sites": LATEST_SITES,
            "kernel_config": 1,
            "orders": 32,
            "kernel_scratch": 4,
            "process_names": PROCESS_NAMES,
            "area_sizes": AREAS,
            "wanted_processes": PROCESSES,
            "wanted_groups": limits.MAX_GROUPS,
            "ring": RING_BYTES,
        }

    def definitions(self, *, atomics: bool) -> dict[str, int | None]:
        """Return the C side's constants, but for what the kernel says of its tracepoints (attach/kernel_points.py)."""
        flags: dict[str, int | None] = {
            "KERNEL": None,
            "MAX_DEPTH": self.depth,
            "KERNEL_FRAMES": self.depth,
            "MAX_SITES": self.max_stacks + 2,
            "MAX_SLOTS": limits.MAX_SLOTS,
            "RULE_BUCKET_BITS": limits.RULE_BUCKET_BITS,
            "STACK_COPY": 1024,
            "RING_BYTES": RING_BYTES,
            "LATEST_SITES": LATEST_SITES,
        }
        if _has_nodes():
            flags["SEVERAL_NODES"] = None
        namespace = os.stat("/proc/self/ns/pid")
        if self.pids and namespace.st_ino != INITIAL_PID_NAMESPACE:
            flags |= {"PID_NAMESPACE_DEVICE": namespace.st_dev, "PID_NAMESPACE_INODE": namespace.st_ino}
        if atomics:
            flags |= {"ATOMICS": None, "BLOCK_BUCKETS": self.block_buckets}
        if self.pids:
            flags["WANTED_PROCESSES"] = None
        if self.cgroups:
            flags["WANTED_GROUPS"] = limits.MAX_GROUPS
        if self.min_size is not None:
            flags["MIN_SIZE"] = self.min_size
        if self.max_size is not None:
            flags["MAX_SIZE"] = self.max_size
        return flags


def _has_nodes() -> bool:
    """Return whether memory may be from several nodes of NUMA."""
    try:
        return NODES.read_text().strip() != "0"
    except OSError:
        return False
