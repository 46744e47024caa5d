"""Measure leaktrace kernel beside memleak and bpftrace: loads of the kernel, and what they take themselves."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path

from benchmarks import machine, output
from benchmarks.entry import run_script
from benchmarks.figures import Figure
from benchmarks.kernel_alone import measured_alone
from benchmarks.kernel_loads import LOADS, Load, Round, compile_load, measure
from benchmarks.kernel_rows import HEADINGS, Comparison, cells, compare_all, table
from benchmarks.kernel_tools import TOOLS, Tool, others, write_bpftrace_script
from benchmarks.preparation import kernel_headers, mounted_tracefs

SCRIPTS = Path(__file__).resolve().parent.parent
SOURCE = SCRIPTS.parent / "tests" / "programs" / "kernel_load.c"
ROUNDS = 5
#: The part of the machine's time from which on figures are of a machine that does something else too.
BUSY = 0.1
LOOK_S = 0.5


def main(arguments: Sequence[str]) -> int:
    """Run the bench; returns its exit code: 0 done, 2 wrong usage, 3 cannot measure here."""
    options = _parser().parse_args(arguments)
    # In a shell's background job Ctrl+C is ignored, and who is started inherits that; but it is what ends the tools.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return run_script(lambda: run(options), root_for="scripts/bench_kernel")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="scripts/bench_kernel", description=__doc__)
    kinds, tools = [one.kind for one in LOADS], [one.name for one in TOOLS if one.command]
    parser.add_argument("--quick", action="store_true", help="one round instead of five")
    parser.add_argument("--rounds", type=int, default=ROUNDS, metavar="N", help=f"rounds (default: {ROUNDS})")
    parser.add_argument("--wait", type=float, default=0.0, metavar="SECONDS",
                        help="before each measurement, wait so long for the machine to do nothing else")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write everything to a file")
    parser.add_argument("--only", choices=[*kinds, "figures"], metavar="LOAD", help=f"{', '.join(kinds)} or figures")
    parser.add_argument("--tool", action="append", choices=tools, metavar="TOOL",
                        help="only this tool (may be repeated); the untraced run is always made")
    parser.add_argument("--leaktrace", type=Path, default=SCRIPTS / "leaktrace", metavar="PATH",
                        help="the one to measure")
    return parser


def run(options: argparse.Namespace) -> int:
    """Measure what the options ask for, and print it."""
    leaktrace = options.leaktrace.absolute()
    loads = [one for one in LOADS if options.only in (None, one.kind)]
    tools = [one for one in TOOLS if not one.command or not options.tool or one.name in options.tool]
    rounds = 1 if options.quick else options.rounds
    figures: list[Figure] = []
    with ExitStack() as stack:
        headers = stack.enter_context(kernel_headers())
        stack.enter_context(mounted_tracefs())
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="leaktrace-bench-")))
        program = compile_load(SOURCE, scratch)
        values = {"leaktrace": str(leaktrace), "script": str(write_bpftrace_script(scratch))}
        # Who traces all the time slows all alike: then untraced is no such thing, but what is added to it is the same.
        facts = {**machine.describe(leaktrace, headers), "traced_beside_by": (beside := others()) or "nobody"}
        measured = in_rounds(tools, loads, rounds, options.wait, program, values, beside) if loads else {}
        if options.only in (None, "figures"):
            for figure in measured_alone(str(leaktrace), options.quick):
                _say(f"{figure.what}: {figure.why or f'{figure.value:.3f} {figure.unit}'}")
                figures.append(figure)
    facts["load_after"] = round(os.getloadavg()[0], 2)
    compared = compare_all(loads, measured)
    print(as_text(facts, compared, figures))
    if options.json:
        made = {"machine": facts, "loads": list(map(asdict, compared)), "figures": list(map(asdict, figures))}
        options.json.write_text(json.dumps(made, indent=1) + "\n")
    return 0


def in_rounds(tools: Sequence[Tool], loads: Sequence[Load], rounds: int, patience_s: float, program: Path,
              values: Mapping[str, str], beside: Collection[int] = ()) -> dict[str, list[Round]]:
    """Measure all loads under all tools, alternating these, so that what changes on the machine meets all alike."""
    measured: dict[str, list[Round]] = {tool.name: [] for tool in tools}
    for number in range(rounds):
        for tool in tools:
            busy = wait_until_quiet(patience_s, beside)
            one = measure(tool, loads, program, values, beside)
            measured[tool.name].append(one)
            told = one.why or "; ".join(f"{what} {us:,.4g} µs" for what, us in one.us.items())
            note = f" (before it, the machine was {busy:.0%} busy)" if busy > BUSY else ""
            _say(f"round {number + 1}, {tool.name}: {told}{note}")
    return measured


def wait_until_quiet(patience_s: float, beside: Collection[int]) -> float:
    """Wait until processors do nothing and nobody else traces, or the time is over; return busy_part()."""
    end = time.monotonic() + patience_s
    while True:
        busy = busy_part()
        if time.monotonic() >= end or (busy <= BUSY and not others(beside)):
            return busy


def busy_part() -> float:
    """Look for half a second; return in what part of it processors did something."""
    before = _processor_ticks()
    time.sleep(LOOK_S)
    idle, everything = (now - then for now, then in zip(_processor_ticks(), before, strict=True))
    return 1 - idle / everything if everything else 0.0


def _processor_ticks() -> tuple[int, int]:
    """Return the ticks that all processors were idle or waited for disks, and all of them (proc_stat(5))."""
    ticks = [int(one) for one in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


def as_text(facts: dict[str, object], compared: Sequence[Comparison], figures: Sequence[Figure]) -> str:
    """Return everything for a person to read."""
    parts = [output.as_text(facts, (), ())]
    for one in compared:
        parts += ["", f"{one.what}: {one.round}", table([HEADINGS, *map(cells, one.rows)])]
    if figures:
        rows = [(one.what, f"{one.value:.3f} {one.unit}" if one.value is not None else "-", one.why) for one in figures]
        parts += ["", "by themselves", table([("figure", "value", ""), *rows])]
    return "\n".join(parts)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
