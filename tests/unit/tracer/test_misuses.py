"""Wrong frees get their stacks while these are there, are summed by place, and are told only where there is no doubt."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable

import numpy as np
import pytest

from symbolizer.frame import Frame
from symbolizer.mappings import ObjectKey
from tracer import records
from tracer.attach.allocators import Family
from tracer.misuses import MisuseCollector
from tracer.records import MisuseKind
from tracer.report import misuses as writer
from tracer.report.misuse_model import Kind, Misuse, Misuses
from tracer.stack_pool import NOBODY, Place, PooledStack

DEPTH, SITES = 4, 64
LIBC, PROGRAM = ObjectKey((0, 1), 1, "/usr/lib/libc.so.6"), ObjectKey((0, 1), 2, "/usr/bin/program")


class Tables:
    """The kernel side's: site n began at 1000 + n, and its stack is one address, 100 * n."""

    def __init__(self) -> None:
        self.sites = np.zeros(SITES, records.SITE)
        self.stacks = np.zeros(SITES, records.stack_dtype(DEPTH))
        for site in range(1, SITES):
            self.put(site, 100 * site)
        self.counts: dict[bytes, int] = {}

    def put(self, site: int, address: int) -> None:
        self.sites["first_ns"][site] = (7 << 32) + 1000 + site
        self.stacks[site] = np.zeros((), self.stacks.dtype)
        self.stacks["depth"][site] = 1
        self.stacks["addresses"][site] = [address, 0xBAD, 0xBAD, 0xBAD]

    def misuses(self) -> Iterable[tuple[bytes, int]]:
        return self.counts.items()


class Pool:
    """Numbers stacks by their first address; those from 5000 on are the C library's."""

    def __init__(self) -> None:
        self.stacks: list[PooledStack] = []
        self.places: list[Place] = []

    def intern_last(self, stacks: np.ndarray) -> np.ndarray:
        addresses = tuple(stacks["addresses"][0][: int(stacks["depth"][0])].tolist())
        known = [each.addresses for each in self.stacks]
        if addresses not in known:
            self.places.append(Place(LIBC if addresses[0] >= 5000 else PROGRAM, addresses[0], called=True))
            self.stacks.append(PooledStack((len(self.places) - 1,), addresses, True, NOBODY, 0))
            known.append(addresses)
        return np.array([known.index(addresses)], np.int64)


