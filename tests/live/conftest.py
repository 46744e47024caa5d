"""What live tests share: programs that wait for each step, a leaktrace of each, and the rule about skipping.

A program of tests/programs prints "ready" and does nothing until it is sent a line; it prints what it did as JSON
lines, "end" behind the last one, and waits again while the report is taken. So no test depends on a pause.
"""

from __future__ import annotations

import json
import os
import queue
import shlex
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = ROOT / "tests" / "programs"
#: Seconds until a step that never comes is a failure; the slowest takes a few.
#: In a machine that is software itself (scripts/test-kernels), attaching takes over 30 s.
PATIENCE = 300 if os.environ.get("LEAKTRACE_GUEST") else 30
#: Whether all repeats and all combinations run, as before a release, or enough of them for every change.
LONG = bool(os.environ.get("LEAKTRACE_LONG"))
#: An interval that no test reaches: the one report is the last.
NEVER = "3600"
#: As many sites as a test program can have, each stack its own, so that a report shows all as they were recorded.
ALL_SITES = ("-T", "10000", "--raw-stacks")


def why_not_live() -> str | None:
    """Return why live tests cannot run here, or None."""
    if os.geteuid() != 0:
        return "live tests need root"
    try:
        from tracer.attach.kernel import choose_attach_way

        choose_attach_way()
    except ImportError as problem:
        return f"live tests need BCC for Python: {problem}"
    except Exception as problem:
        return f"live tests need BPF and uprobes: {problem}"
    return None


@pytest.fixture(scope="session")
def _obstacle() -> str | None:
    return why_not_live()


