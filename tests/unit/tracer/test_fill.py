"""A report is filled from a snapshot: order, growth, losses, and the names of a stack."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from math import sqrt
from typing import Any, cast

import numpy as np
import pytest

from symbolizer.frame import Frame, Why
from symbolizer.mappings import AddressSpace, object_key, parse_maps
from symbolizer.symbolizer import Symbolizer
from tracer import records
from tracer.attach.tracee import Tracee
from tracer.collect.snapshot import Blocks, LossCount, Retired, Snapshot, merge_sites
from tracer.fill import SECOND, fill_report, name_stack
from tracer.limits import MAX_SLOTS
from tracer.losses import LOSSES
from tracer.records import INTERRUPTED, StackEnd
from tracer.report.model import Block, Finding, Report
from tracer.settings import Settings

DEPTH = 6
SERVER = 0x400000
MAPS = b"""\
400000-410000 r-xp 00002000 08:01 11 /usr/bin/server
500000-501000 r-xp 00000000 00:00 0
600000-601000 r-xp 00000000 00:00 0 [heap]
700000-701000 rwxp 00000000 08:01 12 /usr/lib/other.so
"""
SPACE = AddressSpace.of(parse_maps(MAPS))


@dataclass
class Names:
    """A symbolizer that says what it was asked."""

    asked: list[tuple[Hashable, int, int, bool]] = field(default_factory=list)

    def resolve(self, key: Hashable | None, offset: int, address: int, is_return: bool) -> tuple[Frame, ...]:
        self.asked.append((key, offset, address, is_return))
        return (Frame(address, "inlined", inlined=True), Frame(address, "named", 0))


@dataclass
class FakeProcess:
    pid: int
    comm: str = "server"


@dataclass
class FakeTracee:
    """What fill.py sees of a traced process."""

    process: FakeProcess
    exe: str | None = "/usr/bin/server"
    space: AddressSpace = SPACE
    spaces: dict[int, AddressSpace] = field(default_factory=dict)

    def space_of(self, version: int) -> AddressSpace:
        return self.spaces.get(version, self.space)


def stack(*addresses: int, image: int = 0, code: int = 0, ended: int = StackEnd.COMPLETE) -> np.ndarray:
    made = np.zeros((), records.stack_dtype(DEPTH))
    made["image"], made["code"], made["ended"], made["depth"] = image, code, ended, len(addresses)
    made["addresses"][: len(addresses)] = addresses
    return made


def counters(live: int, count: int, dead: int = 1, variance: int = 0) -> np.ndarray:
    made = np.zeros((), records.SITE)
    made["allocated_bytes"], made["allocated_count"] = live + 10 * dead, count + dead
    made["freed_bytes"], made["freed_count"], made["variance"] = 10 * dead, dead, variance
    return made


def snapshot(*rows: tuple[np.ndarray, np.ndarray], taken_s: int = 0) -> Snapshot:
    return merge_sites(taken_s * SECOND, np.array([row[1] for row in rows], records.SITE),
                       np.array([row[0] for row in rows], records.stack_dtype(DEPTH)), Retired())[0]


def filled(now: Snapshot, earlier: tuple[int, Snapshot] | None = None, settings: Settings | None = None,
           tracees: tuple[FakeTracee, ...] = (FakeTracee(FakeProcess(4711)),), **more: Any) -> Report:
    arguments: dict[str, Any] = {"elapsed_s": 5.0, "taken": datetime(2026, 3, 1, tzinfo=UTC), "kernel": "6.18",
                                 "last": False} | more
    return fill_report(now, earlier, settings or Settings(), cast("list[Tracee]", tracees), cast(Symbolizer, Names()),
                       **arguments)


def named(made: np.ndarray, tracee: FakeTracee | None = None) -> tuple[tuple[Frame, ...], Names]:
    names = Names()
    return name_stack(cast(np.void, made), cast(Tracee, tracee or FakeTracee(FakeProcess(1))),
                      cast(Symbolizer, names)), names


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


def test_each_site_is_of_its_process() -> None:
    """The image's number says the slot, also after execs, which count it up by the number of slots."""
    three = (FakeTracee(FakeProcess(8, "a"), None), FakeTracee(FakeProcess(9, "b")), FakeTracee(FakeProcess(10, "c")))
    report = filled(snapshot((stack(0x400010, image=0), counters(100, 1)),
                             (stack(0x400010, image=MAX_SLOTS + 1), counters(200, 1)),
                             (stack(0x400010, image=5 * MAX_SLOTS + 2), counters(300, 1))), tracees=three)
    assert [by_bytes(report, amount).pid for amount in (100, 200, 300)] == [8, 9, 10]
    assert [(each.pid, each.comm, each.exe) for each in report.targets][:2] == [
        (8, "a", None), (9, "b", "/usr/bin/server")]


