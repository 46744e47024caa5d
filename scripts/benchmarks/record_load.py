"""Made-up traces of many sites, as tables of every site at every moment, to record."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np

from symbolizer.frame import Frame
from tracer.report.model import AddressMap, Finding, MappedFile, Report, Target, Totals
from tracer.report.site_table import VERDICTS, SiteTable

#: Seconds by which the moment of a report and that at which ages are taken differ, at most.
JITTER_S = 0.02
_FUNCTIONS, _MODULES = 4000, 24
_START = datetime(2026, 3, 1, 9, 0, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Profile:
    """How a program behaves: shares of sites that always, often and seldom allocate (the others never do again), and of
    those whose blocks have various sizes, and that free nothing. is_real: programs may be so."""

    name: str
    always: float
    often: float
    seldom: float
    various: float
    keeping: float
    is_real: bool = True


PROFILES = (
    Profile("a server at night", 0.01, 0.05, 0.3, 0.3, 0.03),
    Profile("a busy server", 0.1, 0.25, 0.4, 0.3, 0.03),
    Profile("every site in every interval", 1.0, 0.0, 0.0, 0.2, 0.1, is_real=False),
)


class Load:
    """The sites of one made-up trace, moved on from one report to the next."""

    def __init__(self, profile: Profile, sites: int, interval_s: float, seed: int = 7) -> None:
        """sites: how many; interval_s: between reports."""
        self.random = random = np.random.default_rng(seed)
        self.sites, self.interval_s, self.now_s = sites, interval_s, 0.0
        kind = random.permutation(sites) / sites
        edges = np.cumsum([profile.always, profile.often, profile.seldom])
        self.chance = np.select([kind < edges[0], kind < edges[1], kind < edges[2]], [1.0, 0.4, 0.03], 0.0)
        self.rate = random.lognormal(3.5, 1.5, sites)
        self.freeing = random.choice([0.98, 0.5, 0.05], sites, p=[0.6, 0.3, 0.1])
        self.freeing[random.random(sites) < profile.keeping] = 0.0
        self.size = random.choice([16, 24, 32, 48, 64, 100, 256, 1024, 4096, 5000], sites).astype(float)
        self.spread = np.where(random.random(sites) < profile.various, self.size * 0.4, 0.0)
        self.key = random.integers(1, 1 << 63, sites, dtype=np.uint64)
        self.count, self.allocated, self.freed = (np.zeros(sites, np.int64) for _ in range(3))
        self.bytes, self.allocated_bytes = np.zeros(sites, np.int64), np.zeros(sites, np.int64)
        self.born = np.full(sites, np.nan)
        self.growth = np.full(sites, np.nan)
        self._names = [f"leak::part{number % 97}::Widget<std::vector<int, std::allocator<int> > >::step_{number}(int)"
                       if number % 3 else f"do_something_{number}" for number in range(_FUNCTIONS)]
        self._known = [self._frame(number) for number in range(_FUNCTIONS)]
        self._paths = [random.integers(0, _FUNCTIONS, int(depth)) for depth in random.integers(6, 24, sites)]

    def reports(self, number: int) -> Iterator[Report]:
        """Yield so many reports, the last as such."""
        for each in range(number):
            self._step(1.0 if each else 30.0)
            yield self._report(each == number - 1)

    def _step(self, factor: float) -> None:
        """Let an interval pass; factor: how often more than usual everything allocates."""
        random = self.random
        before = self.bytes
        self.now_s += self.interval_s
        chance = np.maximum(self.chance, factor > 1)
        came = random.poisson(self.rate * factor * (random.random(self.sites) < chance))
        gone = random.binomial(self.count + came, np.where(came > 0, self.freeing, 0.0))
        came_bytes = self._total(came)
        mean = (self.bytes + came_bytes) / np.maximum(self.count + came, 1)
        gone_bytes = np.rint(gone * mean + random.normal(0, 1, self.sites) * self.spread * np.sqrt(np.minimum(
            gone, self.count + came - gone))).astype(np.int64)
        self.count = self.count + came - gone
        self.bytes = np.where(self.count > 0, np.maximum(self.bytes + came_bytes - gone_bytes, self.count), 0)
        self.allocated, self.freed = self.allocated + came, self.freed + gone
        self.allocated_bytes = self.allocated_bytes + came_bytes
        self._age(gone)
        self.growth = (self.bytes - before) / self.interval_s

    def _total(self, counts: np.ndarray) -> np.ndarray:
        noise: np.ndarray = self.random.normal(0, 1, self.sites) * self.spread * np.sqrt(counts)
        return np.asarray(np.maximum(np.rint(counts * self.size + noise), counts), np.int64)

    def _age(self, gone: np.ndarray) -> None:
        """Let the oldest blocks be among those that were freed."""
        random = self.random
        oldest_gone = (gone > 0) & (random.random(self.sites) < self.freeing) | np.isnan(self.born)
        age = np.minimum(random.exponential(self.interval_s / np.maximum(self.freeing, 0.05)), self.now_s)
        self.born = np.where(oldest_gone, np.fmax(self.born, self.now_s - age), self.born)
        self.born[self.count == 0] = np.nan

    def _report(self, last: bool) -> Report:
        keeping = (self.freeing == 0) & (self.chance > 0)
        verdict = np.where(keeping, VERDICTS.index("growing"), VERDICTS.index("steady")).astype(np.uint8)
        slope = np.where(keeping, self.allocated_bytes / self.now_s, 0.0)
        expected = np.where(keeping, slope, 0.0)
        order = np.lexsort((-self.count, -self.bytes, -expected))
        order = order[self.count[order] > 0]
        taken = self.now_s + self.random.random() * JITTER_S
        table = SiteTable(
            self.key, self.bytes, self.count, self.allocated_bytes, self.allocated, self.freed,
            taken - self.born, self.growth, verdict, expected, slope, order, self._finder(verdict, expected, taken))
        totals = Totals(*(int(each.sum()) for each in (
            self.bytes, self.count, self.allocated_bytes, self.allocated, self.freed)))
        files = tuple(MappedFile(0x7F0000000000 + (number << 24), 0x7F0000000000 + (number << 24) + (1 << 23), 0x1000,
                                 _module(number), f"{number:040x}") for number in range(_MODULES))
        return Report(_START + timedelta(seconds=self.now_s), self.now_s, "6.18.0",
                      (Target(4711, "server", "/usr/bin/server", totals=totals),), totals, table.findings(10), (), True,
                      last=last, mappings=(AddressMap(4711, files),), sites=table)

    def _finder(self, verdict: np.ndarray, expected: np.ndarray, taken: float) -> Callable[[int, int], Finding]:
        def finding(row: int, rank: int) -> Finding:
            allocated, freed = int(self.allocated[row]), int(self.freed[row])
            growth = float(self.growth[row])
            return Finding(
                rank, 4711, int(self.bytes[row]), int(self.count[row]), int(self.allocated_bytes[row]), allocated,
                freed, round(float(taken - self.born[row]), 3), round(growth, 3), round(growth * self.interval_s),
                0, None, self._frames(row), verdict=VERDICTS[int(verdict[row])], confidence="medium",
                evidence=f"{freed} of {allocated} were ever freed, over {self.now_s:.0f} s",
                expected_loss=round(float(expected[row]), 3),
                slope=(round(growth, 3), round(growth - 10, 3), round(growth + 10, 3)))

        return finding

    def _frames(self, row: int) -> tuple[Frame, ...]:
        return tuple([self._known[int(number)] for number in self._paths[row]])

    def _frame(self, number: int) -> Frame:
        module, offset = number % _MODULES, number * 416
        return Frame(0x7F0000000000 + (module << 24) + offset, self._names[number], number % 400, _module(module),
                     f"{module:040x}", f"src/part{number % 97}/widget.cpp", 10 + number % 900, module_offset=offset)


def _module(number: int) -> str:
    return f"/usr/lib/x86_64-linux-gnu/libpart{number}.so.1"
