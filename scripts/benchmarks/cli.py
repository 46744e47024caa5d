"""The command: prepare, measure in rounds, print."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine, output
from benchmarks.child import Failure
from benchmarks.comparison import Comparison, compare
from benchmarks.entry import run_script
from benchmarks.figures import from_comparisons, measured_alone
from benchmarks.measure import Measurement, Places, measure, pairs_per_operation
from benchmarks.preparation import compile_programs, install_peers, kernel_headers, mounted_tracefs
from benchmarks.tools import TOOLS, Tool
from benchmarks.workloads import WORKLOADS, Workload

SCRIPTS = Path(__file__).resolve().parent.parent
PROGRAMS = SCRIPTS.parent / "tests" / "programs"
ROUNDS = 3


def main(arguments: Sequence[str]) -> int:
    """Run the bench; returns its exit code: 0 done, 2 wrong usage, 3 cannot measure here."""
    options = _parser().parse_args(arguments)
    return run_script(lambda: run(options), root_for="scripts/bench")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__)
    names = [one.name for one in WORKLOADS]
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument(
        "--only", choices=[*names, "figures"], metavar="WORKLOAD", help=f"{', '.join(names)} or figures"
    )
    parser.add_argument(
        "--tool",
        action="append",
        choices=[one.name for one in TOOLS],
        metavar="TOOL",
        help="only this tool (may be repeated); the untraced run is always made",
    )
    parser.add_argument(
        "--leaktrace", type=Path, default=SCRIPTS / "leaktrace", metavar="PATH", help="the one to measure"
    )
    return parser


def run(options: argparse.Namespace) -> int:
    """Measure what the options ask for, and print it."""
    trouble = install_peers()
    if trouble:
        _say(trouble)
    with ExitStack() as stack:
        headers = stack.enter_context(kernel_headers())
        stack.enter_context(mounted_tracefs())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leaktrace-bench-")))
        compile_programs(PROGRAMS, scratch)
        places = Places(scratch, options.leaktrace.absolute())
        facts = machine.describe(places.leaktrace, headers)
        rounds = 1 if options.quick else ROUNDS
        chosen = [one for one in WORKLOADS if options.only in (None, one.name)]
        comparisons = [_compare(one, _tools(one, options.tool), places, rounds) for one in chosen]
        figures = from_comparisons(comparisons)
        if options.only in (None, "figures"):
            for figure in measured_alone(places, options.quick):
                _say(f"{figure.what}: {figure.why or f'{figure.value:.3f} {figure.unit}'}")
                figures.append(figure)
    print(output.as_text(facts, comparisons, figures))
    if options.json:
        options.json.write_text(json.dumps(output.as_json(facts, comparisons, figures), indent=1) + "\n")
    return 0


def _tools(workload: Workload, wanted: Sequence[str] | None) -> list[Tool]:
    return [
        tool
        for tool in TOOLS
        if (not tool.workloads or workload.name in tool.workloads)
        and (not wanted or not tool.command or tool.name in wanted)
    ]


def _compare(workload: Workload, tools: Sequence[Tool], places: Places, rounds: int) -> Comparison:
    """Measure one workload under all tools, alternating them, so that what changes on the machine meets all alike."""
    try:
        pairs = pairs_per_operation(workload, places)
    except (Failure, OSError) as failure:
        _say(f"{workload.name}: pairs not counted: {failure}")
        pairs = None
    measured: dict[str, list[Measurement]] = {tool.name: [] for tool in tools}
    for number in range(rounds):
        for tool in tools:
            if measured[tool.name] and all(one.rate is None for one in measured[tool.name]):
                continue  # it failed before and will again
            one = measure(workload, tool, places)
            measured[tool.name].append(one)
            told = f"{one.rate:,.1f} {workload.unit} {one.note}" if one.rate else one.why
            _say(f"{workload.name}, round {number + 1}, {tool.name}: {told}")
    return compare(workload.name, workload.unit, pairs, measured)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
