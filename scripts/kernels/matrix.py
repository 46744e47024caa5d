"""The matrix: the tests on each kernel, two machines side by side, and what came of it."""

from __future__ import annotations

import contextlib
import re
import shlex
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.child import Failure

from kernels import machine, roots
from kernels.kernel import Kernel, Origin, headers, kernel
from kernels.machine import Ending, Share, Work
from kernels.packages import CACHE, command
from kernels.results import LIST, Outcome, Result, checkup, features, judge, tests
from kernels.tree import Tree

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "tests" / "kernels" / "module"
EXCHANGE = "/run/leaktrace/exchange"
CONSOLE_LINES = 25
DEATH = re.compile(r"BUG: |Oops: |Kernel panic|general protection fault|soft lockup|rcu.*stall")
#: A breakpoint that nobody knows of. Before Linux 5.17 leaktrace's own kprobes are breakpoints, too: read what is said.
EMULATOR = re.compile(r"\bint3: 0000 \[#1\]")
BOOTS = 3
DOCTOR_S = 300


@dataclass(frozen=True, slots=True)
class Plan:
    """What runs on every kernel."""

    pytest: tuple[str, ...]
    """pytest's arguments; the listed tests for none."""
    timeout_s: float
    accelerator: str = "tcg"
    keep: bool = False
    bcc: str = ""
    """The BCC that it runs with, in the root of the release that has it; this machine's own for none."""


def listed() -> dict[str, tuple[str, ...]]:
    """Return the tests that run on every kernel, by the feature that they show."""
    return features(LIST.read_text())


def run(suites: Sequence[Origin], plan: Plan, jobs: int) -> list[Result]:
    """Run the tests on every kernel; a kernel that cannot be had is a result, too."""
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        try:
            waiting = [pool.submit(one, suite, plan, stop) for suite in suites]
            return [each.result() for each in waiting]
        except BaseException:
            # Ctrl-C: the machines end, those that have not begun do not.
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def one(suite: Origin, plan: Plan, stop: threading.Event) -> Result:
    """Run the tests on one kernel."""
    try:
        booted = kernel(suite)
    except Failure as failure:
        say(f"SKIPPED: kernel {suite.name}: {failure}")
        return Result(suite.name, "", Outcome.SKIPPED, str(failure))
    began = time.monotonic()
    say(f"{suite.name}: {booted.version} boots")
    try:
        with exchange_folder(suite, plan.keep) as exchange:
            words = plan.pytest or [node for nodes in listed().values() for node in nodes]
            place = Place(Path("/"), Path(sys.prefix), kept(), ()) if not plan.bcc else other_place(plan.bcc)
            work = Work(tests_script(words, place.environment, built_module(suite, exchange)), ROOT, place.root,
                        place.layers, place.keep, plan.timeout_s, plan.accelerator, stop)  # fmt: skip
            result = judged(booted, ended(booted, work, exchange), exchange)
    except Failure as failure:
        result = Result(suite.name, booted.version, Outcome.FAILED, str(failure), time.monotonic() - began)
    if plan.bcc:
        result = replace(result, name=f"{suite.name} with BCC {plan.bcc}")
    say(f"{result.name}: {result.outcome} after {result.seconds:.0f} s")
    return result


def ended(booted: Kernel, work: Work, exchange: Path, follow: Callable[[Path], None] = lambda _: None) -> Ending:
    """Run a machine to its end; one that its emulator has killed is booted again. Any other death is its end.

    Kernels change their own code as they run, and an emulator of two processors may run a breakpoint in it that is gone
    already: "int3" in __schedule(), which perf events change, or in enqueue_timer(). Seen with QEMU 7.2, in one of ten
    machines on some days.
    """
    for boot in range(BOOTS):
        ending = machine.run(booted, work, exchange, follow)
        if ending.status is not None or work.accelerator != "tcg" or not EMULATOR.search(ending.console):
            break
        again = ", and is booted again" if boot < BOOTS - 1 else ""
        say(f"{booted.name}: its emulator ran code that was changed before{again}:\n{last_lines(ending.console)}")
        if again:
            for name in ("stdout", "stderr", "doctor.json", "junit.xml"):
                (exchange / name).unlink(missing_ok=True)
    return ending


@dataclass(frozen=True, slots=True)
class Place:
    """What a machine has around the checkout: its root, and the environment for Python in it."""

    root: Path
    environment: Path
    keep: tuple[Path, ...]
    layers: tuple[Share, ...]


