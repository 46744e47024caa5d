"""Running a symbolizer: from start to end, or asking it again and again while it runs."""

from __future__ import annotations

import os
import subprocess
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchmarks.child import Failure

TIMEOUT_S = 600.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ran: seconds from its start to its end and to its first line, its peak memory in MB (10^6)."""

    seconds: float
    first_line_s: float
    peak_mb: float
    output: str
    told: str
    """Its standard error."""


def run(command: Sequence[str], asked: str, env: Mapping[str, str] | None = None) -> Finished:
    """Run a program that reads all of its standard input; Failure if it fails."""
    with tempfile.TemporaryFile() as questions, tempfile.TemporaryFile() as errors:
        questions.write(asked.encode())
        questions.seek(0)
        started = time.perf_counter()
        process = _start(command, questions.fileno(), errors.fileno(), env)
        limit = threading.Timer(TIMEOUT_S, process.kill)
        limit.start()
        try:
            assert process.stdout is not None
            first = process.stdout.readline()
            first_line_s = time.perf_counter() - started
            rest = process.stdout.read()
            # Not Popen.wait(): only this tells how much memory it had.
            _, status, usage = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - started
            process.returncode = os.waitstatus_to_exitcode(status)
        finally:
            limit.cancel()
            process.stdout.close() if process.stdout else None
        errors.seek(0)
        told = errors.read().decode(errors="replace")
    if process.returncode:
        last = (told.strip().splitlines() or ["it said nothing"])[-1]
        raise Failure(f"{os.path.basename(command[0])} ended with {process.returncode}: {last[:160]}")
    output = (first + rest).decode(errors="replace")
    return Finished(seconds, first_line_s, usage.ru_maxrss * 1024 / 1e6, output, told)


def _start(
    command: Sequence[str], stdin: int, stderr: int, env: Mapping[str, str] | None = None
) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command, stdin=stdin, stdout=subprocess.PIPE, stderr=stderr, env={**os.environ, **(env or {})}
        )
    except OSError as error:
        raise Failure(f"{command[0]}: {error.strerror}") from error


def answer_times(command: Sequence[str], batches: Sequence[Sequence[str]]) -> list[float]:
    """Return the seconds that a running program took for each batch of lines; an empty line ends each answer."""
    process = _start(command, subprocess.PIPE, subprocess.DEVNULL)
    limit = threading.Timer(TIMEOUT_S, process.kill)
    limit.start()
    try:
        return [_answered(process, batch) for batch in batches]
    finally:
        limit.cancel()
        process.kill()
        process.communicate()


def _answered(process: subprocess.Popen[bytes], lines: Sequence[str]) -> float:
    assert process.stdin is not None and process.stdout is not None
    stdin, text = process.stdin, "".join(f"{line}\n" for line in lines).encode()

    def ask() -> None:
        stdin.write(text)
        stdin.flush()

    started = time.perf_counter()
    # Both pipes could be full otherwise, and each side wait for the other.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    missing = len(lines)
    while missing:
        line = process.stdout.readline()
        if not line:
            raise Failure("it ended before its last answer")
        missing -= line == b"\n"
    seconds = time.perf_counter() - started
    asking.join()
    return seconds


def warm_up(paths: Sequence[str]) -> None:
    """Read files once, so that all tools find them in the page cache."""
    for path in paths:
        with open(path, "rb") as file:
            while file.read(1 << 20):
                pass
