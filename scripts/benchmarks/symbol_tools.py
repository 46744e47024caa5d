"""The symbolizers that are compared: one row each, and what is measured of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.child import Child, Failure
from benchmarks.symbol_process import Finished, answer_times, run
from benchmarks.symbol_requests import Request

HERE = Path(__file__).resolve().parent
SYSTEM_PYTHON = "/usr/bin/python3"
CACHE = "LEAKTRACE_CACHE"
_HOLD = """\
import mmap, sys
held = []
for path in sys.argv[1:]:
    with open(path, "rb") as file:
        held.append(mmap.mmap(file.fileno(), 0, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_EXEC))
print("held", flush=True)
sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class Job:
    """What is asked in one experiment: `primes` are asked before where a running symbolizer is measured."""

    requests: tuple[Request, ...]
    primes: tuple[Request, ...] = ()
    pid: int = 0
    mapped: Mapping[str, int] = field(default_factory=dict)
    """A process that has the files mapped as a whole, and where."""

    @property
    def path(self) -> str:
        """Return the file of the first request."""
        return self.requests[0].path


@dataclass(frozen=True, slots=True)
class Tool:
    """A symbolizer: `command` and `line` (one request as it reads it) are made from the job.

    `tells` is a program of ours that measures what it does while it runs; `answers` ends each answer with an empty
    line; `caches` keeps files in $LEAKTRACE_CACHE; `one_file` takes one file a process.
    """

    name: str
    command: Callable[[Job], Sequence[str]]
    line: Callable[[Job, Request], str]
    present: Callable[[], bool]
    remedy: str
    tells: bool = False
    answers: bool = False
    caches: bool = False
    one_file: bool = False
    named: str = r"(?:\A|\n\n)(?!\?\?)[^\n]"
    """Matches once for each address that has a name in the output."""
    note: str = ""

    def asked(self, job: Job, requests: Sequence[Request]) -> list[str]:
        """Return the lines for standard input."""
        return [self.line(job, one) for one in requests]


def _has_bcc() -> bool:
    command = [SYSTEM_PYTHON, "-c", "import bcc"]
    return Path(SYSTEM_PYTHON).exists() and subprocess.run(command, capture_output=True, check=False).returncode == 0


LEAKTRACE = Tool(
    "leaktrace",
    lambda _: (sys.executable, str(HERE / "symbol_leaktrace.py")),
    lambda _, one: str(one),
    lambda: True,
    "",
    tells=True,
    caches=True,
    note="peak memory of its largest process",
)
LLVM = Tool(
    "llvm-symbolizer --inlines",
    lambda _: ("llvm-symbolizer", "--inlines"),
    lambda _, one: f'"{one.path}" {one.vaddr:#x}',
    lambda: shutil.which("llvm-symbolizer") is not None,
    "apt install llvm",
    answers=True,
)
TOOLS = (
    LEAKTRACE,
    LLVM,
    Tool(
        "addr2line -ifC",
        lambda job: ("addr2line", "-aifC", "-e", job.path),
        lambda _, one: f"{one.vaddr:#x}",
        lambda: shutil.which("addr2line") is not None,
        "apt install binutils",
        one_file=True,
        named=r"(?m)^0x[0-9a-f]+\n(?!\?\?)",
    ),
    Tool(
        "BCC's sym()",
        lambda job: (SYSTEM_PYTHON, str(HERE / "symbol_bcc.py"), str(job.pid)),
        lambda job, one: f"{job.mapped[one.path] + one.offset:#x}",
        _has_bcc,
        "apt install python3-bpfcc",
        tells=True,
        named=r"(?m)^(?!\[unknown\])[^\n]",
        note="names only",
    ),
)


@contextmanager
def holding(job: Job) -> Iterator[Job]:
    """Yield the job with a process that has its files mapped, which BCC asks for."""
    paths = sorted({one.path for one in job.requests})
    with Child([SYSTEM_PYTHON, "-c", _HOLD, *paths], stdin=True) as child:
        child.wait_for("^held", 30)
        mapped = whole_mappings(Path(f"/proc/{child.pid}/maps").read_text())
        missing = [path for path in paths if path not in mapped]
        if missing:
            raise Failure(f"not mapped: {', '.join(missing)}")
        yield Job(job.requests, job.primes, child.pid, mapped)


def whole_mappings(maps: str) -> dict[str, int]:
    """Return path → address of the executable mappings that begin at the file's begin, from /proc/PID/maps."""
    found = re.findall(r"^([0-9a-f]+)-\S+ r-x. 0{8} \S+ \d+ +(/.*)$", maps, re.MULTILINE)
    return {path: int(address, 16) for address, path in found}


def measure(tool: Tool, job: Job, what: Sequence[str]) -> dict[str, float]:
    """Return a measurement by name for those of `what` that the tool can do; see PHASES."""
    found: dict[str, float] = {}
    # The cache is empty in the first process, and has what that left in the second.
    with tempfile.TemporaryDirectory(prefix="leaktrace-bench-") as cache:
        env = {CACHE: cache} if tool.caches else {}
        for name in what:
            found.update(PHASES[name](tool, job, env))
    return found


def _whole(tool: Tool, job: Job, env: Mapping[str, str]) -> Finished:
    return run(tool.command(job), "".join(f"{line}\n" for line in tool.asked(job, job.requests)), env)


def _first(tool: Tool, job: Job, env: Mapping[str, str]) -> dict[str, float]:
    done = _whole(tool, job, env)
    return {"first name": done.first_line_s, **_also(tool, done)}


def _cold(tool: Tool, job: Job, env: Mapping[str, str]) -> dict[str, float]:
    done = _whole(tool, job, env)
    return {"cold": done.seconds, **_also(tool, done)}


def _also(tool: Tool, done: Finished) -> dict[str, float]:
    return {"peak": done.peak_mb, "named": len(re.findall(tool.named, done.output))}


def _second(tool: Tool, job: Job, env: Mapping[str, str]) -> dict[str, float]:
    return {"second process": _whole(tool, job, env).seconds} if tool.caches else {}


def _again(tool: Tool, job: Job, env: Mapping[str, str]) -> dict[str, float]:
    return _running(tool, job, job.requests, "again", env)


def _opened(tool: Tool, job: Job, env: Mapping[str, str]) -> dict[str, float]:
    return _running(tool, job, job.primes, "files open", env)


PHASES = {"first name": _first, "cold": _cold, "second process": _second, "again": _again, "files open": _opened}


def _running(
    tool: Tool, job: Job, before: Sequence[Request], name: str, env: Mapping[str, str]
) -> dict[str, float]:
    """Return the seconds for all requests in a process that has answered those before."""
    first, then = tool.asked(job, before), tool.asked(job, job.requests)
    if tool.answers:
        return {name: answer_times(tool.command(job), (first, then))[1]}
    if not tool.tells:
        return {}
    lines = "".join(f"{line}\n" for line in first + then)
    done = run([*tool.command(job), "--primes", str(len(first))], lines, env)
    took = re.search(r"^took ([0-9.]+)$", done.told, re.MULTILINE)
    if took is None:
        raise Failure(f"{tool.name} told no time")
    return {name: float(took[1])}
