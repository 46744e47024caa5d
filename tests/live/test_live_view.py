"""The live view of a real trace, on a real terminal (tmux): what it shows, keys, and how it leaves."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PATIENCE, ROOT
from tracer.recording import load

Build = Callable[..., Path]
#: Of the shell that the view is started in.
PROMPT = "ready>"


class Pane:
    """A terminal of 80 by 24, with a shell in it."""

    def __init__(self, folder: Path) -> None:
        self._socket = str(folder / "tmux")
        environment = {name: value for name, value in os.environ.items() if name not in ("TMUX", "NO_COLOR")}
        environment |= {"PYTHONPATH": str(ROOT), "LC_ALL": "C.UTF-8"}
        subprocess.run(["tmux", "-f", "/dev/null", "-S", self._socket, "new-session", "-d", "-x", "80", "-y", "24", "-c", str(folder),
                        "/bin/sh"], env=environment, check=True)

    def type(self, *keys: str) -> None:
        """Press keys, by their names in tmux, or texts."""
        self._tmux("send-keys", *keys)

    def lines(self) -> list[str]:
        """Return what is on the screen."""
        return self._tmux("capture-pane", "-p").splitlines()

    def until(self, wanted: Callable[[str], bool]) -> str:
        """Return the screen as soon as it is as wanted."""
        end = time.monotonic() + PATIENCE
        while not wanted(shown := "\n".join(self.lines())):
            assert time.monotonic() < end, shown
            time.sleep(0.1)
        return shown

    def state(self) -> str:
        """Return whether the other screen is on, the cursor shown, and the mouse taken."""
        return self._tmux("display-message", "-p", "#{alternate_on} #{cursor_flag} #{mouse_any_flag}").strip()

    def close(self) -> None:
        self._tmux("kill-server")

    def _tmux(self, *words: str) -> str:
        return subprocess.run(["tmux", "-S", self._socket, *words], capture_output=True, text=True, check=False).stdout


@pytest.fixture
def pane(tmp_path: Path) -> Iterator[Pane]:
    if shutil.which("tmux") is None:
        if os.environ.get("CI"):
            pytest.fail("there is no tmux")
        pytest.skip("there is no tmux")
    made = Pane(tmp_path)
    try:
        made.type(f"PS1='{PROMPT}'", "Enter")
        made.until(lambda shown: shown.rstrip().endswith(PROMPT))
        yield made
    finally:
        made.close()


def test_a_leak_is_seen_recorded_and_left(build: Build, run_program: Any, pane: Pane, tmp_path: Path) -> None:
    """A program's leak is named and grows, filters and stack work, s records; it ends, q leaves a clean terminal."""
    program = run_program(build("live_life.c"), "1")
    pane.type(shlex.join([sys.executable, "-m", "tracer.cli", "-p", str(program.pid), "--live", "0.5"]), "Enter")
    pane.until(lambda shown: "live_life (pid" in shown)
    program.work()
    shown = pane.until(lambda shown: "old_keeps" in shown)
    assert "2.9 kB held in 3 blocks" in shown and pane.state().startswith("1 ")
    pane.type("s")
    pane.until(lambda shown: "records leaktrace-" in shown)
    pane.type("/", "no-such-name")
    pane.until(lambda shown: "No site is like that" in shown)
    pane.type("C-u")
    pane.until(lambda shown: "No site is like that" not in shown)
    pane.type("old_k", "Enter")
    pane.until(lambda shown: "filter old_k" in shown and "2.9 kB" in shown.splitlines()[1])
    pane.type("Enter")
    shown = pane.until(lambda shown: "live_life.c:" in shown and "gained" in shown)
    assert "[live_life]" in shown
    assert program.finish() == 0
    pane.until(lambda shown: "it has ended" in shown)
    pane.type("q")
    shown = pane.until(lambda shown: shown.rstrip().endswith(PROMPT))
    assert "main" in shown
    pane.type("clear; echo code=$?; stty -a | grep -c ' echo ' ", "Enter")
    pane.until(lambda shown: "code=0" in shown and "\n1\n" in shown)
    assert pane.state() == "0 1 0"
    found = [each for each in os.listdir(tmp_path) if each.endswith(".leaktrace")]
    assert len(found) == 1
    report = load(str(tmp_path / found[0])).report()
    assert report.last and (report.totals.live_bytes, report.totals.live_count) == (3000, 3)


def test_killed_targets_and_errors(pane: Pane) -> None:
    """What cannot be traced is said in two sentences on the screen as it was, with exit code 3."""
    pane.type(shlex.join([sys.executable, "-m", "tracer.cli", "-p", "999999999", "--live"]) + "; echo code=$?", "Enter")
    shown = pane.until(lambda shown: "code=3" in shown)
    assert "leaktrace: " in shown and "Traceback" not in shown and pane.state() == "0 1 0"
