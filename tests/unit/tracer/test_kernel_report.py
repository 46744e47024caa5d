"""A kernel trace's tables become a report: what each site is, for whom it was, and what each source holds."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, cast

import numpy as np
import pytest

from symbolizer.frame import Frame
from tests.unit.tracer.test_kernel_sites import NOW, PAGES, SLAB, FakeProgram
from tracer.attach.kernel_program import KernelProgram
from tracer.collect.kernel_records import Source
from tracer.collect.kernel_sites import KernelReader
from tracer.kernel_names import KernelNames, NamedStack
from tracer.kernel_report import KERNEL_LOSSES, MOST_HOLDERS, SECOND, KernelReporter
from tracer.kernel_settings import KernelSettings
from tracer.losses import LOSSES, loss_index
from tracer.report.model import Holder, Report, SourceTotal
from tracer.verdicts import Watch


class Program(FakeProgram):
    """Also knows who has ended."""

    ended: ClassVar = {41: "was_there"}

    def ended_name(self, pid: int) -> str | None:
        return self.ended.get(pid)


class FakeNames:
    """Names a site by its first address; those at even ones serve slabs."""

    def stack(self, addresses: np.ndarray) -> NamedStack:
        number = int(addresses[0])
        return NamedStack((Frame(number, f"f{number}"),), None if number % 2 else "slab", number)

    def cache(self, about: np.void) -> str | None:
        return "made" if int(about["source"]) == Source.SLAB else None

    def gfp(self, flags: int) -> tuple[str, ...]:
        return (f"{flags:#x}",) if flags else ()

    def groups(self, stacks: np.ndarray, _about: np.ndarray) -> np.ndarray:
        return np.asarray(stacks["addresses"][:, 0], np.uint64)


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch) -> Program:
    clock = SimpleNamespace(monotonic_ns=lambda: NOW)
    for module in ("collect.kernel_sites", "kernel_report", "verdicts"):
        monkeypatch.setattr(f"tracer.{module}.time", clock)
    return Program()


def reporter(program: Program, notes: Sequence[str] = (), **settings: Any) -> KernelReporter:
    reader = KernelReader(cast(KernelProgram, program))
    start = NOW - 10 * SECOND
    return KernelReporter(KernelSettings(**settings), start, cast(KernelProgram, program), reader, cast(KernelNames, FakeNames()),
                          Watch(reader, start), lambda: tuple(notes))


def report(program: Program, notes: Sequence[str] = (), **settings: Any) -> Report:
    return reporter(program, notes, **settings).report(last=False)


def test_nothing_yet(program: Program) -> None:
    """Before anything is allocated, a report has no sites and no sources, and is one of a kernel."""
    made = report(program)
    assert (made.findings, made.sources, made.targets, made.totals.live_bytes, made.complete) == ((), (), (), 0, True)
    assert (made.elapsed_s, made.last) == (10.0, False) and made.kernel == os.uname().release


def test_a_slab_site(program: Program) -> None:
    """Its cache, flags, node, what was asked for of what it holds, and unseen frees; nothing that only pages have."""
    program.site(3, (128, 128, 128), wasted_bytes=84, unseen_frees=2, gfp=0xCC0, node=1, order=128)
    for number in range(3):
        program.block(SLAB + 64 * number, 3, 128)
    (found,) = report(program).findings
    assert (found.source, found.bytes, found.count, found.frames[0].function) == ("slab", 384, 3, "f3")
    note = found.kernel
    assert note is not None
    assert (note.cache, note.gfp, note.node, note.requested_bytes, note.unseen_frees) == ("made", ("0xcc0",), 1, 300, 2)
    assert (note.order, note.serves) == (None, None)


def test_a_pages_site(program: Program) -> None:
    """Its order, and for whom the allocators took them; no cache."""
    program.site(4, (32768,), source=Source.PAGES, order=3)
    program.block(PAGES, 4, 32768)
    (found,) = report(program).findings
    assert found.source == "pages" and found.kernel is not None
    assert (found.kernel.order, found.kernel.serves, found.kernel.cache, found.kernel.requested_bytes) == (3, "slab", None, 32768)


def test_waste_below_zero_is_none(program: Program) -> None:
    """Counters are read while they change; nobody asks for more than there is."""
    program.site(3, (128,), wasted_bytes=-5)
    program.block(SLAB, 3, 128)
    (found,) = report(program).findings
    assert found.kernel is not None and found.kernel.requested_bytes == 128


def test_holders(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The largest first, with bytes and blocks of this site; by name as they run, as they were when they ended, or none."""
    monkeypatch.setattr("tracer.kernel_report.PROC", tmp_path)
    (tmp_path / "40").mkdir()
    (tmp_path / "40" / "comm").write_text("running\n")
    program.site(3, (10,) * 5)
    program.site(5, (10,))
    for number, (process, site) in enumerate(((40, 3), (41, 3), (41, 3), (0, 3), (42, 3), (40, 5))):
        program.block(SLAB + 64 * number, site, 10, process=process)
    found = {each.frames[0].function: each.kernel.processes for each in report(program).findings if each.kernel}
    assert found["f3"][0] == Holder(41, "was_there", 20, 2)
    assert set(found["f3"][1:]) == {Holder(40, "running", 10, 1), Holder(0, "idle", 10, 1), Holder(42, None, 10, 1)}
    assert found["f5"] == (Holder(40, "running", 10, 1),)


