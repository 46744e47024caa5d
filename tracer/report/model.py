"""What a report says, whatever format it is written in."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from symbolizer.frame import Frame
from tracer.report.cross_model import CrossNote
from tracer.report.memory_model import MemoryHead
from tracer.report.misuse_model import Misuses

if TYPE_CHECKING:
    from tracer.report.site_table import SiteTable


@dataclass(frozen=True, slots=True)
class Block:
    """One live block: its address and its size in bytes as asked for."""

    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Reachability:
    """How blocks can be reached, as valgrind puts it: bytes and blocks of each kind."""

    definitely: tuple[int, int]
    indirectly: tuple[int, int]
    possibly: tuple[int, int]
    reachable: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ScanNote:
    """A look at the memory of one process: bytes read, seconds that it stood still, and that it all took.

    streamed: it was larger than the copy, and stood while it was looked at. unreadable: bytes that could not be read;
    not_stopped: threads that ran on, whose registers are not known. failed: why there is nothing.
    """

    pid: int
    bytes_read: int = 0
    stopped_s: float = 0.0
    took_s: float = 0.0
    streamed: bool = False
    failed: str | None = None
    unreadable: int = 0
    not_stopped: int = 0


@dataclass(frozen=True, slots=True)
class PointerNote:
    """What points at an address or a site that was asked for: a chain from its root, or why there is none."""

    asked: str
    chain: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Holder:
    """For which process a site of the kernel holds how many bytes and blocks; comm is None where nobody knows it."""

    pid: int
    comm: str | None
    bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class KernelNote:
    """What the kernel says of one site. cache: of slab objects. gfp: flags in words. order: of pages.

    requested_bytes: what was asked for of the bytes that are held. node: of NUMA. serves: what pages were taken for,
    slab or vmalloc, where the kernel's allocators took them for themselves. processes: the largest first. unseen_frees:
    blocks that were given out again though their free was not seen.
    """

    cache: str | None
    gfp: tuple[str, ...]
    requested_bytes: int
    order: int | None
    node: int
    serves: str | None
    processes: tuple[Holder, ...]
    unseen_frees: int


@dataclass(frozen=True, slots=True)
class SourceTotal:
    """Live bytes and blocks of one source of the kernel's memory; serving: bytes of pages for other sources."""

    source: str
    bytes: int
    count: int
    serving: int = 0


@dataclass(frozen=True, slots=True)
class Finding:
    """One call site. Bytes and counts are of live blocks unless named otherwise; frames are innermost first.

    gained_bytes and gained_count: since the report before, None in the first. error: one standard error of bytes as a
    share of them, where figures are estimates. stacks: how many different stacks were put together. processes: how
    many hold some of it; pid is that of the one that holds most. confidence, evidence: of the verdict, in words.
    expected_loss: bytes a second that are lost from now on if nothing changes. slope: bytes a second over the whole
    trace, with the ends of its 95 % interval.
    """

    rank: int
    pid: int
    bytes: int
    count: int
    allocated_bytes: int
    allocated_count: int
    freed_count: int
    oldest_s: float | None
    growth_bytes_per_s: float | None
    gained_bytes: int | None
    gained_count: int | None
    error: float | None
    frames: tuple[Frame, ...]
    blocks: tuple[Block, ...] = ()
    source: str = "heap"
    stacks: int = 1
    processes: int = 1
    verdict: str | None = None
    confidence: str | None = None
    evidence: str | None = None
    expected_loss: float | None = None
    slope: tuple[float, float, float] | None = None
    reachability: Reachability | None = None
    kernel: KernelNote | None = None


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over all sites, not only those shown."""

    live_bytes: int
    live_count: int
    allocated_bytes: int
    allocated_count: int
    freed_count: int


@dataclass(frozen=True, slots=True)
class Share:
    """What one process holds at one site, by the site's rank."""

    rank: int
    bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class ContainerNote:
    """The container a process is in: its id, runtime, name and pod as far as they are known, and what to call it."""

    id: str
    runtime: str
    name: str | None
    pod: str | None
    label: str


