"""Measure leaktrace run beside valgrind and LeakSanitizer: what each says of the same small programs, and how fast."""

from __future__ import annotations

import argparse
import json
import resource
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks import gate_output, machine, output
from benchmarks.child import Failure
from benchmarks.entry import run_script
from benchmarks.gate_programs import PROGRAMS, SOURCES, Program, Truth, build, truth
from benchmarks.gate_tools import LEAKTRACE, TOOLS, UNTRACED, Run, Tool, folder_of, run
from benchmarks.gate_verdicts import Row, told

SCRIPTS = Path(__file__).resolve().parent.parent
ROUNDS = 3


def main(arguments: Sequence[str]) -> int:
    """Run the comparison; returns its exit code: 0 done, 2 wrong usage, 3 cannot measure here."""
    options = _parser().parse_args(arguments)
    return run_script(lambda: measure(options), root_for="scripts/compare_gates")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/compare_gates", description=__doc__)
    names = [one.name for one in PROGRAMS]
    parser.add_argument("--quick", action="store_true", help="one round instead of three")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    only = f"only this (may be repeated): {', '.join(names)}"
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help=only)
    parser.add_argument(
        "--tool",
        action="append",
        choices=[one.name for one in TOOLS],
        metavar="TOOL",
        help=f"only this one (may be repeated): {', '.join(one.name for one in TOOLS)}",
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="say each command line")
    parser.add_argument(
        "--leaktrace", type=Path, default=SCRIPTS / "leaktrace", metavar="PATH", help="the one to measure"
    )
    return parser


def measure(options: argparse.Namespace) -> int:
    """Measure what the options ask for, and print it."""
    tools = _present([one for one in TOOLS if options.tool is None or one.name in options.tool])
    chosen = [one for one in PROGRAMS if options.only is None or one.name in options.only]
    leaktrace = options.leaktrace.absolute()
    # A program that crashes leaves no file.
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
    with tempfile.TemporaryDirectory(prefix="leaktrace-gates-") as name:
        scratch = Path(name)
        scratch.chmod(0o755)  # under sudo leaktrace runs the program as the user
        for tool in {folder_of(one, scratch): one for one in (UNTRACED, *tools)}.values():
            build(PROGRAMS, folder_of(tool, scratch), tool.flags)
        facts = _facts(leaktrace)
        if LEAKTRACE in tools:  # its first start compiles
            _attempt(LEAKTRACE, PROGRAMS[0], scratch, leaktrace)
        rounds = 1 if options.quick else ROUNDS
        rows = [_measured(one, tools, scratch, leaktrace, rounds, options.verbose) for one in chosen]
    print(output.as_text(facts, (), ()))
    print(f"\n{gate_output.as_text(rows, [tool.name for tool in tools])}")
    if options.json:
        made = {"machine": facts, "programs": gate_output.as_json(rows)}
        options.json.write_text(json.dumps(made, indent=1) + "\n")
    return 0


def _present(tools: Sequence[Tool]) -> list[Tool]:
    for tool in tools:
        if not tool.present():
            _say(f"{tool.name} is missing and not measured: {tool.remedy}")
    return [tool for tool in tools if tool.present()]


def _facts(leaktrace: Path) -> dict[str, object]:
    """Return the machine, and the versions of what is compared."""
    facts = machine.describe(leaktrace, "not used")
    command = ["dpkg-query", "-W", "-f", "${Package} ${Version}\n", "valgrind", "gcc", "liblsan0", "libc6", "libc6-dbg"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    facts["packages"] = dict(line.split(" ", 1) for line in listed.splitlines() if " " in line)
    return facts


def _measured(
    program: Program, tools: Sequence[Tool], scratch: Path, leaktrace: Path, rounds: int, verbose: bool
) -> Row:
    """Measure one program plain and under all tools, alternating them, so that what changes meets all alike."""
    runs: dict[str, list[Run]] = {tool.name: [] for tool in (UNTRACED, *tools)}
    failures: dict[str, str] = {}
    if verbose:
        for tool in tools:
            _say(f"{program.name}, {tool.name}: {_command_line(tool, program, scratch, leaktrace)}")
    for number in range(rounds):
        for tool in (UNTRACED, *tools):
            if tool.name in failures:
                continue  # it failed before and will again
            made = _attempt(tool, program, scratch, leaktrace)
            if isinstance(made, Run):
                runs[tool.name].append(made)
                said = gate_output.seconds(made.seconds)
            else:
                failures[tool.name] = said = made
            _say(f"{program.name}, round {number + 1}, {tool.name}: {said}")
    plain = tuple(runs.pop(UNTRACED.name))
    if not plain:
        raise Failure(f"{program.name} does not run: {failures[UNTRACED.name]}")
    row = Row(program, _truth(program), plain, {name: tuple(many) for name, many in runs.items()}, failures)
    if verbose:
        _say_verdicts(row)
    return row


def _say_verdicts(row: Row) -> None:
    for tool, runs in row.runs.items():
        for run_ in runs:
            _say(f"{row.program.name}, {tool}: {told(row.verdict(run_), run_)} (exit code {run_.code})")


def _command_line(tool: Tool, program: Program, scratch: Path, leaktrace: Path) -> str:
    values = {"leaktrace": str(leaktrace), "report": "report.json"}
    env = [f"{name}={value}" for name, value in tool.environment(program).items()]
    return shlex.join([*env, *tool.command(program, folder_of(tool, scratch), values)])


def _attempt(tool: Tool, program: Program, scratch: Path, leaktrace: Path) -> Run | str:
    """Return one run, or why there is none."""
    try:
        return run(tool, program, scratch, leaktrace)
    except Failure as failure:
        return str(failure)


def _truth(program: Program) -> Truth:
    return truth((SOURCES / program.source).read_text())


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
