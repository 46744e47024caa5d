"""Made-up traces for the tests of recordings: tables of sites, and reports in which every field says something."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np

from symbolizer.frame import Frame, Why
from tracer.recorder import Recorder
from tracer.recording import Recording, load
from tracer.report.cross_model import CrossNote, CrossOnly, CrossRow
from tracer.report.memory_model import MemoryHead, MemoryLimit, MemoryPart
from tracer.report.misuse_model import Kind, Misuse, Misuses
from tracer.report.model import (
    AddressMap,
    ContainerNote,
    Finding,
    Holder,
    KernelNote,
    LossNote,
    MappedFile,
    PointerNote,
    Reachability,
    Report,
    ScanNote,
    Share,
    SourceTotal,
    Target,
    Totals,
)
from tracer.report.site_table import VERDICTS, SiteTable

ZONE = timezone(timedelta(hours=5, minutes=30))
START = datetime(2026, 3, 1, 9, 5, 7, 250_000, tzinfo=ZONE)
MAIN = Frame(0x401136, "main", 0x36, "/usr/bin/server", "cd34", "src/main.c", 7, module_offset=0x1136)


def frames_of(key: int) -> tuple[Frame, ...]:
    """Return a stack of its own for each key, with inlined, unnamed and folded frames among them."""
    return (
        Frame(2**64 - key, f"make_{key}", 18, "/usr/lib/libnode.so.1", "ab12", "src/node.c", key, module_offset=key),
        Frame(2**64 - key, "inlined", None, "/usr/lib/libnode.so.1", "ab12", "src/node.h", 3, inlined=True),
        Frame(0x7000 + key, module="/tmp/it's gone", why=Why.GONE, repeats=3),
        MAIN,
    )


def finding(key: int, bytes_: int = 4096, count: int = 4, **changes: Any) -> Finding:
    """Return what a trace says of a site; its frames follow from the key."""
    said: dict[str, Any] = dict(
        rank=0, pid=4711 + key, bytes=bytes_, count=count, allocated_bytes=3 * bytes_ + 1, allocated_count=3 * count,
        freed_count=2 * count, oldest_s=1.25 if count else None, growth_bytes_per_s=None, gained_bytes=None,
        gained_count=None, error=None, frames=frames_of(key))
    return Finding(**said | changes)


def table(sites: Mapping[int, Finding], order: Sequence[int] | None = None) -> SiteTable:
    """Return the table of these sites, by key; order: keys, without it by what is lost, bytes and blocks."""
    found, keys = list(sites.values()), list(sites)

    def column(name: str, kind: Any = np.int64) -> np.ndarray:
        return np.array([np.nan if (value := getattr(each, name)) is None else value for each in found]).astype(kind)

    lost = np.nan_to_num(column("expected_loss", float))
    rows = np.lexsort((-column("count"), -column("bytes"), -lost)) if order is None else [
        keys.index(key) for key in order]
    return SiteTable(
        np.array(keys, np.uint64), column("bytes"), column("count"), column("allocated_bytes"),
        column("allocated_count"), column("freed_count"), column("oldest_s", float),
        column("growth_bytes_per_s", float), np.array([VERDICTS.index(each.verdict) for each in found], np.uint8), lost,
        np.array([each.slope[0] if each.slope else 0.0 for each in found]),
        np.array([row for row in rows if found[row].count > 0], np.int64),
        lambda row, rank: replace(found[row], rank=rank))


def report(sites: Mapping[int, Finding], elapsed_s: float = 5.0, **changes: Any) -> Report:
    """Return a report of these sites, all of which it shows."""
    made = table(sites, changes.pop("order", None))
    said: dict[str, Any] = dict(
        taken=START + timedelta(seconds=elapsed_s), elapsed_s=elapsed_s, kernel="6.18.44",
        targets=(Target(4711, "server", "/usr/bin/server"),), totals=Totals(4096, 4, 8192, 8, 4),
        findings=made.findings(), losses=(), complete=True, sites=made)
    return Report(**said | changes)


def recorded(path: Path, *reports: Report, settings: object = None) -> Recording:
    """Return what is read of the recording of these."""
    recorder = Recorder(str(path), settings if settings is not None else {"sort": "loss"}, None, START)
    for each in reports:
        recorder.write(each)
    recorder.close()
    return load(str(path))


def full_report() -> Report:
    """Return a report of several processes in which every field differs from its default."""
    odd = finding(2, verdict="lost", confidence="high", evidence="no pointer; 0 of 4 were freed", expected_loss=17.125,
                  slope=(1.5, 1.25, 1.75), reachability=Reachability((1, 2), (3, 4), (5, 6), (7, 8)), stacks=3,
                  processes=2, error=0.125)
    kernel = KernelNote("kmalloc-64", ("GFP_KERNEL", "__GFP_ZERO"), 4000, 2, 1, "slab",
                        (Holder(12, "kworker", 3000, 3), Holder(13, None, 1000, 1)), 5)
    sites = {5: finding(5, 9000, 9, source="slab", kernel=kernel), 2: odd, 7: finding(7, 10, 1), 9: finding(9, 0, 0)}
    one = Target(
        4711, "server", "/usr/bin/server", 2, 1, Totals(13096, 13, 1, 2, 3), (77, 7), 4, (5, 6), True, 139,
        (Share(1, 4000, 4), Share(2, 9000, 9)), ContainerNote("ab" * 32, "docker", "web", "pod-1", "docker web"))
    other = Target(4712, "worker", None, parent=4711, shares=(Share(2, 96, 1),))
    made, freed = frames_of(20)[:1], frames_of(21)[:2]
    head = MemoryHead(
        4711, "server", 1 << 30, 3, 4, 5, 6, (MemoryPart("stacks", 8192, 1.5), MemoryPart("files", 1)), 7, 8, 9, 0.25,
        "jemalloc", False, True, "part", "stacks", 3.5,
        MemoryLimit("/a/b", 1, 2, "memory.max", (("oom", 3),), 0.5, 1.5, 60.0), 2.5)
    return report(
        sites, 5.0125, order=[2, 5, 7], targets=(one, other), complete=False, total_error=0.5,
        losses=(LossNote("outstanding_full", 3, 4096, "the map is full", "use --max-outstanding"),),
        sampling="one in 100 allocations", last=True, notes=("1 child process was not traced",),
        untraced=(("it ended", 2),), follows=True, asked_for=True, reachability=Reachability((9, 1), (8, 1), (7, 1), (6, 1)),
        misuses=Misuses((Misuse(Kind.DOUBLE, 2, 4711, "malloc", "free", "free", made, freed, made),
                         Misuse(Kind.UNKNOWN, 1, 4711, None, "free", None, None, freed, None)), 3),
        scans=(ScanNote(4711, 1 << 33, 0.25, 0.5, True, "it ended", 4096, 1),),
        pointers=(PointerNote("0x1000", ("global table", "row 3")),), memory=(head,),
        sources=(SourceTotal("slab", 1, 2, 3),),
        cross_checks=(CrossNote("allocinfo", (CrossRow("f", 1, 2, 3, 4, "differs", ("mm/slub.c:1",)),),
                                (CrossOnly("g", 5, 6),), (CrossOnly("h", 7, 8),), "differs", ("old",)),),
        mappings=(AddressMap(4711, (MappedFile(0x401000, 0x402000, 0x1000, "/usr/bin/server", "cd34"),
                                    MappedFile(0x7F0000000000, 0x7F0000001000, 0, "[vdso]", None))),))
