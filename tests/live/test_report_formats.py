"""What was recorded of a real program says the same in every format, also to the programs that read them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from prometheus_client.openmetrics import parser

from tests.live.conftest import PROGRAMS, ROOT, RunningProgram, Starter

Report = Callable[[str], bytes]
#: It ships types, and none for this.
parse: Callable[[str], Any] = parser.text_string_to_metric_families
CALLS = ["main", "main_step", "shelve", "store", "stack"]
"""Outermost first; the last three are at one address."""
SIZE = 3001


@pytest.fixture
def report(leaktrace: Starter, run_program: Callable[..., RunningProgram], build: Callable[..., Path], tmp_path: Path) -> Report:
    """Return a function that gives a recording of the program as `leaktrace report` writes it in a format."""
    program = run_program(build("symbols_debug.cpp"))
    recording = tmp_path / "trace.leaktrace"
    trace = leaktrace.attach(program, "--record", str(recording))
    assert program.work() == [{"bytes": SIZE}]
    assert trace.stop().returncode == 0

    def written(form: str) -> bytes:
        words = [sys.executable, "-m", "tracer.cli", "report", str(recording), "--format", form]
        answer = subprocess.run(words, cwd=ROOT, capture_output=True, check=False, timeout=30)
        assert answer.returncode == 0, answer.stderr
        return answer.stdout

    return written


def lines_of_program() -> dict[str, int]:
    """Return the line of each call, as it is marked in the program's text."""
    text = (PROGRAMS / "symbols_debug.cpp").read_text().splitlines()
    return {found[1]: number for number, line in enumerate(text, 1) if (found := re.search(r"/\* line: (\w+) \*/", line))}


def test_every_format_says_the_same(report: Report, tmp_path: Path) -> None:
    """Stack, bytes and lines of one block are the same to pprof, in folded stacks, speedscope, the SVG and metrics."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("this test needs go, of Debian's golang-go")
    (tmp_path / "profile").write_bytes(report("pprof"))
    command = [go, "tool", "pprof", "-symbolize=none", "-raw", "profile"]
    raw = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True, timeout=30).stdout
    (sample,) = re.findall(rf" 1 +{SIZE} +1 +{SIZE}: ([\d ]+)", raw)
    inner, *_ = sample.split()
    block = raw[raw.index("Locations") :]
    (location,) = re.findall(rf"^ +{inner}: 0x[0-9a-f]+ M=\d+ (.+\n(?: {{10,}}.+\n)*)", block, re.MULTILINE)
    names = [line.split()[0].partition("(")[0] for line in location.splitlines()]
    assert names == CALLS[:-4:-1]
    assert [int(line) for line in re.findall(r"\.cpp:(\d+)", location)] == [lines_of_program()[name] for name in names]

    (folded,) = [line for line in report("folded").decode().splitlines() if line.endswith(f" {SIZE}")]
    assert [name.partition("(")[0] for name in folded.rpartition(" ")[0].split(";")][-5:] == CALLS
    scope = json.loads(report("speedscope"))
    place = scope["profiles"][0]["weights"].index(SIZE)
    frames = [scope["shared"]["frames"][frame] for frame in scope["profiles"][0]["samples"][place]][-5:]
    assert [(frame["name"].partition("(")[0], frame["line"]) for frame in frames] == [
        (name, lines_of_program()[name]) for name in CALLS]
    titles = [element.text or "" for element in ElementTree.fromstring(report("flamegraph")).iter("{http://www.w3.org/2000/svg}title")]
    assert any(title.split("\n")[:1] == ["stack"] and "\n2.9 kB, " in title for title in titles)
    families = {each.name: each for each in parse(report("openmetrics").decode())}
    (value,) = [each.value for each in families["leaktrace_site_live_bytes"].samples if each.labels["function"] == "stack"]
    assert value == SIZE