class Namer:
    """Names a stack by its address; addresses that are the same in hundreds are of one group."""

    def __init__(self, pool: Pool, names: dict[int, str | None]) -> None:
        self._pool = pool
        self._names = names

    def groups(self, numbers: np.ndarray) -> np.ndarray:
        return np.array([self._pool.stacks[number].addresses[0] // 100 for number in numbers.tolist()], np.uint64)

    def frames(self, number: int) -> tuple[Frame, ...]:
        address = self._pool.stacks[number].addresses[0]
        return (Frame(address, function=self._names.get(address, f"f{address}")),)


class Bench:
    """A collector with all that it stands on."""

    def __init__(self, names: dict[int, str | None] | None = None) -> None:
        self.tables = Tables()
        self.collector = MisuseCollector(self.tables, (pool := Pool()), Namer(pool, names or {}), lambda slot: 10 + slot)

    def happen(self, kind: MisuseKind, families: tuple[int, int, int], *sites: int, count: int = 1,
               heard: bool = True) -> bytes:
        """Let a misuse happen in slot 3; sites: of the block's birth, of the free, of the one before."""
        origins = [part for site in sites for part in (site, 1000 + site if site else 0)]
        what = records.MISUSE_STRUCT.pack(256 + 3, kind, *families, *origins)
        self.tables.counts[what] = count
        if heard:
            self.collector.note(what)
        return what


MISMATCH = (Family.NEW_ARRAY, Family.NEW, 0)


def functions(frames: tuple[Frame, ...] | None) -> list[str | None] | None:
    return [frame.function for frame in frames] if frames is not None else None


def test_a_mismatch() -> None:
    """Both stacks, both functions by their C++ names, the process and the number are there."""
    bench = Bench()
    bench.happen(MisuseKind.MISMATCH, MISMATCH, 1, 2, 0, count=12)
    (found,) = bench.collector.collect().found
    assert (found.kind, found.count, found.pid) == (Kind.MISMATCH, 12, 13)
    assert (found.allocated_by, found.freed_by, found.freed_before_by) == ("new[]", "delete", None)
    assert (functions(found.allocated), functions(found.freed), found.freed_before) == (["f100"], ["f200"], None)


def test_a_double_free() -> None:
    """The stack of the free before is there too."""
    bench = Bench()
    bench.happen(MisuseKind.DOUBLE, (Family.MALLOC, Family.MALLOC, Family.REALLOC), 1, 2, 3)
    (found,) = bench.collector.collect().found
    assert (found.kind, found.freed_by, found.freed_before_by) == (Kind.DOUBLE, "free", "realloc")
    assert functions(found.freed_before) == ["f300"]


def test_an_address_of_nobody() -> None:
    """Nothing is claimed of where it was allocated."""
    bench = Bench()
    bench.happen(MisuseKind.UNKNOWN, (0, Family.MALLOC, 0), 0, 2, 0)
    (found,) = bench.collector.collect().found
    assert (found.allocated_by, found.allocated, found.freed_before) == (None, None, None)


def test_the_same_places_are_one() -> None:
    """Different stacks of one group are summed; other functions at the same place are not."""
    bench = Bench()
    bench.tables.put(9, 150)
    bench.happen(MisuseKind.MISMATCH, MISMATCH, 1, 2, 0, count=3)
    bench.happen(MisuseKind.MISMATCH, MISMATCH, 9, 2, 0, count=4)
    bench.happen(MisuseKind.MISMATCH, (Family.MALLOC, Family.NEW, 0), 9, 2, 0, count=1)
    assert [found.count for found in bench.collector.collect().found] == [7, 1]


def test_stacks_outlive_their_sites() -> None:
    """What was heard of keeps its stacks, though the sites become others'; so does a stack that was finished here."""
    bench = Bench()
    bench.happen(MisuseKind.MISMATCH, MISMATCH, 1, 2, 0)
    bench.collector.keep_stack(3)
    bench.tables.put(1, 900)
    bench.tables.sites["first_ns"][[1, 2, 3]] += 50
    bench.happen(MisuseKind.DOUBLE, (Family.MALLOC, Family.MALLOC, Family.MALLOC), 3, 5, 6)
    first, second = bench.collector.collect().found
    assert functions(first.allocated) == ["f100"]
    assert functions(second.allocated) == ["f300"]


def test_a_site_that_became_anothers_is_no_stack() -> None:
    """A wrong stack is worse than none."""
    bench = Bench()
    bench.tables.sites["first_ns"][1] += 1
    bench.happen(MisuseKind.MISMATCH, MISMATCH, 1, 2, 0)
    (found,) = bench.collector.collect().found
    assert (found.allocated, functions(found.freed)) == ((), ["f200"])


def test_what_was_not_heard_of() -> None:
    """A misuse whose event found no room is found in the table; each count is that of now."""
    bench = Bench()
    what = bench.happen(MisuseKind.MISMATCH, MISMATCH, 1, 2, 0, count=2, heard=False)
    assert bench.collector.collect().count == 2
    bench.tables.counts[what] = 5
    assert bench.collector.collect().count == 5


@pytest.mark.parametrize("nameless", [100, 200])
def test_code_without_symbols_is_not_accused(nameless: int) -> None:
    """It may be an operator new or delete: the mismatch is counted as undecided."""
    bench = Bench({nameless: None})
    bench.happen(MisuseKind.MISMATCH, MISMATCH, 1, 2, 0, count=4)
    found = bench.collector.collect()
    assert (found.found, found.undecided, found.count) == ((), 4, 0)


def test_a_double_free_needs_no_symbols() -> None:
    """That a block was freed twice is sure, whoever did."""
    bench = Bench({100: None, 200: None})
    bench.happen(MisuseKind.DOUBLE, (Family.MALLOC, Family.MALLOC, Family.MALLOC), 1, 2, 3)
    assert bench.collector.collect().count == 1


def test_the_c_librarys_own_work() -> None:
    """What an ending thread's cache gives back was freed before, rightly; the kernel side is told to count no more."""
    bench = Bench()
    bench.tables.put(2, 5000)
    bench.happen(MisuseKind.DOUBLE, (Family.MALLOC, Family.MALLOC, Family.MALLOC), 1, 2, 3)
    assert bench.collector.collect() == Misuses()
    assert np.flatnonzero(bench.tables.sites["own_work"]).tolist() == [2]


def test_the_c_librarys_own_work_in_a_static_program() -> None:
    """There it is known by its function's name."""
    bench = Bench({200: "start_thread"})
    bench.happen(MisuseKind.DOUBLE, (Family.MALLOC, Family.MALLOC, Family.MALLOC), 1, 2, 3)
    assert bench.collector.collect() == Misuses()


def misuse(kind: Kind, **more: object) -> Misuse:
    at = {name: (Frame(0x10, function=name),) for name in ("allocated", "freed", "freed_before")}
    values = {"count": 1, "pid": 5, "allocated_by": "new[]", "freed_by": "delete", "freed_before_by": "free"} | at | more
    return Misuse(kind, **values)  # type: ignore[arg-type]  # the fields by name


def test_sentences() -> None:
    """One line says what was freed by what, where, and how often."""
    assert writer.sentence(misuse(Kind.MISMATCH, count=12)) == "new[] in allocated freed by delete in freed: 12 times (pid 5)"
    assert writer.sentence(misuse(Kind.DOUBLE)) == (
        "new[] in allocated, freed by free in freed_before, freed again by delete in freed: 1 time (pid 5)")
    assert writer.sentence(misuse(Kind.UNKNOWN, allocated=None)).startswith("delete in freed of an address that no")


def test_text() -> None:
    """Every stack that there is stands below its title; none and undecided ones are said too."""
    out = io.StringIO()
    writer.write(Misuses((misuse(Kind.MISMATCH, freed_before=None, allocated=()),), 3), out, lambda frame: f"<{frame.function}>")
    assert out.getvalue().splitlines()[2:] == [
        "\t    allocated:", "\t\t(no room was left to record the stack)", "\t    freed:", "\t\t<freed>",
        "3 more may be mismatched; the code that allocated or freed has no symbols, so that it may be an operator new or "
        "delete."]
    out = io.StringIO()
    writer.write(Misuses(), out, str)
    assert out.getvalue() == "Misused frees: none.\n"


def test_json() -> None:
    """All keys are there; a stack that does not apply is null."""
    (made,) = writer.document(Misuses((misuse(Kind.MISMATCH, freed_before=None),)), lambda frame: {"function": frame.function})
    assert json.loads(json.dumps(made)) == {
        "kind": "mismatched", "count": 1, "pid": 5, "allocated_by": "new[]", "freed_by": "delete",
        "freed_before_by": "free", "allocated": [{"function": "allocated"}], "freed": [{"function": "freed"}],
        "freed_before": None}
