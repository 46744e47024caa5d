"""The programs that are traced: one row each, and what it is to have one running."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from benchmarks.child import Child, Failure
from benchmarks.redis_server import RedisUnderLoad

PYTHON = "/usr/bin/python3"
REDIS = "/usr/bin/redis-server"
PERL_HASHES = """\
use Time::HiRes qw(time);
$| = 1;
my ($start, $rounds) = (time, 0);
while (1) {
    my %record = map { ("key $_" => { name => "value $_", list => [1 .. 4] }) } 1 .. 200;
    $rounds++;
    my $elapsed = time - $start;
    next if $elapsed < 0.5;
    printf "rate %.3f\\n", $rounds / $elapsed;
    ($start, $rounds) = (time, 0);
}
"""


class Running(Protocol):
    """A workload at work."""

    @property
    def pid(self) -> int: ...

    def samples(self) -> list[tuple[float, float]]:
        """Return (time.monotonic at its end, operations per second) for each interval so far."""
        ...

    def check(self) -> None:
        """Raise Failure if it has ended."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class PrintingProgram(Child):
    """A program that prints "rate X" at each interval."""

    def samples(self) -> list[tuple[float, float]]:
        found = ((when, re.fullmatch(r"rate ([0-9.]+)", line)) for when, line in list(self.lines))
        return [(when, float(match[1])) for when, match in found if match]


Starter = Callable[[Path, Sequence[str], Mapping[str, str]], Running]


@dataclass(frozen=True, slots=True)
class Workload:
    """A program to trace. `start` gets the scratch folder, the command in front, and the environment."""

    name: str
    unit: str
    executable: str
    """Where the allocator library is looked up; {scratch} is the folder of the compiled programs."""
    start: Starter
    allocator: str = "libc.so.6"
    env: Mapping[str, str] = field(default_factory=dict)
    holds_blocks: bool = False
    """It holds blocks for longer than memleak's 500 ms, so a tool that reports nothing has found nothing."""

    def allocator_path(self, scratch: Path) -> Path:
        """Return the allocator's library file."""
        return shared_library(self.executable.format(scratch=scratch), self.allocator)


def shared_library(executable: str, soname: str) -> Path:
    """Return the file that the dynamic loader takes for a library of an executable."""
    listed = subprocess.run(["ldd", executable], capture_output=True, text=True, check=False).stdout
    match = re.search(rf"{re.escape(soname)} => (\S+)", listed)
    if not match:
        raise Failure(f"{executable} does not load {soname}")
    return Path(match[1]).resolve()


def _malloc_loop(scratch: Path, prefix: Sequence[str], env: Mapping[str, str]) -> Running:
    return PrintingProgram([*prefix, str(scratch / "malloc_loop")], env)


def _json(scratch: Path, prefix: Sequence[str], env: Mapping[str, str]) -> Running:
    return PrintingProgram([*prefix, python(), str(Path(__file__).with_name("json_program.py"))], env)


def _perl(scratch: Path, prefix: Sequence[str], env: Mapping[str, str]) -> Running:
    program = scratch / "hashes.pl"  # a file, because heaptrack fails on a command line with line breaks
    program.write_text(PERL_HASHES)
    return PrintingProgram([*prefix, "/usr/bin/perl", str(program)], env)


def _redis(scratch: Path, prefix: Sequence[str], env: Mapping[str, str]) -> Running:
    return RedisUnderLoad(scratch, prefix, env)


def _redis_on_libc(scratch: Path, prefix: Sequence[str], env: Mapping[str, str]) -> Running:
    """Start redis so that libc's malloc comes before jemalloc's, because memleak can trace only that."""
    folder = env.get("LD_LIBRARY_PATH")
    libc = Path(folder, "libc.so.6") if folder else shared_library(REDIS, "libc.so.6")
    preloaded = " ".join(filter(None, (env.get("LD_PRELOAD"), str(libc))))
    return RedisUnderLoad(scratch, prefix, {**env, "LD_PRELOAD": preloaded})


def python() -> str:
    """Return the distribution's Python, or the one that runs the bench."""
    return PYTHON if Path(PYTHON).exists() else sys.executable


WORKLOADS = (
    Workload("malloc loop", "pairs/s", "{scratch}/malloc_loop", _malloc_loop),
    Workload("python json", "documents/s", python(), _json, env={"PYTHONMALLOC": "malloc"}),
    Workload("perl hashes", "hashes/s", "/usr/bin/perl", _perl),
    Workload("redis", "requests/s", REDIS, _redis, "libjemalloc.so.2", holds_blocks=True),
    Workload("redis on libc", "requests/s", REDIS, _redis_on_libc, holds_blocks=True),
)


def first_sample(running: Running, timeout_s: float) -> float:
    """Wait until a workload has printed its first rate; return when that was."""
    deadline = time.monotonic() + timeout_s
    while not running.samples():
        running.check()
        if time.monotonic() > deadline:
            raise Failure(f"the workload told no rate within {timeout_s:.0f} s")
        time.sleep(0.02)
    return running.samples()[0][0]
