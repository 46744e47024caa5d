"""How sites develop is watched, and what is known of each becomes the facts that verdicts rest on."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from dataclasses import replace as changed
from typing import cast

import numpy as np
import pytest

from symbolizer.frame import Frame
from tests.unit.tracer.conftest import DEPTH
from tracer import records
from tracer.collect.sites import SiteReader
from tracer.collect.snapshot import Blocks, Members, Snapshot
from tracer.holdings import Shares, Sites
from tracer.judge.reachability import Kind
from tracer.judge.verdict import Verdict, Verdicts
from tracer.verdicts import FIRST_PERIOD, LATER_PERIOD, SECOND, Watch

Held = dict[int, int]
Series = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass
class FakeReader:
    """Gives what each site holds, in blocks of 10 bytes, from one look to the next."""

    now: list[Held] = field(default_factory=list)
    looks: int = 0

    def series(self) -> Series:
        held = self.now[min(self.looks, len(self.now) - 1)] if self.now else {}
        self.looks += 1
        count = np.array([*held.values()], np.int64)
        return np.array([*held], np.uint64), 10 * count, count


@dataclass
class Clock:
    """A time that passes as it is told to."""

    ns: int = 1000 * SECOND

    def monotonic_ns(self) -> int:
        return self.ns


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr("tracer.verdicts.time", made)
    return made


def watch(reader: FakeReader, clock: Clock) -> Watch:
    return Watch(cast(SiteReader, reader), clock.ns)


def sites(clock: Clock, *rows: tuple[int, int], born_s: float = 0.0, kinds: np.ndarray | None = None, gone: tuple[int, ...] = (),
          members: Members | None = None, blocks: Blocks | None = None) -> Sites:
    """Return sites of which each had so many blocks of 10 bytes, and has freed so many; the first born then."""
    count = len(rows)
    born, freed = np.array(rows, np.int64).reshape(-1, 2).T
    counters = np.zeros(count, records.SITE)
    counters["allocated_count"], counters["freed_count"] = born, freed
    counters["first_ns"] = int(born_s * SECOND)
    live = born - freed
    snapshot = Snapshot(clock.ns, np.arange(count, dtype=np.uint64), counters, np.zeros(count, records.stack_dtype(DEPTH)), 10 * live,
                        live, np.full(count, -1, np.int64), np.zeros(count), blocks=blocks, members=members)
    none = np.zeros(0, np.int64)
    return Sites(snapshot, np.ones(count, np.int64), lambda row: (Frame(row),), Shares(none, none, none, none), {},
                 np.zeros((count, 4, 2), np.int64) if kinds is None else kinds, np.array(gone or (0,) * count, np.int64))


def words(verdicts: Verdicts) -> list[Verdict]:
    return [verdicts.opinion(row).verdict for row in range(len(verdicts.rows))]


def test_looks_are_rare() -> None:
    """However often it is asked, tables are read at the beginning and then when that is due, by the real clock."""
    reader = FakeReader([{1: 1}])
    made = Watch(cast(SiteReader, reader), time.monotonic_ns())
    for _ in range(5):
        made.look()
    assert reader.looks == 1


@pytest.mark.parametrize(("elapsed_s", "period_s"), [(0, FIRST_PERIOD), (1, FIRST_PERIOD), (48, 1.0), (4800, 100.0)])
def test_when_the_next_look_is_due(clock: Clock, elapsed_s: int, period_s: float) -> None:
    """At first some times in a second, later as often as a series has room for."""
    made = watch(FakeReader([{1: 1}]), clock)
    clock.ns += elapsed_s * SECOND
    made.look()
    assert made.due - clock.ns == pytest.approx(period_s * SECOND) and LATER_PERIOD == 1 / 48
    made.look()
    clock.ns = made.due - 1
    made.look()
    assert cast(FakeReader, made._reader).looks == 1
    clock.ns = made.due
    made.look()
    assert cast(FakeReader, made._reader).looks == 2


def looked(reader: FakeReader, clock: Clock) -> Watch:
    """Return a watch that has looked at everything the reader has to give, 2 s apart."""
    made = watch(reader, clock)
    for _ in reader.now:
        clock.ns = max(clock.ns + 2 * SECOND, made.due)
        made.look()
    return made


def test_a_row_has_the_series_of_its_members(clock: Clock) -> None:
    """What several sites of the kernel side hold together is the series of the row; others' rows have their own."""
    reader = FakeReader([{7: 1 + n, 8: 5 + 3 * n, 9: 6} for n in range(12)])
    made = looked(reader, clock)
    of = sites(clock, (60, 0), (6, 0), (3, 0), members=Members(np.array([7, 9, 8], np.uint64), np.array([0, 1, 0])))
    times, held = made._series(of.snapshot)
    assert np.diff(times).tolist() == pytest.approx([2.0] * 11)
    assert held.tolist() == [[60 + 40.0 * n for n in range(12)], [60.0] * 12, [0.0] * 12]
    verdicts = made.judge(of)
    assert words(verdicts)[:2] == [Verdict.GROWING, Verdict.STEADY]
    assert verdicts.facts.growth.slope[:2].tolist() == pytest.approx([20.0, 0.0])


