"""A report is filled from the sites of a snapshot: order, growth, losses."""

from __future__ import annotations

import gc
import weakref
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import sqrt
from typing import Any, cast

import numpy as np
import pytest

from symbolizer.frame import Frame
from tests.unit.tracer.conftest import DEPTH, stack
from tracer import records
from tracer.attach.container import Container
from tracer.attach.tracee import Inherited, Tracee
from tracer.collect.snapshot import Blocks, LossCount, Retired, Snapshot, merge_sites
from tracer.fill import SECOND, fill_report
from tracer.holdings import Shares, Sites
from tracer.losses import LOSSES
from tracer.report.model import Block, Finding, Report, Share, Target, Totals
from tracer.settings import Settings


@dataclass
class FakeProcess:
    pid: int
    comm: str = "server"


@dataclass
class FakeTracee:
    """What fill.py sees of a traced process."""

    process: FakeProcess
    exe: str | None = "/usr/bin/server"
    children: int = 0
    uid: int = 0
    parent: int | None = None
    inherited: Inherited | None = None
    dropped: Inherited = field(default_factory=lambda: Inherited(0, 0))
    execs: int = 0
    alive: bool = True
    status: int | None = None
    container: Container | None = None


def counters(live: int, count: int, dead: int = 1, variance: int = 0) -> np.ndarray:
    made = np.zeros((), records.SITE)
    made["allocated_bytes"], made["allocated_count"] = live + 10 * dead, count + dead
    made["freed_bytes"], made["freed_count"], made["variance"] = 10 * dead, dead, variance
    return made


def snapshot(*rows: tuple[np.ndarray, np.ndarray], taken_s: int = 0) -> Snapshot:
    return merge_sites(taken_s * SECOND, np.array([row[1] for row in rows], records.SITE),
                       np.array([row[0] for row in rows], records.stack_dtype(DEPTH)), Retired())[0]


def held(*rows: tuple[int, int, int, int]) -> Shares:
    """Return shares: process, row of the site, bytes, blocks."""
    uid, row, size, count = np.array(rows, np.int64).reshape(-1, 4).T
    return Shares(uid, row, size, count)


def filled(now: Snapshot, earlier: tuple[int, Snapshot] | None = None, settings: Settings | None = None,
           tracees: tuple[FakeTracee, ...] = (FakeTracee(FakeProcess(4711)),), shares: Shares | None = None,
           process_totals: dict[int, Totals] | None = None, kinds: np.ndarray | None = None, **more: Any) -> Report:
    arguments: dict[str, Any] = {"elapsed_s": 5.0, "taken": datetime(2026, 3, 1, tzinfo=UTC), "kernel": "6.18",
                                 "last": False} | more
    everything = held(*((0, row, int(now.live_bytes[row]), int(now.live_count[row])) for row in range(len(now))))
    sites = Sites(now, np.arange(1, len(now) + 1), lambda row: (Frame(row, f"function{row}"),),
                  everything if shares is None else shares, process_totals or {},
                  np.zeros((len(now), 4, 2), np.int64) if kinds is None else kinds, np.zeros(len(now), np.int64))
    return fill_report(sites, earlier, settings or Settings(), cast("list[Tracee]", tracees), **arguments)


def by_bytes(report: Report, amount: int) -> Finding:
    return next(finding for finding in report.findings if finding.bytes == amount)


def test_findings_in_order() -> None:
    """Ranks count from 1, the largest first, and figures are those of the row."""
    report = filled(snapshot((stack(0x400010), counters(100, 2)), (stack(0x400020), counters(300, 1, dead=5)),
                             (stack(0x400030), counters(0, 0))))
    assert [(each.rank, each.bytes, each.count) for each in report.findings] == [(1, 300, 1), (2, 100, 2)]
    first = report.findings[0]
    assert (first.allocated_bytes, first.allocated_count, first.freed_count, first.pid) == (350, 6, 5, 4711)
    assert first.oldest_s is None and first.error is None and first.blocks == ()


def test_names_of_each_site() -> None:
    """Each finding has the frames of its row, and how many stacks were put together there."""
    now = snapshot((stack(0x400010), counters(100, 2)), (stack(0x400020), counters(300, 1)))
    for finding in filled(now).findings:
        row = int(np.flatnonzero(now.live_bytes == finding.bytes)[0])
        assert (finding.frames, finding.stacks) == ((Frame(row, f"function{row}"),), row + 1)


def test_totals_are_of_all_sites() -> None:
    """Totals count what is not shown too."""
    now = snapshot(*((stack(0x400010 + n), counters(100, 2, dead=3)) for n in range(5)))
    report = filled(now, settings=Settings(top=1))
    assert len(report.findings) == 1
    totals = report.totals
    assert (totals.live_bytes, totals.live_count, totals.allocated_bytes, totals.allocated_count, totals.freed_count) == (
        500, 10, 650, 25, 15)


