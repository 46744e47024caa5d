"""Runs a command under a gate: everything that can be wrong is found before the command starts."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from tracer import VERSION
from tracer.attach.spawn import HeldCommand
from tracer.attach.start import prepare
from tracer.attach.target import children
from tracer.attach.user import User, invoking_user
from tracer.cli import options as options_
from tracer.errors import CannotTrace, UsageError
from tracer.gate import Gate
from tracer.judge import budget
from tracer.judge.baseline import Baseline
from tracer.judge.builtin_suppressions import BUILTIN
from tracer.judge.suppressions import Suppressions, parse, print_suppression
from tracer.report import github, json, junit, sarif
from tracer.report.model import Judgement, Outcome, Report
from tracer.report.terminal_look import judged_writer, text_writer

#: Seconds between looks at growth, where a budget speaks of it; else the one report is that of the end.
GROWTH_INTERVAL, NEVER = 5.0, 1e6
ALL = 1 << 30
#: What a terminal sends to a whole process group, the command included.
FROM_TERMINAL = (signal.SIGINT, signal.SIGQUIT)
PASSED_ON = (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
#: Asks for a report at once; not SIGUSR1 as elsewhere, which is the command's.
REPORT_NOW = signal.SIGRTMIN
PR_SET_CHILD_SUBREAPER = 36
#: Bytes of a suppression file or a baseline.
LARGEST_INPUT = 64 << 20


#: Runs a command to its end under a gate: gives the last report and the command's exit code.
Trace = Callable[[dict[str, Any], Gate, Callable[[Report], None]], tuple[Report | None, int]]


def run(options: dict[str, Any], trace: Trace | None = None) -> int:
    """Run the command as the options say, those of `leaktrace run` unless trace is another; return the exit code.

    Raises LeaktraceError.
    """
    gate = _make_gate(options)
    user = None if options["as_root"] else invoking_user()
    judgement = None
    try:
        with ExitStack() as files:
            outputs = _Outputs(options, lambda path: files.enter_context(_open_output(path, user)))
            report, status = (trace or _trace)(options, gate, outputs.write_meanwhile)
            if report is None:
                return status
            judgement = gate.judge(report, status)
            outputs.write(report, judgement)
    except BrokenPipeError:
        # Whoever read the report has had enough; the judgement stands.
        if judgement is None:
            raise
        nowhere = os.open(os.devnull, os.O_WRONLY)
        for stream in (sys.stdout, sys.stderr):
            os.dup2(nowhere, stream.fileno())
    except OSError as problem:
        if judgement is None:
            raise
        named = ", ".join(str(options[name]) for name in ("output", "junit", "sarif") if options[name]) or "the report"
        raise CannotTrace(f"{named} cannot be written: {problem.strerror}.",
                          "Make room, or name another file.") from None
    return judgement.exit_code


def _make_gate(options: dict[str, Any]) -> Gate:
    entries = [entry for path in options["suppressions"] for entry in parse(_read(path, "suppression file"), path)]
    if not options["no_default_suppressions"]:
        entries += BUILTIN
    baseline = options["baseline"]
    budgets = tuple(budget.parse(text) for text in options["budgets"])
    if any("misuses" in each.needs for each in budgets) and not options.get("check_frees"):
        raise UsageError("--fail-on names misuses, which are found with --check-frees only.", "Give that too.")
    return Gate(
        budgets,
        Suppressions(entries),
        Baseline.parse(_read(baseline, "baseline"), baseline) if baseline is not None else None,
        options["error_exitcode"],
        options.get("ignore_children", True),
    )


def _read(path: str, what: str) -> str:
    try:
        with open(path, "rb") as file:
            content = file.read(LARGEST_INPUT + 1)
    except OSError as problem:
        raise UsageError(f"The {what} {path} cannot be read: {problem.strerror}.", "Check its path.") from None
    if len(content) > LARGEST_INPUT:
        raise UsageError(f"The {what} {path} is larger than {LARGEST_INPUT >> 20} MB.", "Give another file.")
    return content.decode("utf-8", "backslashreplace")


def _open_output(path: str, user: User | None) -> TextIO:
    """Open a file to write a report to, which belongs to who asked for it."""
    try:
        # Written at the end, when the command has ended.
        is_new = not os.path.lexists(path)
        out = open(path, "w", encoding="utf-8", errors="backslashreplace")  # noqa: SIM115
        if user is not None and is_new:
            os.fchown(out.fileno(), user.uid, user.gid)
        return out
    except OSError as problem:
        raise UsageError(f"{path} cannot be written: {problem.strerror}.", "Name another file.") from None


class _Outputs:
    """Where the judgement goes to, opened before the command starts."""

    def __init__(self, options: dict[str, Any], open_: Callable[[str], TextIO]) -> None:
        self._options = options
        self._look = options["color"], options["exact_bytes"]
        self._main = open_(options["output"]) if options["output"] else sys.stderr
        self._junit = open_(options["junit"]) if options["junit"] else None
        self._sarif = open_(options["sarif"]) if options["sarif"] else None

    def write_meanwhile(self, report: Report) -> None:
        """Write a report that was asked for while the command runs; nothing is judged yet."""
        if self._options["format"] == "json":
            json.write(report, self._main)
        else:
            write = text_writer(self._main, *self._look)
            write(replace(report, findings=report.findings[: self._options["top"]]), self._main)

    def write(self, report: Report, judgement: Judgement) -> None:
        """Write the judgement in every form that was asked for."""
        if self._options["format"] == "json":
            json.write(report, self._main, judgement)
        else:
            judged_writer(self._main, *self._look)(report, judgement, self._main, top=self._options["top"])
        if self._options["print_suppressions"]:
            self._main.write("".join(_suppressions(judgement)))
        if self._junit:
            junit.write(report, judgement, self._junit)
        if self._sarif:
            sarif.write(report, judgement, self._sarif, folder=os.getcwd(), version=VERSION)
        if self._options["github"]:
            github.write(report, judgement, sys.stdout, workspace=os.environ.get("GITHUB_WORKSPACE"))


def _suppressions(judgement: Judgement) -> Iterable[str]:
    for site in judgement.sites:
        if site.outcome not in (Outcome.FAILED, Outcome.PASSED):
            continue
        if not any(frame.function and not _is_runtime(frame.module) for frame in site.finding.frames):
            # It would silence every other site of the same file as well.
            yield f"# {site.finding.count} blocks: the program's functions have no names, which a suppression needs\n"
        else:
            yield print_suppression(site.finding.frames, f"{site.finding.count} blocks, {site.fingerprint}")


def _is_runtime(module: str | None) -> bool:
    return (module or "").rpartition("/")[2].startswith(("libc.so", "libc-", "ld-linux", "ld-musl"))


def _trace(options: dict[str, Any], gate: Gate, write: Callable[[Report], None]) -> tuple[Report | None, int]:
    """Run the command to its end; return the last report and the command's exit code. write: one that is asked for."""
    growth = any("growth_bytes_per_s" in each.needs for each in gate.budgets)
    names = {"words", "budgets", "error_exitcode", "suppressions", "no_default_suppressions", "print_suppressions",
             "baseline", "ignore_children", "junit", "sarif", "github", "output", "top", "record"}
    settings = options_.build_settings(
        {name: value for name, value in options.items() if name not in names}
        | {"command": tuple(options["words"]), "top": ALL,
           "interval": GROWTH_INTERVAL if growth or options["record"] else NEVER,
           "keep_ended": True, "older_ms": 0 if any("oldest_s" in each.needs for each in gate.budgets) else None})
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    prepared = prepare(settings)
    command = prepared.command
    if command is None:
        raise CannotTrace("There is no command.", "Name one behind --.")
    stop: list[Callable[[], None]] = []
    pass_signals_on(command, stop)
    # What takes long to import is imported while the compiler works.
    from tracer.cli.console import Console
    from tracer.cli.recorded import Record
    from tracer.session import Session

    console = Console(settings)
    last = None
    with (Session(settings, console.listener(quiet=not settings.verbose), prepared) as session,
          Record(options["record"], settings) as recorded):
        stop.append(session.stop)
        session.ends_with_process = True
        session.on_command_end = lambda others: console.say(
            f"the command has ended; {others} process{'es' if others > 1 else ''} that it left "
            f"{'are' if others > 1 else 'is'} followed to the end")
        signal.signal(REPORT_NOW, lambda *_: session.ask())
        for report in session.reports():
            last = report
            recorded.write(report)
            if report.asked_for and not report.last:
                write(report)
        status = command.wait()
        left = _left_behind(session.helpers())
    if left:
        many = f"{len(left)} process{'es' if len(left) > 1 else ''}"
        console.say(f"the command left {many} running, not traced: {', '.join(map(str, left[:5]))}")
    return last, recorded.exit_code(status)


def pass_signals_on(command: HeldCommand, stop: Sequence[Callable[[], None]]) -> None:
    """Have the command get the signals that were meant for it; leaktrace ends when the command does.

    stop ends the trace of what the command has left.
    """

    def at_terminal(*_: object) -> None:
        if command.status is not None:
            for end in stop:
                end()

    def pass_on(number: int, _frame: object) -> None:
        command.send(number)
        at_terminal()

    for number in PASSED_ON:
        signal.signal(number, pass_on)
    in_terminal = False
    with suppress(OSError), open("/dev/tty", "rb") as terminal:
        in_terminal = os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    for number in FROM_TERMINAL:
        # At a terminal the command has got it already.
        signal.signal(number, at_terminal if in_terminal else pass_on)


def _left_behind(own: Sequence[int]) -> list[int]:
    """Return the processes that the command left to us when it ended."""
    return [pid for pid in children(os.getpid()) if pid not in own and not _is_zombie(pid)]


def _is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True
