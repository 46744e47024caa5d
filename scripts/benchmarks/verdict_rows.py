"""Whether what was said of a program is right, the sums of that, and both as a Markdown table and as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

from benchmarks.verdict_programs import Program
from benchmarks.verdict_readings import Reading, Site

LEAKTRACE, MEMLEAK = "leaktrace", "memleak"


@dataclass(frozen=True, slots=True)
class Row:
    """A program and what each tool said of it."""

    program: Program
    readings: Mapping[str, Reading]

    @property
    def leaks(self) -> bool:
        """Whether the program leaks in truth."""
        return bool(self.program.truth.function)

    def ranks_first(self, tool: str) -> bool:
        """Return whether a tool's first site is the leaking one."""
        return self.readings[tool].rank(self.program.truth.function) == 1

    def is_largest(self, tool: str) -> bool:
        """Return whether no site of a tool's holds more than the leaking one."""
        return self.readings[tool].by_size().rank(self.program.truth.function) == 1

    def is_quiet(self, tool: str) -> bool:
        """Return whether a tool judged, and held nothing to leak."""
        return self.readings[tool].judged and not self.readings[tool].alarms

    def finds(self, tool: str) -> bool:
        """Return whether a tool holds the leaking site to leak."""
        return any(self.program.truth.function in site.functions for site in self.readings[tool].alarms)

    def accused(self, tool: str) -> tuple[Site, ...]:
        """Return the innocent sites that a tool holds to leak."""
        return tuple(site for site in self.readings[tool].alarms if self.program.truth.function not in site.functions)


def as_text(rows: Sequence[Row], tools: Sequence[str]) -> str:
    """Return the table, a row for each program, and the sums."""
    lines = [("program", "truth", *tools), ("---",) * (len(tools) + 2)]
    for row in rows:
        true = f"leaks at `{row.program.truth.function}`" if row.leaks else "no leak"
        lines.append((f"`{row.program.name}`", true, *(_cell(row, tool) for tool in tools)))
    table = "\n".join(f"| {' | '.join(one.replace('|', '/') for one in line)} |" for line in lines)
    return "\n".join((table, "", *(f"{name}: {value}" for name, value in sums(rows, tools).items())))


def sums(rows: Sequence[Row], tools: Sequence[str]) -> dict[str, str]:
    """Return what the figures of the score are called, with each as "k of n"; programs that failed count as wrong."""
    leaking, others = [row for row in rows if row.leaks], [row for row in rows if not row.leaks]
    made = {f"leaking site ranked first by {tool}": _of(row.ranks_first(tool) for row in leaking) for tool in tools}
    if LEAKTRACE in tools:
        made["programs without a leak and without a lost or growing verdict"] = _of(
            row.is_quiet(LEAKTRACE) for row in others
        )
        made["leaking site with a lost or growing verdict"] = _of(row.finds(LEAKTRACE) for row in leaking)
        made["leaking programs with an innocent site that has one"] = _of(
            bool(row.accused(LEAKTRACE)) for row in leaking
        )
        made["leaking site holds more bytes than any other"] = _of(row.is_largest(LEAKTRACE) for row in leaking)
    return made


def _of(answers: Iterable[bool]) -> str:
    known = list(answers)
    return f"{sum(known)} of {len(known)}"


def _cell(row: Row, tool: str) -> str:
    reading = row.readings[tool]
    if reading.error:
        return f"error: {reading.error}"
    if row.leaks:
        return _rank(row, tool) + "".join(f"; also {_said(site)}" for site in row.accused(tool))
    if reading.alarms:
        return "; ".join(_said(site) for site in reading.alarms)
    if reading.judged:
        return "nothing lost or growing"
    first = f", first `{_function(reading.sites[0])}`" if reading.sites else ""
    return f"no verdict; {len(reading.sites)} sites{first}"


def _rank(row: Row, tool: str) -> str:
    reading = row.readings[tool]
    rank = reading.rank(row.program.truth.function)
    if rank is None:
        return f"not among {len(reading.sites)} sites"
    return f"#{rank} of {len(reading.sites)}{_verdict(reading.sites[rank - 1])}"


def _verdict(site: Site) -> str:
    confidence = f" ({site.confidence})" if site.confidence else ""
    evidence = f": {site.evidence}" if site.evidence else ""
    return f", {site.verdict}{confidence}{evidence}" if site.verdict else ""


def _said(site: Site) -> str:
    return f"`{_function(site)}`{_verdict(site)}"


def _function(site: Site) -> str:
    return site.functions[0] if site.functions else "?"


def as_json(rows: Sequence[Row], tools: Sequence[str]) -> dict[str, object]:
    """Return everything that was read, ready for json.dump."""
    programs = [
        {
            "program": row.program.name,
            "truth": asdict(row.program.truth),
            "tools": {tool: asdict(reading) for tool, reading in row.readings.items()},
        }
        for row in rows
    ]
    return {"programs": programs, "sums": sums(rows, tools)}
