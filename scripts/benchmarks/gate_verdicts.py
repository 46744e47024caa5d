"""Whether what a tool reported and what it did to the exit code is right."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from benchmarks.gate_programs import Program, Truth
from benchmarks.gate_readings import Reading
from benchmarks.gate_tools import Run


class Verdict(StrEnum):
    """What a run under a tool came to."""

    RIGHT = "right"
    MISSED = "missed"
    FALSE_ALARM = "false alarm"
    INEXACT = "inexact"
    """Something is reported, with other bytes, blocks or functions than it has."""
    EXIT_CODE = "exit code"
    """The report is right, but the exit code does not tell, or tells what is not so."""
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Row:
    """All that was measured of one program: runs of the plain program, and by tool; why a tool has none."""

    program: Program
    truth: Truth
    plain: tuple[Run, ...]
    runs: Mapping[str, tuple[Run, ...]]
    failures: Mapping[str, str]

    def verdict(self, run: Run) -> Verdict:
        """Return what one run of this program came to."""
        return judge(self.truth, run, self.plain[0].code)

    def is_right(self, tool: str) -> bool:
        """Return whether the tool was right in every round, of which there was one at least."""
        runs = self.runs.get(tool, ())
        return tool not in self.failures and bool(runs) and all(self.verdict(run) is Verdict.RIGHT for run in runs)


def judge(truth: Truth, run: Run, own_code: int) -> Verdict:
    """Compare a run with the truth; own_code is the plain program's exit code."""
    reading = run.reading
    if reading.error:
        return Verdict.ERROR
    if not truth.blocks:
        if reading.blocks:
            return Verdict.FALSE_ALARM
        return Verdict.RIGHT if run.code == own_code else Verdict.EXIT_CODE
    if not reading.blocks:
        return Verdict.MISSED
    if reading != Reading(truth.bytes, truth.blocks, frozenset((truth.function,))):
        return Verdict.INEXACT
    return Verdict.RIGHT if run.code else Verdict.EXIT_CODE


def amount(size: int, blocks: int, functions: Sequence[str]) -> str:
    """Return "500 bytes in 5 blocks at `f`", or "nothing"."""
    if not blocks:
        return "nothing"
    names = ", ".join("no name" if name == "?" else f"`{name}`" for name in functions)
    return f"{size:,} bytes in {blocks:,} block{'s' if blocks > 1 else ''} at {names}"


def told(verdict: Verdict, run: Run) -> str:
    """Return a run's verdict in words, with what was reported where that was not right."""
    reading = run.reading
    if verdict is Verdict.RIGHT or verdict is Verdict.MISSED:
        return verdict.value
    if verdict is Verdict.ERROR:
        return f"error: {reading.error}"
    if verdict is Verdict.EXIT_CODE:
        return f"exit code {run.code}"
    return f"{verdict.value}: {amount(reading.bytes, reading.blocks, sorted(reading.functions))}"


def summary(row: Row, tool: str) -> str:
    """Return what a tool said of a program in all rounds: once where it was the same, else with how often."""
    if tool in row.failures:
        return f"error: {row.failures[tool]}"
    counts = Counter(told(row.verdict(run), run) for run in row.runs[tool])
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{text} ({count} of {counts.total()})" for text, count in counts.items())


def median_s(runs: Sequence[Run]) -> float | None:
    """Return the median of the runs' seconds; None of none."""
    return statistics.median(run.seconds for run in runs) if runs else None
