"""A run at a real terminal, into a pipe, and recorded; then named again from a debug file that came later."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.live.test_options import run_tool
from tests.live.test_run import Terminal

Build = Callable[..., Path]


@pytest.fixture(scope="module")
def stripped(build: Build, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A program without symbols, and the folder with its debug file."""
    program = build("late_names.cpp", "-Wl,--build-id")
    folder = tmp_path_factory.mktemp("late")
    for words in (["objcopy", "--only-keep-debug", str(program), str(folder / "kept.debug")],
                  ["strip", "-o", str(folder / "program"), str(program)]):
        subprocess.run(words, check=True)
    return folder / "program", folder


def shown(*words: str) -> tuple[int, str]:
    """Run leaktrace in a terminal of its own; return its exit code, and what is seen."""
    terminal = Terminal(*words)
    try:
        return terminal.rest(), terminal.text
    finally:
        terminal.close()


def test_at_a_terminal_and_into_a_pipe(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a terminal, a run is judged in colour, with the same figures that a pipe gets plain and without an escape."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    words = ("run", "--fail-on", "count>39", "--", str(build("late_names.cpp", "-Wl,--build-id")))
    code, seen = shown(*words)
    assert code == 23 and "\x1b[1;31mFAILED (count>39): " in seen and "\x1b[1mcompany::lose(unsigned long)" in seen
    assert "39 kB in 40 blocks" in re.sub(r"\x1b\[[0-9;]*m", "", seen)
    piped = run_tool(*words)
    assert piped.returncode == 23 and "\x1b" not in piped.stderr
    assert "\tFAILED (count>39): 40000 bytes in 40 allocations from stack\n" in piped.stderr


def test_names_that_come_later(stripped: tuple[Path, Path], tmp_path: Path) -> None:
    """What was recorded without names has functions, files, lines and inlined calls once the debug file is there."""
    program, folder = stripped
    recording = str(tmp_path / "recorded")
    assert run_tool("run", "--record", recording, "--", str(program)).returncode == 0
    before = run_tool("report", recording)
    assert "[program+0x" in before.stdout and "lose" not in before.stdout
    after = run_tool("report", recording, "--debug-dir", str(folder))
    assert re.search(r"\t40000 bytes in 40 allocations from stack.*\n\t\t\S+ .*take<char>.* \[inlined\] \[program\] \S*late_names\.cpp:\d+\n"
                     r"\t\t\S+ company::lose\(unsigned long\)\+0x\w+ \[program\] \S*late_names\.cpp:\d+\n"
                     r"\t\t\S+ main\+0x\w+ \[program\] \S*late_names\.cpp:\d+\n", after.stdout), after.stdout + after.stderr
    assert "named from 1 debug file" in after.stderr
