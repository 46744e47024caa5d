"""The tools that are scored, one row each, and a run of one on a program."""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import verdict_readings
from benchmarks.child import Child, Failure
from benchmarks.verdict_readings import Reader, Reading
from benchmarks.verdict_rows import LEAKTRACE, MEMLEAK

#: A tool's start on a busy machine and its last report, on top of the seconds that it traces.
AROUND_S = 60
#: The last lines may still be in a pipe when a tool has ended.
DRAIN_S = 0.5


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool; `command` has {leaktrace}, {pid} and {seconds} filled in."""

    name: str
    command: tuple[str, ...]
    read: Reader


TOOLS = (
    Tool(
        LEAKTRACE,
        ("{leaktrace}", "-p", "{pid}", "-d", "{seconds}", "--format", "json", "-T", "100", "{seconds}"),
        verdict_readings.leaktrace,
    ),
    Tool(MEMLEAK, ("/usr/sbin/memleak-bpfcc", "-p", "{pid}", "-T", "100", "{seconds}", "1"), verdict_readings.memleak),
)


class Runs:
    """Runs tools on programs built in a folder, several at once; used with `with`, at whose end nothing runs on."""

    def __init__(self, folder: Path, leaktrace: Path, seconds: int, added: Sequence[str]) -> None:
        self._folder, self._leaktrace, self._seconds, self._added = folder, leaktrace, seconds, tuple(added)
        self._libc = _libc()
        self._running: list[Child] = []
        self._lock = threading.Lock()
        self._ended = False

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._ended = True
            running = list(self._running)
        for child in running:
            child.stop()

    def run(self, name: str, tool: Tool) -> Reading:
        """Start a program and trace it from its start; return what the tool said at the end."""
        private = self._folder / f"{name}-{tool.name}"
        private.mkdir()
        shutil.copy2(self._libc, private)
        # A uprobe belongs to a file, and two tracers may not agree about one: BCC 0.26 gives a reference counter's
        # place that is left over on the stack, which the kernel refuses where a probe without one is there already.
        env = {"LD_LIBRARY_PATH": str(private)}
        try:
            with self._started([str(self._folder / name), str(self._seconds + AROUND_S)], env) as target:
                values = {"leaktrace": str(self._leaktrace), "pid": str(target.pid), "seconds": str(self._seconds)}
                words = [word.format_map(values) for word in tool.command]
                added = self._added if tool.name == LEAKTRACE else ()
                with self._started([*words, *added], {}) as tracer:
                    return self._read(tracer, tool)
        except Failure as failure:
            return Reading(error=str(failure))
        finally:
            shutil.rmtree(private)

    def _read(self, tracer: Child, tool: Tool) -> Reading:
        try:
            tracer.process.wait(self._seconds + AROUND_S)
        except subprocess.TimeoutExpired:
            return Reading(error=f"not done after {self._seconds + AROUND_S} s")
        time.sleep(DRAIN_S)
        return tool.read([line for _, line in tracer.lines])

    @contextlib.contextmanager
    def _started(self, command: Sequence[str], env: Mapping[str, str]) -> Iterator[Child]:
        with self._lock:
            if self._ended:
                raise Failure("the run was ended")
            child = Child(command, env)
            self._running.append(child)
        try:
            yield child
        finally:
            child.stop()
            with self._lock:
                self._running.remove(child)


def _libc() -> Path:
    """Return the C library that programs built here load."""
    told = subprocess.run(["gcc", "-print-file-name=libc.so.6"], capture_output=True, text=True, check=False).stdout
    found = Path(told.strip())
    if not found.is_absolute():
        raise Failure("gcc does not know where libc.so.6 is: apt install gcc libc6-dev")
    return found
