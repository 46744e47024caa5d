"""Measure what following process trees costs: a build, and what runs beside it."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.child import Child, Failure
from benchmarks.entry import run_script
from benchmarks.measure import steady_rate
from benchmarks.tools import LEAKTRACE_ATTACHED
from benchmarks.tree_project import Project
from benchmarks.workloads import PrintingProgram, first_sample

SCRIPTS = Path(__file__).resolve().parent.parent
PROGRAMS = SCRIPTS.parent / "tests" / "programs"
ROUNDS = 3
#: Makes and ends processes that allocate, all the time.
BUSY_TREE = ["sh", "-c", "while :; do basename a; done"]
Figures = dict[str, float]


def main(arguments: Sequence[str]) -> int:
    """Run the measurement; returns its exit code: 0 done, 2 wrong usage, 3 cannot measure here."""
    parser = argparse.ArgumentParser(prog="scripts/bench_trees", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument("--leaktrace", type=Path, default=SCRIPTS / "leaktrace", metavar="PATH",
                        help="the one to measure")
    options = parser.parse_args(arguments)
    return run_script(lambda: measure(options), root_for="scripts/bench_trees")


def measure(options: argparse.Namespace) -> int:
    """Measure in rounds, alternating, and print medians."""
    leaktrace = str(options.leaktrace.absolute())
    rounds = 1 if options.quick else ROUNDS
    facts = machine.describe(options.leaktrace.absolute(), "not used")
    with tempfile.TemporaryDirectory(prefix="leaktrace-trees-") as scratch:
        project = Project(Path(scratch) / "project")
        project.folder.mkdir()
        project.write()
        loop, signals = (_compile(Path(scratch), name) for name in ("malloc_loop", "signals"))
        measured: list[Figures] = []
        for number in range(rounds):
            figures = _build(project, leaktrace) | _beside(loop, leaktrace) | _signals(signals, leaktrace)
            measured.append(figures)
            print(f"round {number + 1}: {figures}", file=sys.stderr, flush=True)
        figures = {name: statistics.median(one[name] for one in measured) for name in measured[0]}
        figures["build: sum of single traces, s"] = _sum_of_single_traces(project, leaktrace, rounds)
    print(as_text(facts, figures))
    if options.json:
        options.json.write_text(json.dumps({"machine": facts, "figures": figures, "rounds": measured}, indent=1) + "\n")
    return 0


def as_text(facts: dict[str, object], figures: Figures) -> str:
    """Return the figures for a person to read."""
    width = max(map(len, figures))
    lines = [f"  {name:<{width}}  {value:>12,.3f}" for name, value in figures.items()]
    return "\n".join(["machine", machine.text(facts), "", "process trees", *lines])


def _compile(scratch: Path, name: str) -> str:
    program = str(scratch / name)
    subprocess.run(["gcc", "-O2", "-o", program, str(PROGRAMS / f"bench_{name}.c")], check=True)
    return program


def _timed(words: Sequence[str], folder: Path) -> float:
    began = time.monotonic()
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Failure(f"{' '.join(words)}: exit code {done.returncode}: {done.stderr[-300:]}")
    return time.monotonic() - began


def _build(project: Project, leaktrace: str) -> Figures:
    """Measure `make -j2 check`, plain and followed, and what the report of the latter has."""
    words = ["make", "-s", "-j2", "check"]
    project.clean()
    plain = _timed(words, project.folder)
    project.clean()
    report = project.folder / "report.json"
    followed = _timed([leaktrace, "run", "--follow-forks", "--format", "json", "--output", str(report), "--", *words],
                      project.folder)
    document = json.loads(report.read_text())
    kinds = Counter(target["comm"] for target in document["targets"])
    lost = [site for site in document["sites"] if _is_of(site, "program")]
    return {
        "build: processes": len(document["targets"]),
        "build: allocations": document["totals"]["allocated_count"],
        "build: plain, s": plain,
        "build: followed, s": followed,
        "build: runs of the program seen": kinds["program"],
        "build: bytes missed at the known leak": project.lost_bytes - sum(site["bytes"] for site in lost),
        "build: blocks missed at the known leak": project.lost_blocks - sum(site["count"] for site in lost),
        "build: processes not traced": sum(document["untraced"].values()),
    }


def _is_of(site: dict[str, Any], program: str) -> bool:
    """Return whether a site's innermost frame is the main() of a program."""
    frame = site["frames"][0] if site["frames"] else {}
    return frame.get("function") == "main" and str(frame.get("module")).endswith(f"/{program}")


def _sum_of_single_traces(project: Project, leaktrace: str, rounds: int) -> float:
    """Return what it takes to trace each of the build's processes by a leaktrace of its own, one after the other."""
    total = 0.0
    for name, (count, words) in project.single_commands().items():
        times = [_timed([leaktrace, "run", "--ignore-children", "--", *words], project.folder) for _ in range(rounds)]
        print(f"one {name}: {statistics.median(times):.2f} s", file=sys.stderr, flush=True)
        total += count * statistics.median(times)
    return total


def _beside(loop: str, leaktrace: str) -> Figures:
    """Measure the malloc loop: alone, beside a tree that is followed, as a child that is followed, and that is not."""
    alone = _rate([loop])
    with ExitStack() as stack:
        # The tree takes a processor, traced or not: so the comparison is with the same tree untraced.
        tree = stack.enter_context(Child(BUSY_TREE))
        beside_untraced = _rate([loop])
        tracer = stack.enter_context(
            Child([leaktrace, "-p", str(tree.pid), "--follow-forks", "-d", "120", "100"]))
        tracer.wait_for(LEAKTRACE_ATTACHED, 30)
        beside_followed = _rate([loop], tracer)
    followed_child = _rate_of_child(loop, leaktrace, ["--follow-forks"])
    unfollowed_child = _rate_of_child(loop, leaktrace, [])
    command = _rate([leaktrace, "run", "--", loop])
    return {
        "pair alone, ns": 1e9 / alone,
        "pair beside an untraced tree, ns": 1e9 / beside_untraced,
        "pair beside a followed tree, ns": 1e9 / beside_followed,
        "pair in a command that is traced, ns": 1e9 / command,
        "pair in a child that is followed, ns": 1e9 / followed_child,
        "pair in a child that is not followed, ns": 1e9 / unfollowed_child,
    }


def _signals(program: str, leaktrace: str) -> Figures:
    """Measure what a signal costs that a program raises and handles."""
    followed = [leaktrace, "run", "--follow-forks", "--", program]
    return {f"signal, {name}, ns": 1e9 / _told_rate(words) for name, words in (
        ("untraced", [program]), ("in a followed process", followed))}


def _told_rate(words: Sequence[str]) -> float:
    """Return the one rate that a program prints before it ends."""
    with PrintingProgram(words) as running:
        _, match = running.wait_for(r"rate ([0-9.]+)", 60)
        return float(match[1])


def _rate(words: Sequence[str], tracer: Child | None = None) -> float:
    with PrintingProgram(words) as running:
        return steady_rate(running, first_sample(running, 30), tracer)


def _rate_of_child(loop: str, leaktrace: str, options: Sequence[str]) -> float:
    """Return the rate of the loop as a child by fork and exec of a traced shell, in pairs a second."""
    shell = ["sh", "-c", f"{loop}; :"]
    with PrintingProgram([leaktrace, "run", "--ignore-children", *options, "--", *shell]) as running:
        return steady_rate(running, first_sample(running, 30), None)
