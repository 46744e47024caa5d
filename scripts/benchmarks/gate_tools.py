"""The gates that are compared: one row each, with its command line as a user would type it; and one run of one."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import gate_readings
from benchmarks.child import Failure
from benchmarks.gate_programs import SOURCES, Program
from benchmarks.gate_readings import Reader, Reading

TIMEOUT_S = 300.0
SUPPRESSIONS = SOURCES / "suppressed.supp"
VALGRIND_SUPPRESSIONS = SOURCES / "suppressed.valgrind.supp"
PLAIN = "plain"


@dataclass(frozen=True, slots=True)
class Tool:
    """A gate. `prefix` stands in front of the program and has {leaktrace} and {report} filled in.

    `children`, `unloads` and `suppressions` are added to it for programs that need them; `suppressing` is the
    environment that does it where there is no option. `flags` are the compiler's.
    """

    name: str
    read: Reader
    prefix: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    unloads: tuple[str, ...] = ()
    suppressions: tuple[str, ...] = ()
    suppressing: Mapping[str, str] = field(default_factory=dict)
    separator: tuple[str, ...] = ()
    flags: tuple[str, ...] = ()
    present: Callable[[], bool] = lambda: True
    remedy: str = ""

    def command(self, program: Program, folder: Path, values: Mapping[str, str]) -> list[str]:
        """Return the whole command line for a program that is built in a folder."""
        added = (
            *(self.children if program.children else ()),
            *(self.unloads if program.unloads else ()),
            *(self.suppressions if program.suppressed else ()),
        )
        words = [word.format_map(values) for word in (*self.prefix, *added, *self.separator)]
        return [*words, *program.command(folder)]

    def environment(self, program: Program) -> Mapping[str, str]:
        """Return what a program's run needs in its environment."""
        return self.suppressing if program.suppressed else {}


def _has_leak_sanitizer() -> bool:
    command = ["gcc", "-print-file-name=liblsan.so"]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.startswith("/")
    return False


LEAKTRACE = Tool(
    "leaktrace",
    gate_readings.leaktrace,
    ("{leaktrace}", "run", "--reachability", "--fail-on", "verdict==lost", "--format", "json", "--output", "{report}"),
    children=("--follow-forks",),
    suppressions=("--suppressions", str(SUPPRESSIONS)),
    separator=("--",),
)
VALGRIND = Tool(
    "valgrind",
    lambda _, told, __: gate_readings.valgrind(told),
    ("valgrind", "--leak-check=full", "--error-exitcode=23"),
    children=("--trace-children=yes",),
    unloads=("--keep-debuginfo=yes",),
    suppressions=(f"--suppressions={VALGRIND_SUPPRESSIONS}",),
    present=lambda: shutil.which("valgrind") is not None,
    remedy="apt install valgrind libc6-dbg",
)
# The stand-alone one, which is all that leaks need; AddressSanitizer's has the same check at the same moment.
LEAK_SANITIZER = Tool(
    "LeakSanitizer",
    lambda _, told, __: gate_readings.leak_sanitizer(told),
    suppressing={"LSAN_OPTIONS": f"suppressions={SUPPRESSIONS}"},
    flags=("-fsanitize=leak",),
    present=_has_leak_sanitizer,
    remedy="apt install gcc g++, of a version that has liblsan",
)
TOOLS = (LEAKTRACE, VALGRIND, LEAK_SANITIZER)
UNTRACED = Tool(PLAIN, lambda *_: Reading())


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program under a tool: seconds from its start to its end, its exit code, what it reported."""

    seconds: float
    code: int
    reading: Reading


def run(tool: Tool, program: Program, scratch: Path, leaktrace: Path) -> Run:
    """Run a program, built in the scratch folder's folder of the tool's build, under a tool; Failure if it hangs."""
    report = scratch / "report.json"
    report.unlink(missing_ok=True)
    command = tool.command(program, folder_of(tool, scratch), {"leaktrace": str(leaktrace), "report": str(report)})
    seconds, code, told = finished(command, tool.environment(program))
    return Run(seconds, code, tool.read(report.read_text() if report.exists() else "", told, code))


def folder_of(tool: Tool, scratch: Path) -> Path:
    """Return where the programs lie as a tool needs them to be built."""
    return scratch / ("sanitized" if tool.flags else PLAIN)


def finished(command: Sequence[str], env: Mapping[str, str], timeout_s: float = TIMEOUT_S) -> tuple[float, int, str]:
    """Run a command to its end; return the seconds that took, its exit code (minus its signal), its standard error."""
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                env={**os.environ, **env},
                start_new_session=True,
            )
        except OSError as error:
            raise Failure(f"{command[0]}: {error.strerror}") from error
        # Not wait(timeout), which sleeps up to 50 ms at a time.
        limit = threading.Timer(timeout_s, _kill_session, (process.pid,))
        limit.start()
        try:
            code = process.wait()
            seconds = time.perf_counter() - started
        finally:
            limit.cancel()
            _kill_session(process.pid)  # after an end in time: only what it left behind
            process.wait()
        if seconds >= timeout_s:
            raise Failure(f"not done after {timeout_s:.0f} s")
        errors.seek(0)
        return seconds, code, errors.read().decode(errors="replace")


def _kill_session(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(leader, signal.SIGKILL)