def test_order_by_count() -> None:
    """--sort count puts the most blocks first."""
    now = snapshot((stack(0x400010), counters(100, 2)), (stack(0x400020), counters(300, 1)))
    assert [each.count for each in filled(now, settings=Settings(sort="count")).findings] == [2, 1]


def test_growth() -> None:
    """Growth is since the report before, by the time between the two; a new site gained all it has."""
    before = snapshot((stack(0x400010), counters(100, 2)))
    now = snapshot((stack(0x400010), counters(150, 1)), (stack(0x400020), counters(300, 1)), taken_s=14)
    report = filled(now, (10 * SECOND, before))
    grown, fresh = by_bytes(report, 150), by_bytes(report, 300)
    assert (grown.gained_bytes, grown.gained_count, grown.growth_bytes_per_s) == (50, -1, 12.5)
    assert (fresh.gained_bytes, fresh.gained_count, fresh.growth_bytes_per_s) == (300, 1, 75.0)


def test_the_first_report_has_no_growth() -> None:
    """Without a report before, nothing is said of growth."""
    (only,) = filled(snapshot((stack(0x400010), counters(100, 2)))).findings
    assert (only.gained_bytes, only.gained_count, only.growth_bytes_per_s) == (None, None, None)


def test_losses_make_it_incomplete() -> None:
    """A loss that hides bytes makes a report incomplete, one that shortens stacks does not; each says what it means."""
    now = snapshot((stack(0x400010), counters(100, 2)))
    short = filled(replace(now, losses=(LossCount("stack_depth", 3, 0),)))
    assert short.complete and short.losses[0].name == "stack_depth"
    full = filled(replace(now, losses=(LossCount("stack_depth", 3, 0), LossCount("outstanding_full", 12, 480))))
    assert not full.complete
    note = full.losses[1]
    row = next(loss for loss in LOSSES if loss.name == "outstanding_full")
    assert (note.count, note.bytes, note.remedy) == (12, 480, row.remedy)
    assert note.meaning == row.meaning.format(bytes=480) and "480" in note.meaning
    assert filled(now).complete


def test_estimates() -> None:
    """With sampling, each site and the total have their standard error, and the report says how it was sampled."""
    now = snapshot((stack(0x400010), counters(1000, 2, variance=400)), (stack(0x400020), counters(500, 1, variance=500)))
    report = filled(now, settings=Settings(sample_rate=10))
    assert by_bytes(report, 1000).error == pytest.approx(0.02)
    assert report.total_error == pytest.approx(sqrt(900) / 1500)
    assert report.sampling == "one in 10 allocations"
    assert filled(now, settings=Settings(sample_bytes=4096)).sampling == "one allocation in about 4096 bytes"
    assert (filled(now).sampling, filled(now).total_error) == (None, None)
    assert filled(snapshot(), settings=Settings(sample_rate=2)).total_error == 0.0


def test_each_site_is_of_the_process_that_holds_most() -> None:
    """The pid of a site is that of the largest share, of equal ones that of the older process; how many hold some is said."""
    three = tuple(FakeTracee(FakeProcess(pid, comm), exe, uid=uid) for uid, pid, comm, exe in (
        (4, 8, "a", None), (5, 9, "b", "/usr/bin/server"), (6, 10, "c", "/usr/bin/server")))
    now = snapshot(*((stack(0x400010 + n), counters(100 * (n + 1), 3)) for n in range(3)))
    row = {amount: int(np.flatnonzero(now.live_bytes == amount)[0]) for amount in (100, 200, 300)}
    report = filled(now, tracees=three, shares=held(
        (4, row[100], 30, 2), (5, row[100], 70, 1), (6, row[200], 200, 3), (6, row[300], 100, 1), (5, row[300], 100, 1),
        (4, row[300], 100, 1)))
    assert [by_bytes(report, amount).pid for amount in (100, 200, 300)] == [9, 10, 8]
    assert [by_bytes(report, amount).processes for amount in (100, 200, 300)] == [2, 1, 3]
    assert [(each.pid, each.comm, each.exe) for each in report.targets][:2] == [
        (8, "a", None), (9, "b", "/usr/bin/server")]


def test_a_site_that_nobody_holds() -> None:
    """What was lost without a site is not pinned on a process that is no target; it counts for one all the same."""
    now = snapshot((stack(0x400010), counters(100, 2)))
    (only,) = filled(now, shares=held((-1, 0, 100, 2))).findings
    assert (only.pid, only.processes) == (4711, 1)
    (only,) = filled(now, shares=held()).findings
    assert (only.pid, only.processes) == (4711, 1)