def other_place(bcc: str) -> Place:
    """Return the root of the release that has this BCC, which sees the checkout."""
    folder, environment = roots.with_bcc(bcc, ROOT)
    return Place(folder, environment, (), (Share("checkout", ROOT, str(ROOT)),))


def tests_script(words: Sequence[str], environment: Path, has_module: bool) -> str:
    """Return the shell script that runs doctor and the tests in a machine.

    LEAKTRACE_GUEST: tests wait longer for each step, as such a machine is some ten times slower.
    """
    python = shlex.quote(f"{environment}/bin/python")
    module = f"export LEAKTRACE_KERNEL_MODULE={EXCHANGE}/module/leaky.ko\n" if has_module else ""
    return f"""\
export CI=true LEAKTRACE_GUEST=1
{module}timeout {DOCTOR_S} {python} -m tracer.cli doctor --format json >{EXCHANGE}/doctor.json
exec {python} -m pytest -p no:cacheprovider --junit-xml={EXCHANGE}/junit.xml {shlex.join(words)}"""


def built_module(suite: Origin, exchange: Path) -> bool:
    """Build the module of tests/kernels for a suite's kernel, where there is one; return whether it is there."""
    if not MODULE.is_dir():
        return False
    try:
        build = headers(suite)
        out = exchange / "module"
        out.mkdir()
        words = ["make", "-C", str(MODULE), f"KERNEL_BUILD={build}", f"OUT={out}"]
        if isinstance(suite, Tree) or roots.is_host(suite):
            command(words)
        else:
            roots.run_inside(roots.root(suite), words, [build.parents[2], MODULE, out])
    except Failure as failure:
        say(f"{suite.name}: no module for tests/kernels: {failure}")
        return False
    return True


def judged(booted: Kernel, ending: Ending, exchange: Path) -> Result:
    """Return what came of a machine that ended, from what it left in its folder."""
    found = tests(text) if (text := _text(exchange / "junit.xml")) else ()
    outcome, why = judge(ending.status, ending.why, found)
    needs, way = checkup(_text(exchange / "doctor.json"))
    if ending.status is None:
        why += f"; the last lines of its console:\n{last_lines(ending.console)}"
    if not found:
        printed = _text(exchange / "stdout") + _text(exchange / "stderr")
        why += f"\n  the last lines that it printed:\n{last_lines(printed)}"
    return Result(booted.name, booted.version, outcome, why, ending.seconds, found, needs, way)


def as_text(result: Result) -> str:
    """Return a line on a kernel, and one for each test that failed or did not run in it."""
    counts = f"{result.count(Outcome.PASSED)} passed, {result.count(Outcome.FAILED)} failed, "
    counts += f"{result.count(Outcome.SKIPPED)} skipped in {result.seconds:.0f} s"
    head = f"{result.outcome}: kernel {result.name}" + (f" ({result.version}), {counts}" if result.version else "")
    lines = [head + (f": {result.why}" if result.why else "")]
    others = [test for test in result.tests if test.outcome is not Outcome.PASSED]
    lines += [f"    {test.outcome} {test.node}: {test.why}" for test in others]
    return "\n".join(lines)


@contextlib.contextmanager
def exchange_folder(suite: Origin, keep: bool) -> Iterator[Path]:
    """A folder for what a machine reads and writes; dropped at the end, unless it is to be kept."""
    (CACHE / "runs").mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"{suite.name}-", dir=CACHE / "runs"))
    try:
        yield folder
    finally:
        if keep:
            say(f"{suite.name}: kept in {folder}")
        else:
            shutil.rmtree(folder, ignore_errors=True)


def kept() -> tuple[Path, ...]:
    """Return the folders that every machine must see: the checkout, and the Python that runs this."""
    return ROOT, Path(sys.prefix)


def last_lines(text: str) -> str:
    """Return the end of what was printed, indented; of a kernel's death, its beginning, which says what it was."""
    lines = [line.rstrip() for line in text.splitlines() if line.strip()]
    death = next((number for number, line in enumerate(lines) if DEATH.search(line)), None)
    chosen = lines[-CONSOLE_LINES:] if death is None else lines[death : death + CONSOLE_LINES]
    return "\n".join(f"    {line}" for line in chosen) or "    (there are none)"


def say(text: str) -> None:
    """Tell on stderr."""
    print(text, file=sys.stderr, flush=True)


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""