def test_no_more_holders_than_are_read(program: Program) -> None:
    """Of many processes the largest are named."""
    program.site(3, (1,) * 20)
    for number in range(20):
        program.block(SLAB + 64 * number, 3, 1 + number, process=100 + number)
    (found,) = report(program).findings
    assert found.kernel is not None
    assert [each.bytes for each in found.kernel.processes] == [*range(20, 20 - MOST_HOLDERS, -1)]


def test_holders_are_of_the_blocks_that_are_told(program: Program) -> None:
    """With --older, a process that only holds younger ones is not named."""
    program.site(3, (10, 20))
    program.block(SLAB, 3, 10, process=1, age_ns=5_000_000)
    program.block(SLAB + 64, 3, 20, process=2, age_ns=100)
    (found,) = [each for each in report(program, older_ms=1).findings if each.count]
    assert found.kernel is not None and found.bytes == 10 and [each.pid for each in found.kernel.processes] == [1]


def test_sources(program: Program) -> None:
    """The largest first; of pages, what the allocators took of them for slabs and vmalloc."""
    program.site(1, (10,))
    program.site(2, (8192,), source=Source.PAGES)
    program.site(3, (4096,), source=Source.PAGES)
    program.site(5, (20000,), source=Source.PERCPU)
    for key, site, size in ((SLAB, 1, 10), (PAGES, 2, 8192), (PAGES + 1, 3, 4096), (Source.PERCPU << 60 | 64, 5, 20000)):
        program.block(key, site, size)
    assert report(program).sources == (SourceTotal("percpu", 20000, 1), SourceTotal("pages", 12288, 2, 8192), SourceTotal("slab", 10, 1))


def test_gains_are_those_since_the_report_before(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first report has none; the next one says what came since, per second."""
    program.site(3, (10,))
    program.block(SLAB, 3, 10)
    made = reporter(program)
    assert made.report(last=False).findings[0].gained_bytes is None
    later = SimpleNamespace(monotonic_ns=lambda: NOW + 2 * SECOND)
    for module in ("collect.kernel_sites", "kernel_report", "verdicts"):
        monkeypatch.setattr(f"tracer.{module}.time", later)
    program.site(3, (10, 30))
    program.block(SLAB + 64, 3, 30)
    second = made.report(last=True)
    (found,) = second.findings
    assert (found.gained_bytes, found.gained_count, found.growth_bytes_per_s) == (30, 1, 15.0) and second.last


def test_notes_are_those_of_the_moment(program: Program) -> None:
    """What is not covered is asked for at each report: it may become known as programs are attached."""
    notes: list[str] = []
    made = KernelReporter(KernelSettings(), NOW, cast(KernelProgram, program), KernelReader(cast(KernelProgram, program)),
                          cast(KernelNames, FakeNames()), Watch(KernelReader(cast(KernelProgram, program)), NOW), lambda: tuple(notes))
    assert made.report(last=False).notes == ()
    notes.append("slab: a part")
    assert made.report(last=False).notes == ("slab: a part",)


def test_losses_as_the_kernel_means_them(program: Program) -> None:
    """An unseen free is corrected and told at its site: the report stays complete, unlike with a full table."""
    program.losses[loss_index("missed_free")] = (2, 64)
    made = report(program)
    assert made.complete and made.losses[0].remedy == KERNEL_LOSSES["missed_free"].remedy
    program.losses[loss_index("outstanding_full")] = (1, 8)
    assert not report(program).complete
    assert set(KERNEL_LOSSES) <= {loss.name for loss in LOSSES}


def test_addresses_where_they_are_asked_for(program: Program) -> None:
    """-a lists blocks, the oldest first."""
    program.site(3, (10, 20))
    program.block(SLAB ^ (1 << 60) - 1, 3, 10, age_ns=1)
    program.block((SLAB + 64) ^ (1 << 60) - 1, 3, 20, age_ns=9)
    assert report(program).findings[0].blocks == ()
    assert [(block.address, block.size) for block in report(program, show_allocs=True).findings[0].blocks] == [
        (SLAB + 64, 20), (SLAB, 10)]
