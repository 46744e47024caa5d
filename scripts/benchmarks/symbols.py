"""Measure how fast leaktrace names addresses beside other symbolizers, and whether the names are the same."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine, output, symbol_check, symbol_output
from benchmarks.child import Failure
from benchmarks.entry import run_script
from benchmarks.figures import Figure
from benchmarks.symbol_check import UNEXPLAINED, Verdict
from benchmarks.symbol_experiments import (
    Experiment,
    Result,
    debug_information,
    first_name,
    many_libraries,
    measured,
    requests,
)
from benchmarks.symbol_program import build_folder, program
from benchmarks.symbol_tools import HERE, LLVM, TOOLS, Job

ROUNDS = 3
PROGRAM_ADDRESSES = 1_000
EXPERIMENTS = ("libllvm", "program", "libraries")


def main(arguments: Sequence[str]) -> int:
    """Run the bench; returns 0 done, 1 names differ and nothing explains it, 2 wrong usage, 3 cannot measure here."""
    options = _parser().parse_args(arguments)
    return run_script(lambda: run(options))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench_symbols", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument("--check", action="store_true", help="only compare the names with llvm-symbolizer's")
    parser.add_argument("--only", choices=EXPERIMENTS, help="only this experiment, without the comparison of names")
    parser.add_argument(
        "--addresses", type=int, default=PROGRAM_ADDRESSES, metavar="N", help="how many in the C++ program (1,000)"
    )
    parser.add_argument("--program", type=Path, metavar="FILE", help="another file in place of the C++ program")
    where = "where the C++ program is kept (%(default)s)"
    parser.add_argument("--build", type=Path, default=build_folder(), metavar="FOLDER", help=where)
    return parser


def run(options: argparse.Namespace) -> int:
    """Measure what the options ask for, and print it."""
    for tool in TOOLS:
        if not tool.present():
            _say(f"{tool.name} is missing and not measured: {tool.remedy}")
    facts = _facts()
    results = [measured(one, 1 if options.quick else ROUNDS, _say) for one in _experiments(options)]
    verdict = None if options.only else _verdict(options)
    figures = symbol_output.figures_of(results)
    print(output.as_text(facts, (), figures))
    for result in results:
        print(f"\n{symbol_output.as_text(result)}")
    if verdict is not None:
        print(f"\n{symbol_check.as_text(verdict)}")
    if options.json:
        options.json.write_text(json.dumps(_as_json(facts, results, figures, verdict), indent=1) + "\n")
    return 1 if verdict is not None and verdict.counts[UNEXPLAINED] else 0


def _as_json(
    facts: Mapping[str, object], results: Sequence[Result], figures: Sequence[Figure], verdict: Verdict | None
) -> dict[str, object]:
    made = output.as_json(facts, (), figures)
    del made["workloads"]
    names = {"counts": verdict.counts, **asdict(verdict)} if verdict is not None else None
    return {**made, "experiments": [asdict(one) for one in results], "names": names}


def _facts() -> dict[str, object]:
    """Return the machine, and the versions of what is compared."""
    facts = machine.describe(HERE.parent / "leaktrace", "not used")
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", "llvm", "binutils", "python3-bpfcc", "g++"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    facts["packages"] = dict(line.split(" ", 1) for line in listed.splitlines() if " " in line)
    return facts


def _experiments(options: argparse.Namespace) -> list[Experiment]:
    """Return the experiments that can be made; of one that cannot, say why."""
    if options.check:
        return []
    makers: dict[str, Callable[[], Experiment]] = {
        "libllvm": first_name,
        "program": lambda: debug_information(_program(options), options.addresses),
        "libraries": many_libraries,
    }
    made = []
    for name, make in makers.items():
        if options.only in (None, name):
            try:
                made.append(make())
            except Failure as failure:
                _say(f"{name} is not measured: {failure}")
    return made


def _program(options: argparse.Namespace) -> Path:
    if options.program:
        return Path(options.program.resolve())
    return program(options.build.absolute(), _say)


def _verdict(options: argparse.Namespace) -> Verdict | None:
    """Return the comparison of names, None where llvm-symbolizer is missing and other things were measured."""
    if LLVM.present():
        return symbol_check.check(Job(requests(_program(options), options.addresses)))
    if options.check:
        raise Failure(f"{LLVM.name} is missing: {LLVM.remedy}")
    return None


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
