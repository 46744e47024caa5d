"""The command: fetch kernels, boot them, run the tests or a command in each, and say how it went."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.entry import run_script

from kernels import matrix, table
from kernels.kernel import Origin, headers, kernel
from kernels.machine import Work
from kernels.matrix import ROOT, Plan
from kernels.results import Outcome
from kernels.roots import BCC_RELEASES
from kernels.suites import SUITES, chosen
from kernels.tree import SEPARATOR, Tree

TIMEOUT_S = 1500.0
#: Machines side by side.
JOBS = 2


def main(arguments: Sequence[str]) -> int:
    """Run the command; returns 0 done, 1 something failed, 2 wrong usage, 3 cannot start; --run: its own."""
    before, _, behind = _split(arguments)
    options = _parser().parse_args(before)
    options.pytest = behind
    return run_script(lambda: run(options), root_for="scripts/test-kernels")


def _split(arguments: Sequence[str]) -> tuple[list[str], bool, list[str]]:
    """Return what stands before `--`, whether there is one, and what stands behind it."""
    words = list(arguments)
    place = words.index("--") if "--" in words else len(words)
    return words[:place], place < len(words), words[place + 1 :]


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(suite.name for suite in SUITES)
    parser = argparse.ArgumentParser(
        prog="scripts/test-kernels", description=__doc__.partition(": ")[2].capitalize(),
        usage="%(prog)s [OPTIONS] [KERNEL ...] [-- PYTEST ARGUMENTS]",
        epilog="Without arguments for pytest, the tests in scripts/kernels/live_tests.txt run.")
    parser.add_argument("kernels", nargs="*", metavar="KERNEL", help=f"{names} (default: each of these); or, with a / "
                        "in it, the folder in which you built one from its sources")
    parser.add_argument("--run", metavar="COMMAND", help="only run this shell command in the checkout; exit as it does")
    parser.add_argument("--table", type=Path, metavar="FILE", help="also write what came of it into this file's table")
    parser.add_argument("--bcc", choices=list(BCC_RELEASES), default="", help="with this BCC, in a root of the release "
                        "that has it (default: this machine's); on the oldest and the newest kernel unless named")
    parser.add_argument("--jobs", type=int, default=JOBS, metavar="N", help="machines side by side (%(default)s)")
    parser.add_argument("--prepare", action="store_true", help="only fetch; print where image, modules, headers lie")
    parser.add_argument("--timeout", type=float, default=TIMEOUT_S, metavar="S", help="for each machine (%(default)s)")
    parser.add_argument("--keep", action="store_true", help="keep each machine's folder: output, console, results")
    parser.add_argument("--accelerator", choices=["tcg", "kvm"], default="tcg", help="how qemu runs (%(default)s)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Do what the options ask for."""
    suites = origins(options.kernels)
    if options.bcc and not options.kernels:
        suites = [suites[0], suites[-1]]
    if options.prepare:
        return prepare(suites)
    if options.run is not None:
        return max(_run_in(suite, options) for suite in suites)
    plan = Plan(tuple(options.pytest), options.timeout, options.accelerator, options.keep, options.bcc)
    results = matrix.run(suites, plan, options.jobs)
    for result in results:
        print(matrix.as_text(result), flush=True)
    if options.table:
        table.write(options.table, table.table(results, matrix.listed()))
    return 1 if any(result.outcome is Outcome.FAILED for result in results) else 0


def origins(words: Sequence[str]) -> list[Origin]:
    """Return what the words name, all suites for none; Failure for a wrong name, or a tree without a kernel."""
    trees = [Tree(Path(word).resolve()) for word in words if SEPARATOR in word]
    for tree in trees:
        tree.release()
    names = [word for word in words if SEPARATOR not in word]
    return [*(chosen(names) if names or not trees else []), *trees]


def prepare(suites: Sequence[Origin]) -> int:
    """Fetch kernels and print where they are, one NAME.WHAT=PATH a line."""
    for suite in suites:
        one = kernel(suite)
        for what, value in (("version", one.version), ("image", one.image), ("modules", one.modules),
                            ("headers", headers(suite))):  # fmt: skip
            print(f"{suite.name}.{what}={value}", flush=True)
    return 0


def _run_in(suite: Origin, options: argparse.Namespace) -> int:
    """Run the command of the options in a machine with a suite's kernel; return its exit status."""
    work = Work(options.run, ROOT, keep=matrix.kept(), timeout_s=options.timeout, accelerator=options.accelerator)
    follower = Follower(sys.stdout.fileno(), sys.stderr.fileno())
    with matrix.exchange_folder(suite, options.keep) as exchange:
        ending = matrix.ended(kernel(suite), work, exchange, follower)
    if ending.status is None:
        matrix.say(f"{suite.name}: {ending.why}; the last lines of its console:\n{matrix.last_lines(ending.console)}")
        return 3
    return ending.status


class Follower:
    """Passes on what the command prints while it runs."""

    def __init__(self, out: int, err: int) -> None:
        self.streams = {"stdout": out, "stderr": err}
        self.read = dict.fromkeys(self.streams, 0)

    def __call__(self, exchange: Path) -> None:
        for name, stream in self.streams.items():
            path = exchange / name
            size = path.stat().st_size if path.exists() else 0
            # A machine that boots again begins anew.
            if size < self.read[name]:
                self.read[name] = 0
            if size > self.read[name]:
                with path.open("rb") as file:
                    file.seek(self.read[name])
                    data = file.read()
                self.read[name] += len(data)
                while data:
                    data = data[os.write(stream, data) :]