def test_without_members_there_is_no_series(clock: Clock) -> None:
    """A snapshot that does not know its members has rows that never held anything, and no verdict on growth."""
    made = looked(FakeReader([{7: n} for n in range(12)]), clock)
    assert not made._series(sites(clock, (60, 0)).snapshot)[1].any()
    assert words(watch(FakeReader(), clock).judge(sites(clock, (60, 0)))) == [Verdict.UNDECIDED]


def test_nothing_is_there_any_more(clock: Clock) -> None:
    """After the end of all processes no point is added: how it went before does not change."""
    reader = FakeReader([*({7: n} for n in range(1, 12)), {}, {}, {}])
    made = looked(reader, clock)
    of = sites(clock, (11, 0), members=Members(np.array([7], np.uint64), np.array([0])))
    assert reader.looks == 14 and made._series(of.snapshot)[1].tolist() == [[10.0 * n for n in range(1, 12)]]


def test_facts_of_how_blocks_are_reached(clock: Clock) -> None:
    """Blocks and bytes by kind: lost are the definite and the indirect ones, and all were looked at."""
    kinds = np.zeros((2, 4, 2), np.int64)
    for kind, bytes_, count in ((Kind.REACHABLE, 10, 1), (Kind.POSSIBLY, 20, 2), (Kind.INDIRECTLY, 30, 3), (Kind.DEFINITELY, 40, 4)):
        kinds[0, kind] = bytes_, count
    clock.ns += 20 * SECOND
    verdicts = Watch(cast(SiteReader, FakeReader()), clock.ns - 20 * SECOND).judge(sites(clock, (10, 0), (5, 0), kinds=kinds))
    facts = verdicts.facts
    assert [each.tolist() for each in (facts.scanned, facts.definitely, facts.lost, facts.lost_bytes, facts.possibly)] == [
        [10, 0], [4, 0], [7, 0], [70, 0], [2, 0]]
    assert words(verdicts)[0] is Verdict.LOST and verdicts.expected.tolist()[0] == pytest.approx(70 / 20)


def test_facts_of_time(clock: Clock) -> None:
    """How long the trace and each site have run; a site is not older than the trace."""
    made = watch(FakeReader(), clock)
    clock.ns += 30 * SECOND
    of = sites(clock, (4, 1), (4, 1), (4, 1))
    of.snapshot.counters["first_ns"] = np.array([5, 1020, 2000]) * SECOND
    of.snapshot.oldest_ns[:] = -1, 7 * SECOND, 0
    facts = made.judge(of).facts
    assert (facts.elapsed_s, facts.age_s.tolist(), facts.oldest_s.tolist()) == (30.0, [30.0, 10.0, 0.0], [0.0, 7.0, 0.0])
    assert (facts.bytes.tolist(), facts.count.tolist()) == ([30] * 3, [3] * 3)
    assert (facts.allocated.tolist(), facts.freed.tolist(), facts.over) == ([4] * 3, [1] * 3, False)


def test_what_has_ended(clock: Clock) -> None:
    """Blocks of processes that are gone have no series; but if the one process of the trace is gone, theirs is whole."""
    made = looked(FakeReader([{7: 5} for _ in range(12)]), clock)
    of = sites(clock, (5, 0), gone=(5,), members=Members(np.array([7], np.uint64), np.array([0])))
    going, over = made.judge(of), made.judge(of, over=True)
    assert going.facts.ended.tolist() == [5] and words(going) == [Verdict.UNDECIDED]
    assert "has ended" in going.opinion(0).evidence
    assert over.facts.ended.tolist() == [0] and over.facts.over and words(over) == [Verdict.STEADY]
    assert of.gone.tolist() == [5]


def test_what_lives_on_is_seen_by_its_age(clock: Clock) -> None:
    """A site of which almost all is freed at once, and some blocks live on since then, at any age, grows."""
    made = watch(FakeReader(), clock)
    clock.ns += 100 * SECOND
    ages = np.linspace(1, 95, 40)
    blocks = Blocks(np.arange(40, dtype=np.uint64), np.full(40, 10, np.uint64), (ages * SECOND).astype(np.int64), np.ones(40, np.uint64),
                    np.zeros(40, np.int64))
    of = sites(clock, (1040, 1000), blocks=blocks)
    of.snapshot.counters["lifetimes"][0, 20] = 1000
    facts = made.judge(of).facts
    assert facts.survival.outlived[0] > 20 and 0 < facts.survival.young[0] < facts.survival.outlived[0]
    without = made.judge(changed(of, snapshot=changed(of.snapshot, blocks=None))).facts
    assert without.survival.outlived[0] == 0


def test_no_sites(clock: Clock) -> None:
    """A program that allocates nothing has no verdicts."""
    assert len(watch(FakeReader(), clock).judge(sites(clock)).rows) == 0
