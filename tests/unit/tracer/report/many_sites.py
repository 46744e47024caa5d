"""A report and its curves as large as they may get: 10,000 sites with long C++ names, 720 moments."""

from __future__ import annotations

import random
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from symbolizer.frame import Frame
from tracer.report.model import Finding, Reachability, Report, Target, Totals
from tracer.report.site_table import VERDICTS, SiteTable

SITES, MOMENTS = 10_000, 720
PROGRAM, LIBRARY = "/opt/shop/bin/server", "/usr/lib/x86_64-linux-gnu/libstdc++.so.6.0.30"
_PARTS = ("Order", "Cache", "Session", "Buffer", "Index", "Router", "Header", "Pool", "Query", "Tree", "Message", "Codec")


@dataclass(frozen=True, slots=True, eq=False)
class Curves:
    """What tracer.recording.Series has."""

    times: np.ndarray
    bytes: np.ndarray
    count: np.ndarray


def series(sites: int = SITES, moments: int = MOMENTS, *, restless: bool = False) -> Curves:
    """Return curves of which most are level and a tenth grow; restless: all change at random at every moment."""
    chance = np.random.default_rng(1)
    level = chance.integers(1, 1 << 24, (sites, 1))
    if restless:
        held = chance.integers(0, 1 << 26, (sites, moments))
    else:
        grows = chance.random((sites, 1)) < 0.1
        steps = np.where(grows, chance.poisson(3, (sites, moments)) * chance.integers(8, 5000, (sites, 1)), 0)
        held = level + steps.cumsum(1)
    return Curves(np.arange(1, moments + 1) * 5.0, held, held // 64 + 1)


def report(curves: Curves) -> Report:
    """Return the last report of curves, its sites in the order of their bytes."""
    sites = len(curves.bytes)
    chance = random.Random(2)
    held, count = curves.bytes[:, -1], curves.count[:, -1]
    functions = [_function(chance) for _ in range(6000)]
    stacks = _stacks(chance, functions, sites)

    def finding(row: int, rank: int) -> Finding:
        verdict = VERDICTS[1 + row % 4]
        return Finding(
            rank=rank, pid=4711, bytes=int(held[row]), count=int(count[row]), allocated_bytes=int(held[row]) * 2,
            allocated_count=int(count[row]) * 2, freed_count=int(count[row]), oldest_s=row % 3600 + 0.125,
            growth_bytes_per_s=row % 7 * 100.5, gained_bytes=row, gained_count=row % 50, error=None, frames=stacks[row],
            verdict=verdict, confidence="high",
            evidence=f"reachable, but grows in {row % 720} of 720 intervals; {row * 7} of {row * 11} were ever freed",
            expected_loss=row % 90 * 1.5, slope=(row % 91 * 3.25, row % 91 * 3.0, row % 91 * 3.5),
            reachability=Reachability((row, 1), (0, 0), (0, 0), (int(held[row]), 3)))

    zeros = np.zeros(sites)
    table = SiteTable(np.arange(sites, dtype=np.uint64), held, count, held * 2, count * 2, count, zeros, zeros,
                      np.ones(sites, np.uint8), zeros, zeros, np.argsort(-held, kind="stable"), finding)
    return Report(
        taken=datetime(2026, 3, 1, 9, 5, 7, tzinfo=UTC), elapsed_s=float(curves.times[-1]), kernel="6.18.44",
        targets=(Target(4711, "server", PROGRAM),), findings=table.findings(), losses=(), complete=True, sites=table,
        totals=Totals(int(held.sum()), int(count.sum()), int(held.sum()) * 2, int(count.sum()) * 2, int(count.sum())))


def _function(chance: random.Random) -> str:
    parts = [chance.choice(_PARTS) for _ in range(4)]
    return f"shop::{parts[0]}::{parts[1]}<{parts[2]}, {chance.randrange(1000)}>::make_{parts[3].lower()}(int, char const*)"


def _stacks(chance: random.Random, functions: list[str], sites: int) -> list[tuple[Frame, ...]]:
    """Return a stack for each site: some outermost calls that many share, then ones of its own."""
    calls = [_call(chance, function) for function in functions for _ in range(6)]
    roots = [tuple(chance.choice(calls) for _ in range(8)) for _ in range(40)]
    middles = [tuple(chance.choice(calls) for _ in range(6)) for _ in range(600)]
    return [tuple(chance.choice(calls) for _ in range(chance.randrange(2, 12))) + chance.choice(middles) + chance.choice(roots)
            for _ in range(sites)]


def _call(chance: random.Random, function: str) -> Frame:
    own = chance.random() < 0.6
    return Frame(0x5555_0000_0000 + chance.randrange(1 << 26), function, chance.randrange(4000), PROGRAM if own else LIBRARY,
                 "ab12" if own else "cd34", f"src/{function[6:10].lower()}/file_{chance.randrange(300)}.cpp", chance.randrange(1, 3000))