def test_shares_of_each_process() -> None:
    """A target says what it holds at the sites that are shown, by their ranks, the largest first, and its own sums."""
    two = (FakeTracee(FakeProcess(8), uid=4), FakeTracee(FakeProcess(9), uid=5))
    now = snapshot(*((stack(0x400010 + n), counters(100 * (n + 1), 3)) for n in range(3)))
    row = {amount: int(np.flatnonzero(now.live_bytes == amount)[0]) for amount in (100, 200, 300)}
    sums = Totals(180, 3, 200, 4, 1)
    report = filled(now, settings=Settings(top=2), tracees=two, process_totals={4: sums}, shares=held(
        (4, row[100], 90, 1), (4, row[200], 40, 1), (4, row[300], 50, 1), (5, row[300], 250, 2), (5, row[100], 10, 1)))
    assert [each.shares for each in report.targets] == [(Share(1, 50, 1), Share(2, 40, 1)), (Share(1, 250, 2),)]
    assert [each.totals for each in report.targets] == [sums, Totals(0, 0, 0, 0, 0)]


def test_what_became_of_each_process() -> None:
    """Whose child it is and what it has from there, its execs and what went with them, and how it ended."""
    two = (FakeTracee(FakeProcess(8), uid=4, execs=2, dropped=Inherited(640, 10), alive=False, status=9),
           FakeTracee(FakeProcess(9), uid=5, parent=8, inherited=Inherited(100, 3)))
    report = filled(snapshot(), tracees=two)
    none = Totals(0, 0, 0, 0, 0)
    assert report.targets == (
        Target(8, "server", "/usr/bin/server", totals=none, execs=2, dropped=(640, 10), ended=True, status=9),
        Target(9, "server", "/usr/bin/server", parent=8, totals=none, inherited=(100, 3)))
    assert filled(snapshot(), tracees=(), shares=held()).targets == ()


def test_processes_that_could_not_be_traced() -> None:
    """Each reason is a note with its number, and is kept for programs to read."""
    report = filled(snapshot(), untraced={"no room": 2, "gone": 1})
    assert report.untraced == (("no room", 2), ("gone", 1))
    assert report.notes == ("2 processes were not traced: no room", "1 process was not traced: gone")
    assert filled(snapshot()).untraced == ()


def test_untraced_children_are_told_of() -> None:
    """Who made processes meanwhile is named, as these are not traced."""
    now = snapshot((stack(0x400010), counters(100, 2)))
    two = (FakeTracee(FakeProcess(8, "a"), children=2), FakeTracee(FakeProcess(9, "b"), children=1))
    report = filled(now, tracees=two)
    assert [target.children for target in report.targets] == [2, 1]
    assert report.notes == ("2 child processes of a (pid 8) were not traced", "1 child process of b (pid 9) was not traced")
    assert filled(now).notes == ()


def test_ages_and_blocks() -> None:
    """Where blocks were read, each site has its own, the oldest first, and the age of that one."""
    now = snapshot((stack(0x400010), counters(100, 2)), (stack(0x400020), counters(300, 1)))
    row = int(np.flatnonzero(now.live_bytes == 100)[0])
    blocks = Blocks(np.array([0x10, 0x20, 0x30], np.uint64), np.array([40, 60, 300], np.uint64), np.array([5, 9, 1]),
                    np.ones(3, np.uint64), np.array([row, row, 1 - row]))
    report = filled(replace(now, blocks=blocks, oldest_ns=np.full(2, 2_345_678_900)), settings=Settings(show_allocs=True))
    assert by_bytes(report, 100).blocks == (Block(0x20, 60), Block(0x10, 40))
    assert by_bytes(report, 300).blocks == (Block(0x30, 300),)
    assert by_bytes(report, 100).oldest_s == 2.346


@pytest.mark.parametrize("show_allocs", [False, True])
def test_a_report_holds_single_blocks_only_to_show_them(show_allocs: bool) -> None:
    """A report lives until the next one is there; of a million blocks it must not keep what it does not say."""
    now = snapshot((stack(1), counters(64, 1)))
    blocks = Blocks(*(np.array([number], np.int64) for number in (0x10, 64, 5, 1, 0)))
    alive = weakref.ref(blocks.addresses)
    report = filled(replace(now, blocks=blocks), settings=Settings(show_allocs=show_allocs))
    del now, blocks
    gc.collect()
    assert report.sites is not None and report.sites.finding(0, 1).bytes == 64
    assert (alive() is not None) == show_allocs
