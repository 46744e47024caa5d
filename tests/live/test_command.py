"""-c: the command is started as a shell would, is traced from its first instruction, and is left alone otherwise."""

from __future__ import annotations

import json
import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import LONG, ROOT, Starter, site
from tests.live.test_options import run_tool

Build = Callable[..., Path]
#: Often enough that a race which is lost now and then is seen.
RUNS = 20 if LONG else 4


def reports(stdout: str) -> list[dict[str, Any]]:
    """Return the JSON documents among the lines of stdout, which a command may share."""
    return [json.loads(line) for line in stdout.splitlines() if line.startswith('{"schema"')]


def trace_command(*words: str | Path) -> dict[str, Any]:
    """Run a command under leaktrace to its end and return the last report."""
    answer = run_tool("-c", shlex.join(map(str, words)), "--format", "json", "-T", "1000", "3600")
    assert answer.returncode == 0, answer.stderr
    last = reports(answer.stdout)[-1]
    assert last["last"]
    return last


def early(report: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """Return what the three early places hold."""
    return {name: site(report, name).live for name in ("library_constructor", "Early::Early", "main")}


def test_constructors_are_traced_every_time(build: Build) -> None:
    """Blocks of a library's constructor, a global object's and main's first line are all there, in each of many runs."""
    library = build("live_early.c", "-shared", "-fPIC", name="live_early.so")
    program = build("live_first.cpp", "-Wl,--no-as-needed", str(library), f"-Wl,-rpath,{library.parent}")
    found = [early(trace_command(program)) for _ in range(RUNS)]
    assert found == [{"library_constructor": (1111, 1), "Early::Early": (2222, 1), "main": (3333, 1)}] * RUNS


@pytest.mark.parametrize("flags", [("-static",), ("-static-pie", "-fPIE")], ids=["static", "static_pie"])
def test_static_programs_are_traced_from_their_start(build: Build, flags: tuple[str, ...]) -> None:
    """A program that no dynamic loader starts is complete too."""
    report = trace_command(build("live_first.cpp", *flags))
    assert early(report) == {"library_constructor": (0, 0), "Early::Early": (2222, 1), "main": (3333, 1)}


def test_quotes_are_a_shells() -> None:
    """Words in quotes stay whole, also quotes within quotes."""
    answer = run_tool("-c", """sh -c 'echo "a  b"; echo "$0 $1"' "c  d" e""")
    assert answer.stdout.startswith("a  b\nc  d e\n"), answer.stdout
    assert answer.returncode == 0 and "outstanding allocations" in answer.stdout


def test_the_command_has_leaktraces_streams() -> None:
    """The command reads leaktrace's stdin, and writes to its stdout and stderr."""
    answer = run_tool("-c", "sh -c 'cat; echo done >&2'", stdin="first line\nsecond line\n")
    assert answer.stdout.startswith("first line\nsecond line\n") and answer.returncode == 0
    assert "done" in answer.stderr.splitlines()


def test_the_command_has_leaktraces_environment_and_directory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Variables and the working directory are passed on, and a pipe that nobody reads ends the command as usual."""
    monkeypatch.setenv("LIVE_TEST_WORD", "here")
    answer = run_tool("-c", "sh -c 'echo $LIVE_TEST_WORD; pwd; grep SigIgn /proc/self/status'")
    word, folder, ignored = answer.stdout.splitlines()[:3]
    assert (word, folder) == ("here", str(ROOT))
    assert not int(ignored.split()[1], 16) >> (signal.SIGPIPE - 1) & 1


def test_a_command_that_ends_at_once_gives_a_report() -> None:
    """`true` is over before anybody can look, and is reported on: with totals, exit code 0."""
    report = trace_command("true")
    assert report["target"]["comm"] and report["target"]["exe"]
    assert report["totals"]["live_count"] >= 0 and report["losses"] == {}


@pytest.mark.parametrize("command", ["false", "sh -c 'exit 7'", "sh -c 'kill -9 $$'"])
def test_a_commands_own_failure_is_not_leaktraces(command: str) -> None:
    """However the command ends, the trace was done: a last report and exit code 0."""
    answer = run_tool("-c", command, "--format", "json")
    assert answer.returncode == 0, answer.stderr
    assert [each["last"] for each in reports(answer.stdout)] == [True]


def test_nobody_traces_the_command_once_it_runs(build: Build, leaktrace: Starter) -> None:
    """Once it runs, the command has no debugger while it is traced, so that another one may be attached."""
    trace, program = leaktrace.command([build("live_sizes.c")])
    (pid,) = Path(f"/proc/{trace.process.pid}/task/{trace.process.pid}/children").read_text().split()
    assert "TracerPid:\t0\n" in Path(f"/proc/{pid}/status").read_text()
    program.work()
    # The command outlives the trace, and goes on.
    assert trace.stop().report["target"]["pid"] == int(pid)
    program.work()


def make_script(folder: Path, text: str, mode: int = 0o755) -> Path:
    """Write a file that a command line could name."""
    script = folder / "script"
    script.write_text(text)
    script.chmod(mode)
    return script


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        pytest.param("echo hello\n", 0o755, id="no_interpreter_line"),
        pytest.param("#!/nonexistent/interpreter\n", 0o755, id="no_such_interpreter"),
        pytest.param("", 0o755, id="empty"),
        pytest.param("\x7fELF and nothing more", 0o755, id="damaged_elf"),
        pytest.param("#!/bin/sh\n", 0o644, id="not_executable"),
    ],
)
def test_a_command_that_cannot_start_is_named(tmp_path: Path, text: str, mode: int) -> None:
    """What the kernel refuses to execute gives exit code 3 and two sentences that name it, and leaves no process."""
    script = make_script(tmp_path, text, mode)
    answer = run_tool("-c", str(script))
    assert answer.returncode == 3 and answer.stdout == ""
    assert str(script) in answer.stderr and "Traceback" not in answer.stderr
    assert len(answer.stderr.splitlines()) >= 2
    assert not [entry for entry in os.listdir("/proc") if entry.isdecimal() and names_script(entry, script)]


def names_script(pid: str, script: Path) -> bool:
    """Whether a process has the script among its words."""
    try:
        return str(script).encode() in Path("/proc", pid, "cmdline").read_bytes().split(b"\0")
    except OSError:
        return False


@pytest.mark.parametrize(
    ("command", "word"),
    [("no-such-command-here", "no-such-command-here"), ("/no/such/file --option", "/no/such/file"), ("/", "/"),
     ("'unfinished", "quotes"), ("", "-c"), ("   ", "empty")],
)
def test_a_command_that_does_not_exist_is_named(command: str, word: str) -> None:
    """Exit code 2 or 3, one sentence that names the command and one that helps; nothing on stdout."""
    answer = run_tool("-c", command)
    assert answer.returncode in (2, 3) and answer.stdout == ""
    assert word in answer.stderr and "Traceback" not in answer.stderr
    assert len(answer.stderr.splitlines()) >= 2
