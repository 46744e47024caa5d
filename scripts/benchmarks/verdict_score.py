"""Trace programs whose truth is known, some that leak and some that do not, and score what leaktrace says of them.

Each program is traced from its start, once by leaktrace and once by memleak; several run at once, because they sleep
most of the time. With --reachability, leaktrace's four kinds of blocks are compared with valgrind's instead.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import machine, output, preparation, reachability_comparison, verdict_rows
from benchmarks.child import Failure
from benchmarks.entry import run_script
from benchmarks.verdict_programs import Program, build, corpus
from benchmarks.verdict_readings import Reading
from benchmarks.verdict_rows import MEMLEAK, Row
from benchmarks.verdict_runs import TOOLS, Runs, Tool

SCRIPTS = Path(__file__).resolve().parent.parent
SECONDS = 30
AT_ONCE = 4


def main(arguments: Sequence[str]) -> int:
    """Run the scoring; returns its exit code: 0 done, 2 wrong usage, 3 cannot measure here."""
    options = _parser().parse_args(arguments)
    work = reachability_comparison.measure if options.reachability else measure
    return run_script(lambda: work(options), root_for="scripts/score_verdicts")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/score_verdicts", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tools = [one.name for one in TOOLS]
    parser.add_argument("--only", nargs="+", metavar="NAME", help="only these programs of the corpus")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="trace each so long (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=AT_ONCE, help="so many at once (default: %(default)s)")
    parser.add_argument("--tool", action="append", choices=tools, help="only this one (may be repeated)")
    parser.add_argument("--scan", action="store_true", help="give leaktrace --reachability")
    parser.add_argument("--reachability", action="store_true", help="compare the four kinds with valgrind's instead")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument(
        "--leaktrace", type=Path, default=SCRIPTS / "leaktrace", metavar="PATH", help="the one to measure"
    )
    return parser


def measure(options: argparse.Namespace) -> int:
    """Score what the options ask for, and print it."""
    programs = chosen(corpus(), options.only)
    tools = [tool for tool in TOOLS if options.tool is None or tool.name in options.tool]
    names = [tool.name for tool in tools]
    leaktrace = options.leaktrace.absolute()
    facts = machine.describe(leaktrace, "not used")
    added = ("--reachability",) if options.scan else ()
    with tempfile.TemporaryDirectory(prefix="leaktrace-verdicts-") as scratch:
        folder = Path(scratch)
        build((program.source for program in programs), folder)
        with preparation.kernel_headers() as headers, preparation.mounted_tracefs():
            if MEMLEAK in names:
                facts["kernel_headers"] = headers
            with ThreadPoolExecutor(options.jobs) as pool, Runs(folder, leaktrace, options.seconds, added) as runs:
                try:
                    rows = _rows(pool, runs, programs, tools)
                except BaseException:
                    pool.shutdown(wait=False, cancel_futures=True)
                    raise
    print(output.as_text(facts, (), ()))
    print(f"\nTraced for {options.seconds} s each, {options.jobs} at once.\n\n{verdict_rows.as_text(rows, names)}")
    if options.json:
        made = {"machine": facts, "seconds": options.seconds, **verdict_rows.as_json(rows, names)}
        options.json.write_text(json.dumps(made, indent=1) + "\n")
    return 0


def chosen(programs: Sequence[Program], names: Sequence[str] | None) -> list[Program]:
    """Return the programs of these names; all without names. Failure for a name that none has."""
    unknown = set(names or ()) - {program.name for program in programs}
    if unknown:
        raise Failure(f"no such program: {', '.join(sorted(unknown))}; there are {', '.join(p.name for p in programs)}")
    return [program for program in programs if not names or program.name in names]


def _rows(pool: ThreadPoolExecutor, runs: Runs, programs: Sequence[Program], tools: Sequence[Tool]) -> list[Row]:
    def run(program: Program, tool: Tool) -> Reading:
        reading = runs.run(program.name, tool)
        rank = reading.rank(program.truth.function) if program.truth.function else None
        said = reading.error or f"{len(reading.sites)} sites" + (f", the leaking one is #{rank}" if rank else "")
        print(f"{program.name}, {tool.name}: {said}", file=sys.stderr, flush=True)
        return reading

    # One tool after the other: the first to start compiles, and others' figures are not to have that in them.
    begun = {(program.name, tool.name): pool.submit(run, program, tool) for tool in tools for program in programs}
    return [Row(one, {tool.name: begun[one.name, tool.name].result() for tool in tools}) for one in programs]
