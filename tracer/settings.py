"""Everything a trace can be told, frozen; and what of it becomes -D flags for the C side."""

from __future__ import annotations

import os
from dataclasses import dataclass
from enum import StrEnum

from symbolizer.choices import GroupBy, Style
from tracer import limits

#: Its inode number (PROC_PID_INIT_INO, include/linux/proc_ns.h).
INITIAL_PID_NAMESPACE = 0xEFFFFFFC


class AttachWay(StrEnum):
    """How probes are attached, best first: the kernel's answer decides."""

    SESSION = "session"
    MULTI = "multi"
    PERF = "perf"


class UnwindWay(StrEnum):
    """Where stacks come from."""

    CFI = "cfi"
    FP = "fp"


@dataclass(frozen=True, slots=True)
class CustomFunction:
    """A function of --alloc-fn or --free-fn: argument numbers from 0; result None is the return value."""

    name: str
    size: int | None = None
    pointer: int | None = None
    result: int | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """One trace. Times in seconds unless named otherwise, sizes in bytes."""

    pids: tuple[int, ...] = ()
    command: tuple[str, ...] = ()
    follow_forks: bool = False
    #: Names, control groups and containers whose processes are traced, now and later.
    comms: tuple[str, ...] = ()
    cgroups: tuple[str, ...] = ()
    containers: tuple[str, ...] = ()
    #: Some of these control groups are known to this side only (version 1).
    tell_every_exec: bool = False
    #: In every further report too: what processes held at their end.
    keep_ended: bool = False
    as_root: bool = True
    interval: float = 5.0
    count: int | None = None
    duration: float | None = None
    trace_events: bool = False
    show_allocs: bool = False
    older_ms: float | None = None
    sample_rate: int = 1
    sample_bytes: int = 0
    top: int = 10
    min_size: int | None = None
    max_size: int | None = None
    object_path: str | None = None
    symbols_prefix: str = ""
    alloc_functions: tuple[CustomFunction, ...] = ()
    free_functions: tuple[CustomFunction, ...] = ()
    sort: str = "loss"
    #: Look at the memory of traced processes for what points to their blocks, at each report.
    reachability: bool = False
    #: Bytes of it that are copied at once.
    max_image: int = 1 << 30
    #: Sites (by rank or function) and addresses of which is asked what points at them.
    who_points_at: tuple[str, ...] = ()
    format: str = "text"
    #: How text is shown (report.terminal_look): auto, always or never; with bytes as they are.
    color: str = "auto"
    exact_bytes: bool = False
    max_outstanding: int = 1_000_000
    max_stacks: int = 32_768
    depth: int = 64
    attach: AttachWay | None = None
    unwind: UnwindWay = UnwindWay.CFI
    demangle: Style = Style.FULL
    group_by: GroupBy = GroupBy.LINE
    raw_stacks: bool = False
    debug_folders: tuple[str, ...] = ()
    verbose: bool = False
    bare_traps: bool = False
    hash_map: bool = False
    #: Report frees of the wrong kind, of what was freed before, and of what no allocator gave.
    check_frees: bool = False

    @property
    def follows(self) -> bool:
        """Whether processes come and go while the trace runs."""
        return self.follow_forks or self.selects

    @property
    def stays(self) -> bool:
        """Whether processes are held on to until they end, because they come and go or are looked at in the end."""
        return self.follows or (self.reachability and bool(self.command))

    @property
    def selects(self) -> bool:
        """Whether processes are traced for what they are."""
        return bool(self.comms or self.cgroups or self.containers)

    @property
    def older_ns(self) -> int | None:
        """How old blocks must be to be reported; None: they are not looked at one by one."""
        if self.older_ms is not None:
            return int(self.older_ms * 1_000_000)
        return 0 if self.format == "json" or self.show_allocs else None

    @property
    def sampling(self) -> bool:
        """Whether figures are estimates."""
        return self.sample_rate > 1 or self.sample_bytes > 0

    @property
    def block_buckets(self) -> int:
        """Buckets of the table of blocks."""
        return max(8, int(self.max_outstanding * limits.TABLE_SHARE) // limits.BLOCKS_PER_BUCKET)

    def map_entries(self, *, atomics: bool = True) -> dict[str, int]:
        """Return how many entries each map gets (the ring: how many bytes); a map that is not named has one."""
        sites = self.max_stacks + 2
        return {
            # Site 0 is no site, and one more keeps the remainder in claim_site() off zero.
            "sites": sites,
            "stacks": sites,
            "site_of_stack": sites,
            "claimed": sites,
            "rules": 1 << limits.RULE_BUCKET_BITS,
            "images": limits.MAX_SLOTS,
            "slots": limits.MAX_SLOTS,
            "losses": limits.LOSSES,
            "blocks": self.block_buckets,
            "overflow": max(64, int(self.max_outstanding * (limits.OVERFLOW_SHARE if atomics else 1))),
            "in_flight": limits.MAX_THREADS,
            "probes": limits.MAX_PROBES,
            "freed_blocks": 1 << limits.FREED_BITS,
            "misuses": limits.MISUSES,
            "wanted_comms": limits.MAX_SLOTS,
            "wanted_groups": limits.MAX_GROUPS,
            "held": limits.MAX_SLOTS,
            "ring": limits.RING_BYTES,
        }

    def definitions(self, way: AttachWay, *, atomics: bool = True) -> dict[str, int | None]:
        """Return the C side's constants for attaching by way, on a kernel with compare-and-swap or without."""
        flags: dict[str, int | None] = {
            "MAX_DEPTH": self.depth,
            "MAX_SITES": self.max_stacks + 2,
            "MAX_SLOTS": limits.MAX_SLOTS,
            "RULE_BUCKET_BITS": limits.RULE_BUCKET_BITS,
            "STACK_COPY": limits.STACK_COPY,
            "RING_BYTES": limits.RING_BYTES,
            "MAX_WAITING": (os.cpu_count() or 1) - 1,
        }
        if not self.stays:
            flags["HOLD_EXECS"] = None
        namespace = os.stat("/proc/self/ns/pid")
        if namespace.st_ino != INITIAL_PID_NAMESPACE:
            flags |= {"PID_NAMESPACE_DEVICE": namespace.st_dev, "PID_NAMESPACE_INODE": namespace.st_ino}
        if self.selects:
            # 1: the kernel side tells of every exec, because it does not know all groups.
            flags |= {"SELECTION": int(self.tell_every_exec), "MAX_GROUPS": limits.MAX_GROUPS}
        if atomics:
            flags["ATOMICS"] = None
            flags["BLOCK_BUCKETS"] = self.block_buckets
        if way is AttachWay.SESSION:
            flags["SESSION"] = None
        if way is AttachWay.PERF:
            flags["PROBES_BY_ADDRESS"] = None
        if self.trace_events:
            flags["TRACE_EVENTS"] = None
        if self.check_frees:
            flags |= {"CHECK_FREES": None, "FREED_BITS": limits.FREED_BITS}
        if self.unwind is UnwindWay.FP:
            flags["FRAME_POINTERS"] = None
        if self.min_size is not None:
            flags["MIN_SIZE"] = self.min_size
        if self.max_size is not None:
            flags["MAX_SIZE"] = self.max_size
        return flags | self._sampling_definitions()

    def _sampling_definitions(self) -> dict[str, int | None]:
        if self.sample_bytes:
            # The quick test multiplies two 32-bit numbers; larger distances lose low bits they do not need.
            shift = max(0, self.sample_bytes.bit_length() - 31)
            return {"SAMPLING": None, "SAMPLE_BYTES": self.sample_bytes, "SAMPLE_SHIFT": shift}
        if self.sample_rate > 1:
            return {"SAMPLING": None, "SAMPLE_COUNT": self.sample_rate}
        return {}
