"""Where reports are laid out, and with what; elsewhere they stay as they are, and rich is not even imported."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import TextIO

import pytest

from tracer.report import judged, text
from tracer.report.terminal_look import LEAST, MOST, Look, judged_writer, look, text_writer

ROOT = Path(__file__).resolve().parents[4]
XTERM = {"TERM": "xterm"}


@pytest.fixture
def terminal() -> Iterator[TextIO]:
    """A terminal of 80 columns."""
    ours, theirs = pty.openpty()
    with os.fdopen(theirs, "w") as out:
        _resize(out, 80)
        yield out
    os.close(ours)


def _resize(out: TextIO, columns: int) -> None:
    subprocess.run(["stty", "cols", str(columns)], stdin=out, check=True)


@pytest.mark.parametrize(("color", "environ", "expected"), [
    ("auto", XTERM, Look(80, styles=True, colours=True)),
    ("auto", XTERM | {"NO_COLOR": "1"}, Look(80, styles=True, colours=False)),
    ("auto", XTERM | {"NO_COLOR": ""}, Look(80, styles=True, colours=True)),
    ("always", XTERM | {"NO_COLOR": "1"}, Look(80, styles=True, colours=True)),
    ("auto", {"TERM": "dumb"}, Look(80, styles=False, colours=False)),
    ("auto", {}, Look(80, styles=False, colours=False)),
    ("never", XTERM, Look(80, styles=False, colours=False)),
])  # fmt: skip
def test_at_a_terminal(terminal: TextIO, color: str, environ: dict[str, str], expected: Look) -> None:
    """Colour is for terminals that have it, unless NO_COLOR is set to something, or the command line says otherwise."""
    assert look(terminal, color, environ=environ) == expected


@pytest.mark.parametrize(("columns", "width"), [(20, LEAST), (132, 132), (500, MOST)])
def test_width(terminal: TextIO, columns: int, width: int) -> None:
    """It is the terminal's, within what a table can use."""
    _resize(terminal, columns)
    found = look(terminal, environ=XTERM)
    assert found is not None and found.width == width


def test_elsewhere() -> None:
    """Into a pipe or a file goes the plain report, unless colour is asked for."""
    out = StringIO()
    assert look(out, "auto") is None and look(out, "never") is None
    assert text_writer(out) is text.write and judged_writer(out) is judged.write
    assert look(out, "always", environ={"COLUMNS": "99"}) == Look(99, styles=True, colours=True)


@pytest.mark.parametrize("columns", ["x", "", "9" * 40])
def test_into_a_pager(terminal: TextIO, monkeypatch: pytest.MonkeyPatch, columns: str) -> None:
    """What goes into a pager in colour is as wide as the terminal that errors go to, where COLUMNS does not say."""
    _resize(terminal, 99)
    monkeypatch.setattr(sys, "stderr", terminal)
    assert look(StringIO(), "always", environ={"COLUMNS": columns}) == Look(99, styles=True, colours=True)
    monkeypatch.setattr(sys, "stderr", StringIO())
    assert look(StringIO(), "always", environ={"COLUMNS": columns}) == Look(80, styles=True, colours=True)


def test_rich_is_imported_for_terminals_only() -> None:
    """No command that writes elsewhere pays for it."""
    program = ("import io, sys, tracer.cli.console, tracer.cli.gated, tracer.cli.kernel_running, tracer.cli.report\n"
               "from tracer.report.terminal_look import judged_writer, text_writer\n"
               "text_writer(io.StringIO()); judged_writer(io.StringIO())\n"
               "assert not [name for name in sys.modules if name.partition('.')[0] == 'rich'], 'piped'\n"
               "text_writer(io.StringIO(), 'always')\n"
               "assert 'rich' in sys.modules, 'this test looks for the wrong name'\n")
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True, timeout=60)