@pytest.fixture(autouse=True)
def _live(_obstacle: str | None) -> None:
    if _obstacle:
        pytest.skip(_obstacle)


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known by which scripts/test finds what may not run beside other tests."""
    config.addinivalue_line("markers", "alone: measures, selects among all processes, or needs a quick answer, so that "
                                       "nothing else may run meanwhile")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    """Make a skipped live test a failure where CI is set: there, nobody reads which tests did not run."""
    outcome = yield
    report = outcome.get_result()
    if os.environ.get("CI") and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = (f"This live test could not run, and CI is set, so that is a failure: "
                           f"{reason.removeprefix('Skipped: ')}")


class Lines:
    """Lines of a pipe as they come, each waited for with patience."""

    def __init__(self, pipe: IO[str]) -> None:
        self.seen: list[str] = []
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._read, args=(pipe,), daemon=True)
        self._thread.start()

    def _read(self, pipe: IO[str]) -> None:
        for line in pipe:
            self._queue.put(line.rstrip("\n"))
        self._queue.put(None)

    def next(self) -> str | None:
        """Return the next line, None at the end."""
        try:
            line = self._queue.get(timeout=PATIENCE)
        except queue.Empty:
            raise AssertionError(f"no line came for {PATIENCE} s; the last ones were {self.seen[-5:]}") from None
        if line is None:
            self._queue.put(None)
        else:
            self.seen.append(line)
        return line

    def until(self, wanted: Callable[[str], bool]) -> list[str]:
        """Return the lines up to the wanted one, which is the last of them."""
        lines: list[str] = []
        while not lines or not wanted(lines[-1]):
            line = self.next()
            assert line is not None, "ended before the line that was waited for: " + "\n".join(self.seen[-6:])
            lines.append(line)
        return lines

    def rest(self) -> list[str]:
        """Return all lines up to the end."""
        lines: list[str] = []
        while (line := self.next()) is not None:
            lines.append(line)
        return lines


class Conversation:
    """Both ends of a test program: it waits for go(), and truth() is what it then says it did."""

    def __init__(self, lines: Lines, stdin: IO[str]) -> None:
        self._lines, self._stdin = lines, stdin

    def wait_ready(self) -> None:
        """Wait until the program has started and waits."""
        self._lines.until(lambda line: line == "ready")

    def go(self) -> None:
        """Send the line that the program waits for."""
        self._stdin.write("\n")
        self._stdin.flush()

    def truth(self) -> list[dict[str, Any]]:
        """Return the JSON lines up to "end"."""
        lines = self._lines.until(lambda line: line == "end")
        return [json.loads(line) for line in lines if line.startswith("{")]

    def work(self) -> list[dict[str, Any]]:
        """Have the program do its next step and return what it says about it."""
        self.go()
        return self.truth()


class RunningProgram(Conversation):
    """A test program of its own, ended with the test."""

    def __init__(self, words: Sequence[str], environment: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        env={**os.environ, **environment})
        assert self.process.stdin and self.process.stdout
        super().__init__(Lines(self.process.stdout), self.process.stdin)
        self.pid = self.process.pid

    def finish(self) -> int:
        """Let it come to its end; return its exit code (negative: the signal)."""
        self.go()
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


@dataclass(frozen=True, slots=True)
class Result:
    """What a leaktrace said: its reports, its other lines, its exit code."""

    reports: list[dict[str, Any]]
    stderr: str
    returncode: int

    @property
    def report(self) -> dict[str, Any]:
        """The last report, of a run that worked."""
        assert self.returncode == 0 and self.reports, f"exit code {self.returncode}: {self.stderr}"
        return self.reports[-1]


@dataclass(slots=True)
class Figures:
    """Sums over sites."""

    bytes: int = 0
    count: int = 0
    allocated_bytes: int = 0
    allocated_count: int = 0
    freed_count: int = 0
    sites: list[dict[str, Any]] = field(default_factory=list)

    @property
    def live(self) -> tuple[int, int]:
        return self.bytes, self.count


def functions(site: dict[str, Any]) -> list[str]:
    """Return the functions of a site innermost first, without their parameters."""
    return [frame["function"].partition("(")[0] for frame in site["frames"] if frame["function"]]


def site(report: dict[str, Any], *wanted: str) -> Figures:
    """Sum over the sites that have one of these functions among their frames."""
    total = Figures()
    for each in report["sites"]:
        if set(wanted) & set(functions(each)):
            for name in ("bytes", "count", "allocated_bytes", "allocated_count", "freed_count"):
                setattr(total, name, getattr(total, name) + each[name])
            total.sites.append(each)
    return total


class Trace:
    """A leaktrace that runs."""

    def __init__(self, arguments: Sequence[str], *, stdin: int = subprocess.DEVNULL) -> None:
        words = [sys.executable, "-m", "tracer.cli", *arguments, "--format", "json", *ALL_SITES]
        self.process = subprocess.Popen(words, cwd=ROOT, stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                        text=True)
        assert self.process.stdout and self.process.stderr
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)

    def wait_attached(self) -> None:
        """Wait until everything allocated from now on is seen."""
        self.err.until(lambda line: "last report" in line)

    def next_report(self) -> dict[str, Any]:
        """Wait for one more report."""
        document: dict[str, Any] = json.loads(self.out.until(lambda line: line.startswith('{"schema"'))[-1])
        return document

    def stop(self) -> Result:
        """Have it take its last report and end."""
        self.process.send_signal(signal.SIGTERM)
        return self.wait()

    def wait(self) -> Result:
        """Wait for its own end. Of a command it started, the pipe may stay open: so its lines end with the report."""
        code = self.process.wait(PATIENCE)
        stderr = "\n".join([*self.err.seen, *self.err.rest()]) if not self.is_shared else "\n".join(self.err.seen)
        if code == 0:
            self.out.until(lambda line: line.startswith('{"schema"') and json.loads(line)["last"])
        reports = [json.loads(line) for line in self.out.seen if line.startswith('{"schema"')]
        return Result(reports, stderr, code)

    @property
    def is_shared(self) -> bool:
        """Whether a command has the same pipes."""
        return self.process.stdin is not None

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


class TracedCommand(Conversation):
    """A test program that leaktrace started; they share their pipes."""

    def __init__(self, trace: Trace) -> None:
        assert trace.process.stdin
        super().__init__(trace.out, trace.process.stdin)
        self.trace = trace

    def close(self) -> None:
        # Whoever reads the end of its input ends.
        assert self.trace.process.stdin
        self.trace.process.stdin.close()


@dataclass(slots=True)
class Starter:
    """Starts leaktraces, and ends them with the test."""

    open: list[Any] = field(default_factory=list)

    def __call__(self, *arguments: str) -> Result:
        """Run leaktrace to its end."""
        result: Result = self._keep(Trace(arguments)).wait()
        return result

    def attach(self, program: RunningProgram | int, *arguments: str, interval: str = NEVER) -> Trace:
        """Start a leaktrace of a program or a pid, and return when it is attached."""
        pid = program if isinstance(program, int) else program.pid
        trace: Trace = self._keep(Trace(("-p", str(pid), *arguments, interval)))
        trace.wait_attached()
        return trace

    def command(self, words: Sequence[str | Path], *arguments: str) -> tuple[Trace, TracedCommand]:
        """Start a program under leaktrace, and return when it waits."""
        command = shlex.join(str(word) for word in words)
        trace = self._keep(Trace(("-c", command, *arguments, NEVER), stdin=subprocess.PIPE))
        program = self._keep(TracedCommand(trace))
        program.wait_ready()
        trace.wait_attached()
        return trace, program

    def _keep(self, one: Any) -> Any:
        self.open.append(one)
        return one


class RunningTool:
    """A `leaktrace run` under way, whose command is talked to through its pipes."""

    def __init__(self, *words: str | Path) -> None:
        self.process = subprocess.Popen([sys.executable, "-m", "tracer.cli", "run", *map(str, words)], cwd=ROOT, stdin=subprocess.PIPE, text=True,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdin and self.process.stdout and self.process.stderr
        self.stdin = self.process.stdin
        self.out, self.err = Lines(self.process.stdout), Lines(self.process.stderr)

    def go(self) -> None:
        """Send the command the line that it waits for."""
        self.stdin.write("\n")
        self.stdin.flush()

    def wait(self) -> tuple[int, str]:
        """Wait for its end; return the exit code and all of stderr."""
        code = self.process.wait(PATIENCE)
        self.err.rest()
        return code, "\n".join(self.err.seen)

    def close(self) -> None:
        # A command that outlives it reads the end of its input.
        self.stdin.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(PATIENCE)


@pytest.fixture
def start() -> Iterator[Callable[..., RunningTool]]:
    """Return a function that starts `leaktrace run`, which is ended with the test."""
    running: list[RunningTool] = []

    def begin(*words: str | Path) -> RunningTool:
        running.append(RunningTool(*words))
        return running[-1]

    try:
        yield begin
    finally:
        for one in running:
            one.close()


@pytest.fixture
def leaktrace() -> Iterator[Starter]:
    """leaktrace(*arguments) runs it to its end; .attach() and .command() start one that is stopped later."""
    starter = Starter()
    try:
        yield starter
    finally:
        for one in reversed(starter.open):
            one.close()


@pytest.fixture
def run_program() -> Iterator[Callable[..., RunningProgram]]:
    """Return a function that starts a test program, and returns when it waits for its first line."""
    running: list[RunningProgram] = []

    def start(*words: str | Path, **environment: str) -> RunningProgram:
        program = RunningProgram([str(word) for word in words], environment)
        running.append(program)
        program.wait_ready()
        return program

    try:
        yield start
    finally:
        for program in running:
            program.close()


@pytest.fixture(scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def nothing_known(_own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no table of lines kept from an earlier run, and no server asked; compiled BPF programs are kept."""
    shutil.rmtree(_own_cache / "lines", ignore_errors=True)
    monkeypatch.setenv("LEAKTRACE_CACHE", str(_own_cache))
    monkeypatch.delenv("DEBUGINFOD_URLS", raising=False)


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that compiles a program of tests/programs once per session."""
    built: dict[tuple[str, ...], Path] = {}

    def compile_program(source: str, *flags: str, compiler: str | None = None, name: str | None = None) -> Path:
        compiler = compiler or ("g++" if source.endswith(".cpp") else "gcc")
        key = (source, compiler, name or "", *flags)
        if key not in built:
            if shutil.which(compiler) is None:
                pytest.skip(f"{source} needs {compiler}")
            program = tmp_path_factory.mktemp("program") / (name or Path(source).stem)
            answer = subprocess.run([compiler, "-O2", "-g", "-Wall", str(PROGRAMS / source), "-o", str(program), *flags],
                                    capture_output=True, text=True, check=False)
            assert answer.returncode == 0, answer.stderr
            built[key] = program
        return built[key]

    return compile_program
