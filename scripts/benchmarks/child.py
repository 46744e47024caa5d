"""A program that the bench started: its output as timed lines, and its end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from typing import IO, Self

STOP_WAITS = ((signal.SIGINT, 15.0), (signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0))


class Failure(Exception):
    """One measurement cannot be made; the text says why, and the rest of the bench goes on."""


class Child:
    """A process in a session of its own, whose stdout and stderr lines are kept with their time (time.monotonic)."""

    def __init__(self, command: Sequence[str], env: Mapping[str, str] | None = None, stdin: bool = False) -> None:
        self.name = os.path.basename(command[0])
        self.lines: list[tuple[float, str]] = []
        self.started = time.monotonic()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **(env or {})},
            )
        except OSError as error:
            raise Failure(f"{self.name}: {error.strerror}") from error
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            threading.Thread(target=self._keep_lines, args=(stream,), daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self.process.pid

    def _keep_lines(self, stream: IO[bytes]) -> None:
        for line in stream:
            self.lines.append((time.monotonic(), line.decode(errors="replace").rstrip("\n")))

    def find(self, pattern: str, after: float = 0.0) -> tuple[float, re.Match[str]] | None:
        """Return when the first line that matches came, at or after a time, and the match."""
        for when, line in list(self.lines):
            match = re.search(pattern, line) if when >= after else None
            if match:
                return when, match
        return None

    def wait_for(self, pattern: str, timeout_s: float, after: float = 0.0) -> tuple[float, re.Match[str]]:
        """Wait for a line that matches, as find() returns it; Failure if the program ends or the time passes first."""
        deadline = time.monotonic() + timeout_s
        while True:
            ended = self.process.poll() is not None
            if ended:
                time.sleep(0.2)  # the reading threads may have its last lines still to take
            found = self.find(pattern, after)
            if found:
                return found
            if ended:
                raise Failure(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")
            if time.monotonic() > deadline:
                raise Failure(f"{self.name} did not print /{pattern}/ within {timeout_s:.0f} s: {self.last_words()}")
            time.sleep(0.01)

    def say(self, line: str) -> None:
        """Write one line to the program's standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        self.process.stdin.flush()

    def last_words(self) -> str:
        """Return the last line that tells something, for a reason why."""
        told = [line.strip() for _, line in list(self.lines) if line.strip()]
        return told[-1][:160] if told else "it printed nothing"

    def check(self) -> None:
        """Raise Failure if the program has ended."""
        if self.process.poll() is not None:
            time.sleep(0.2)
            raise Failure(f"{self.name} ended with {self.process.returncode}: {self.last_words()}")

    def stop(self) -> None:
        """End the session, first as Ctrl+C would; returns when it has ended."""
        for number, wait_s in STOP_WAITS:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
            try:
                self.process.wait(wait_s)
                break
            except subprocess.TimeoutExpired:
                continue
        with contextlib.suppress(ProcessLookupError):  # what the leader left behind, such as heaptrack's pipe reader
            os.killpg(self.pid, signal.SIGKILL)
