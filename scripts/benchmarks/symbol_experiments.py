"""The experiments: which addresses of which files, measured in rounds."""

from __future__ import annotations

import statistics
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failure
from benchmarks.symbol_process import warm_up
from benchmarks.symbol_requests import Request
from benchmarks.symbol_tools import HERE, TOOLS, Job, holding, measure

LIBRARIES = 50
LIBRARY_ADDRESSES = 10_000
Values = dict[str, dict[str, float]]
"""Tool → column → median."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One table: what is asked, and what is measured of it, by the names in symbol_tools.PHASES."""

    name: str
    title: str
    phases: tuple[str, ...]
    job: Job


@dataclass(frozen=True, slots=True)
class Result:
    """One experiment's medians, and what else is to say of a tool."""

    name: str
    title: str
    columns: tuple[str, ...]
    values: Values
    notes: Mapping[str, str]


def first_name() -> Experiment:
    """Return the experiment with a large library that has symbols only."""
    path = libllvm()
    title = f"The first name in {path.name} ({_size(path)}, symbols only), in a fresh process"
    return Experiment("libllvm", title, ("first name",), Job(requests(path, 1)))


def debug_information(path: Path, count: int) -> Experiment:
    """Return the experiment with one large program that has DWARF."""
    job = Job(requests(path, count))
    title = f"{len(job.requests):,} addresses in {_size(path)} of a program with DWARF"
    return Experiment("program", title, ("cold", "second process", "again"), job)


def many_libraries() -> Experiment:
    """Return the experiment with many files; the addresses come by turns: one of each file, then the next of each."""
    paths = _asked("--libraries", str(LIBRARIES))
    if not paths:
        raise Failure("no shared library with symbols lies below /usr/lib")
    # Some have less code than their share.
    most = 2 * LIBRARY_ADDRESSES // len(paths)
    found = [requests(Path(path), most) for path in paths]
    turns = [one[turn] for turn in range(1, most) for one in found if turn < len(one)]
    job = Job(tuple(turns[:LIBRARY_ADDRESSES]), tuple(one[0] for one in found))
    title = f"{len(job.requests):,} addresses in the {len(paths)} largest shared libraries below /usr/lib"
    return Experiment("libraries", title, ("cold", "second process", "files open"), job)


def libllvm() -> Path:
    """Return the libLLVM of this machine, the oldest version where there are several."""
    found = sorted({path.resolve() for path in Path("/usr/lib").glob("*/libLLVM*.so*")})
    if not found:
        raise Failure("libLLVM is missing: apt install libllvm14, or another version")
    return found[0]


def requests(path: Path, count: int) -> tuple[Request, ...]:
    """Return `count` addresses of a file; Failure if it has no functions."""
    found = tuple(Request.read(line) for line in _asked(str(count), str(path)))
    if not found:
        raise Failure(f"{path} has no function with a size")
    return found


def _asked(*arguments: str) -> list[str]:
    command = [sys.executable, str(HERE / "symbol_requests.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"no addresses: {(done.stderr.strip().splitlines() or [''])[-1]}")
    return done.stdout.splitlines()


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.0f} MB"


def measured(experiment: Experiment, rounds: int, say: Callable[[str], None]) -> Result:
    """Measure all tools, alternating them, so that what changes on the machine meets all alike."""
    paths = sorted({one.path for one in experiment.job.requests})
    warm_up(paths)
    notes = {tool.name: tool.note for tool in TOOLS}
    notes |= {tool.name: "one file a process" for tool in TOOLS if tool.one_file and len(paths) > 1}
    notes |= {tool.name: f"missing: {tool.remedy}" for tool in TOOLS if not tool.present()}
    able = [tool for tool in TOOLS if notes[tool.name] == tool.note]
    found: dict[str, list[dict[str, float]]] = {tool.name: [] for tool in TOOLS}
    with holding(experiment.job) as job:
        for number in range(rounds):
            for tool in able:
                try:
                    found[tool.name].append(measure(tool, job, experiment.phases))
                    told = ", ".join(f"{name} {value:.3f}" for name, value in found[tool.name][-1].items())
                except Failure as failure:
                    notes[tool.name] = told = str(failure)
                say(f"{experiment.name}, round {number + 1}, {tool.name}: {told}")
    values = {tool: medians(many) for tool, many in found.items()}
    columns = tuple(dict.fromkeys(name for one in values.values() for name in one))
    return Result(experiment.name, experiment.title, columns, values, notes)


def medians(rounds: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Return column → median over the rounds that have it."""
    names = dict.fromkeys(name for one in rounds for name in one)
    return {name: statistics.median(one[name] for one in rounds if name in one) for name in names}
