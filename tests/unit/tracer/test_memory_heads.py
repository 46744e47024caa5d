"""Of which processes the memory is added up, and what each is told of its own blocks."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from tracer import memory_heads
from tracer.attach.allocators import Allocator
from tracer.attach.tracee import Tracee
from tracer.holdings import Shares, Sites
from tracer.judge.reconcile import Held
from tracer.memory_heads import MOST, MemoryHeads
from tracer.settings import Settings


@dataclass
class FakeTracee:
    """What is seen of a process; the process itself is its number."""

    uid: int
    kinds: tuple[Allocator, ...] = ()
    execs: int = 0
    inherited: None = None
    shares_memory: bool = False
    attached: list[Any] = field(init=False)

    def __post_init__(self) -> None:
        self.process = self.uid
        self.attached = [SimpleNamespace(plan=SimpleNamespace(allocator=SimpleNamespace(kind=kind))) for kind in self.kinds]


class FakeWatch:
    """Notes for whom it was made and what it is told; the head of process 9 cannot be had."""

    made: list[tuple[int, bool]]

    def __init__(self, process: int, *, since_start: bool) -> None:
        self.process = process
        self.made.append((process, since_start))

    def observe(self, held: Held, allocators: set[Allocator]) -> Any:
        return None if self.process == 9 else (self.process, held, allocators)


@pytest.fixture(autouse=True)
def made(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    """The watches that were made: of whom, and whether since the beginning."""
    FakeWatch.made = []
    monkeypatch.setattr(memory_heads, "MemoryWatch", FakeWatch)
    return FakeWatch.made


def sites(*shares: tuple[int, int, int]) -> Sites:
    """Return who holds what: process, bytes, blocks."""
    uid, size, count = np.array(shares, np.int64).reshape(-1, 3).T
    return cast(Sites, SimpleNamespace(shares=Shares(uid, np.zeros(len(uid), np.int64), size, count)))


def heads(watches: MemoryHeads, tracees: list[FakeTracee], of: Sites) -> list[tuple[int, Held, set[Allocator]]]:
    return [*cast(Any, watches.heads(cast("list[Tracee]", tracees), of))]


def test_what_a_process_holds() -> None:
    """All its sites together and nobody else's, with the bytes that malloc needs for them, and its allocators."""
    tracee = FakeTracee(3, (Allocator.GLIBC, Allocator.JEMALLOC, Allocator.GLIBC))
    found = heads(MemoryHeads(Settings()), [tracee], sites((3, 1000, 10), (4, 9, 9), (3, 24, 1)))
    # Chunks of 112 bytes and one of 32 (malloc's header is 8 bytes, and sizes are multiples of 16).
    assert found == [(3, Held(1024, 11, 10 * 112 + 32), {Allocator.GLIBC, Allocator.JEMALLOC})]


def test_one_that_holds_nothing() -> None:
    """A process without a block has a head as well."""
    assert heads(MemoryHeads(Settings()), [FakeTracee(3)], sites()) == [(3, Held(0, 0, 0), set())]


def test_those_that_hold_most() -> None:
    """As many as there is room for, by bytes, equal ones by their numbers; what cannot be read is left out."""
    tracees = [FakeTracee(uid) for uid in (7, 1, 9, 3, 2, 8)]
    of = sites((1, 10, 1), (9, 400, 1), (3, 50, 1), (8, 500, 1), (2, 10, 1), (7, 1, 1))
    found = heads(MemoryHeads(Settings()), tracees, of)
    assert [uid for uid, *_ in found] == [8, 3, 1] and MOST == 4


def test_a_watch_is_kept(made: list[tuple[int, bool]]) -> None:
    """What grows is seen from report to report, so that each process has one watch; it knows whether all is traced."""
    watches = MemoryHeads(Settings(command=("sh",)))
    tracees = [FakeTracee(0), FakeTracee(1), FakeTracee(2, execs=1)]
    for _ in range(3):
        heads(watches, tracees, sites((1, 5, 1)))
    assert sorted(made) == [(0, True), (1, False), (2, True)]