@dataclass(frozen=True, slots=True)
class Target:
    """One process that the report is about, and what it holds.

    children: processes it made meanwhile, which are not traced. parent: the id of the traced process that made it.
    inherited: bytes and blocks its parent held when it was made, which it has too unless it ran another program.
    dropped: bytes and blocks that went with programs it was before an exec. status: as of wait(2), None while it runs
    or where it is not known.
    """

    pid: int
    comm: str
    exe: str | None
    children: int = 0
    parent: int | None = None
    totals: Totals | None = None
    inherited: tuple[int, int] | None = None
    execs: int = 0
    dropped: tuple[int, int] = (0, 0)
    ended: bool = False
    status: int | None = None
    shares: tuple[Share, ...] = ()
    container: ContainerNote | None = None


@dataclass(frozen=True, slots=True)
class LossNote:
    """One way events were lost, with what it means and what to do."""

    name: str
    count: int
    bytes: int
    meaning: str
    remedy: str


@dataclass(frozen=True, slots=True)
class MappedFile:
    """A file that a process has mapped executable at [start, end); offset: of start in the file."""

    start: int
    end: int
    offset: int
    path: str
    build_id: str | None


@dataclass(frozen=True, slots=True)
class AddressMap:
    """What code one process has mapped."""

    pid: int
    files: tuple[MappedFile, ...]


@dataclass(frozen=True, slots=True)
class Report:
    """One moment of one trace. notes: one sentence each on what its stacks lack, and what would bring it.

    misuses: frees that are wrong, None where they were not asked for.
    untraced: processes that should have been traced and were not, by reason. follows: processes come and go.
    asked_for: by a signal. sources, cross_checks: of a trace of the kernel. mappings: of its processes,
    of those that have ended as of their end.
    findings: the first of the sites, which are None in a report that was made of findings only.
    """

    taken: datetime
    elapsed_s: float
    kernel: str
    targets: tuple[Target, ...]
    totals: Totals
    findings: tuple[Finding, ...]
    losses: tuple[LossNote, ...]
    complete: bool
    total_error: float | None = None
    sampling: str | None = None
    last: bool = False
    notes: tuple[str, ...] = ()
    untraced: tuple[tuple[str, int], ...] = ()
    misuses: Misuses | None = None
    follows: bool = False
    asked_for: bool = False
    reachability: Reachability | None = None
    scans: tuple[ScanNote, ...] = ()
    pointers: tuple[PointerNote, ...] = ()
    memory: tuple[MemoryHead, ...] = ()
    sources: tuple[SourceTotal, ...] = ()
    cross_checks: tuple[CrossNote, ...] = ()
    mappings: tuple[AddressMap, ...] | None = ()
    sites: SiteTable | None = field(default=None, compare=False, repr=False)


class Outcome(StrEnum):
    """What a judgement says of one site."""

    FAILED = "failed"
    PASSED = "passed"
    SUPPRESSED = "suppressed"
    KNOWN = "known"
    """It is in the baseline, and has not grown."""


@dataclass(frozen=True, slots=True)
class Judged:
    """One site with what the judgement says of it; reason: the expression, the suppression, or the baseline."""

    finding: Finding
    outcome: Outcome
    reason: str
    fingerprint: str


@dataclass(frozen=True, slots=True)
class SuppressionUse:
    """One suppression that was used: where it stands, and what it silenced."""

    name: str
    place: str
    sites: int
    blocks: int
    bytes: int


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a run was asked to judge; failed_totals: expressions over the sums that are true.

    conclusion: one sentence that says how it ended, empty where nothing was asked.
    """

    sites: tuple[Judged, ...]
    failed_totals: tuple[str, ...]
    exit_code: int
    unused_suppressions: tuple[str, ...] = ()
    used_suppressions: tuple[SuppressionUse, ...] = ()
    conclusion: str = ""