def test_ages_and_blocks() -> None:
    """Where blocks were read, each site has its own, the oldest first, and the age of that one."""
    now = snapshot((stack(0x400010), counters(100, 2)), (stack(0x400020), counters(300, 1)))
    row = int(np.flatnonzero(now.live_bytes == 100)[0])
    blocks = Blocks(np.array([0x10, 0x20, 0x30], np.uint64), np.array([40, 60, 300], np.uint64), np.array([5, 9, 1]),
                    np.ones(3, np.uint64), np.array([row, row, 1 - row]))
    report = filled(replace(now, blocks=blocks, oldest_ns=np.full(2, 2_345_678_900)))
    assert by_bytes(report, 100).blocks == (Block(0x20, 60), Block(0x10, 40))
    assert by_bytes(report, 300).blocks == (Block(0x30, 300),)
    assert by_bytes(report, 100).oldest_s == 2.346


def test_frames_are_asked_for_by_file_offset() -> None:
    """A return address is looked up as such in the file that is mapped there, and one interrupted by a signal as itself."""
    frames, names = named(stack(SERVER + 0x123, SERVER + 0x456 | INTERRUPTED))
    key = object_key(SPACE.mappings[0])
    assert names.asked == [(key, 0x2123, SERVER + 0x123, True), (key, 0x2456, SERVER + 0x456, False)]
    assert [(frame.address, frame.function) for frame in frames] == [
        (SERVER + 0x123, "inlined"), (SERVER + 0x123, "named"), (SERVER + 0x456, "inlined"), (SERVER + 0x456, "named")]


def test_a_return_address_at_the_end_of_a_mapping() -> None:
    """A call that never returns can be the last instruction: its return address lies just beyond, the call does not."""
    _, names = named(stack(0x410000, 0x700000 | INTERRUPTED))
    assert [key and cast(Any, key).path for key, *_ in names.asked] == ["/usr/bin/server", "/usr/lib/other.so"]
    _, names = named(stack(SERVER))
    assert names.asked == [(None, 0, SERVER, True)]


def test_nothing_mapped() -> None:
    """An address outside all mappings is left to the symbolizer, without a file."""
    _, names = named(stack(0x900000))
    assert names.asked == [(None, 0, 0x900000, True)]


def test_code_of_no_file() -> None:
    """Code that was made at run time has no symbols, and the symbolizer is not asked."""
    frames, names = named(stack(0x500010, 0x600010))
    assert frames == (Frame(0x500010, why=Why.NO_SYMBOLS), Frame(0x600010, module="[heap]", why=Why.NO_SYMBOLS))
    assert names.asked == []


def test_only_the_depth_counts() -> None:
    """What lies beyond a stack's depth is no frame."""
    made = stack(SERVER + 1)
    made["addresses"][3] = SERVER + 99
    assert len(named(made)[0]) == 2


@pytest.mark.parametrize("ended", [end for end in StackEnd if end is not StackEnd.COMPLETE] + [0])
def test_a_stack_that_ends_early_says_so(ended: int) -> None:
    """However a walk stopped before the outermost function, a last frame says that it did; also one still under way."""
    frames, _ = named(stack(SERVER + 1, SERVER + 2 | INTERRUPTED, ended=ended))
    assert frames[-1] == Frame(SERVER + 2, why=Why.UNWIND_STOPPED)
    assert named(stack(ended=ended))[0] == (Frame(0, why=Why.UNWIND_STOPPED),)


def test_the_mappings_of_that_time() -> None:
    """A stack is named by the mappings that its image had in its code, else by the latest."""
    old = AddressSpace.of(parse_maps(b"400000-410000 r-xp 00000000 08:01 99 /usr/bin/before\n"))
    tracee = FakeTracee(FakeProcess(1), spaces={1: old})
    for code, path in ((1, "/usr/bin/before"), (2, "/usr/bin/server")):
        _, names = named(stack(SERVER + 1, code=code), tracee)
        assert cast(Any, names.asked[0][0]).path == path
