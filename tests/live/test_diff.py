"""Two builds of a program, each traced, and what the difference of the traces says."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PROGRAMS, ROOT

sys.path.insert(0, str(ROOT / "scripts"))

from browsing.chromium import Page, find

Diff = Callable[..., "subprocess.CompletedProcess[str]"]
PARSE, ADD, TABLES = (-20_000, -200), (4800, 100), (0, 0)


def leaktrace(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "tracer.cli", *map(str, words)], cwd=ROOT, capture_output=True, text=True,
                          check=False, timeout=60)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with before.leaktrace, after.leaktrace and before.json."""
    folder = tmp_path_factory.mktemp("diff")
    for name, options in (("before", ("-g", "-O2")), ("after", ("-g", "-O1", "-DFIXED"))):
        (folder / name).mkdir()
        program = folder / name / "server"
        subprocess.run(["g++", *options, "-o", program, PROGRAMS / "diff_builds.cpp"], check=True)
        trace = leaktrace("run", "--record", folder / f"{name}.leaktrace", "--", program)
        assert trace.returncode == 0, trace.stderr
    (folder / "before.json").write_text(leaktrace("report", folder / "before.leaktrace", "--format", "json").stdout)
    return folder


@pytest.fixture
def diff(traces: Path) -> Diff:
    """Return a function that runs `leaktrace diff` of the two with options."""
    return lambda *options: leaktrace("diff", traces / "before.leaktrace", traces / "after.leaktrace", *options)


def changes(answer: subprocess.CompletedProcess[str]) -> dict[str, tuple[str, int, int]]:
    """Return what became of the site of each of the program's functions that allocates, bytes and blocks."""
    said: dict[str, Any] = json.loads(answer.stdout)
    return {site["frames"][0]["function"]: (site["state"], site["change"]["bytes"], site["change"]["count"])
            for site in said["sites"] if site["frames"][0]["module"].endswith("/server")}


def test_sites_match_across_builds(diff: Diff, traces: Path) -> None:
    """A leak that was stopped is gone, one that was made is new, and what both hold is the same, to the byte."""
    wanted = {"parse(int)": ("gone", *PARSE), "Journal<int>::add(int)": ("new", *ADD), "tables()": ("same", *TABLES)}
    assert changes(diff("--format", "json")) == wanted
    mixed = leaktrace("diff", traces / "before.json", traces / "after.leaktrace", "--format", "json")
    assert changes(mixed) == wanted


def test_a_build_that_leaks_more_fails(diff: Diff) -> None:
    """A budget over what is new ends with 23, one that it keeps with 0."""
    failed = diff("--fail-on", "state==new and bytes>4k")
    assert (failed.returncode, failed.stdout.splitlines()[-1]) == (23, "FAILED: 1 site over budget")
    assert diff("--fail-on", "state==new and bytes>5k").returncode == 0
    assert diff("--fail-on", "total_bytes>0").returncode == 0


def test_pprof_reads_the_difference(diff: Diff, tmp_path: Path) -> None:
    """Go's pprof shows the same changes, and percentages of what was there before."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("this test needs go, of Debian's golang-go")
    assert diff("--format", "pprof", "-o", str(tmp_path / "p")).returncode == 0
    shown = subprocess.run([go, "tool", "pprof", "-symbolize=none", "-unit=bytes", "-top", "p"], cwd=tmp_path, check=True,
                           capture_output=True, text=True, timeout=30).stdout
    flat = {name: int(value) for value, name in re.findall(r"^ *(-?\d+)B? .*% +(\S+\(int\))$", shown, re.MULTILINE)}
    assert flat == {"parse(int)": PARSE[0], "Journal<int>::add(int)": ADD[0]}
    held = json.loads(diff("--format", "json").stdout)["before"]["totals"]["bytes"]
    assert f"{ADD[0] + PARSE[0]}B, {100 * (PARSE[0] + ADD[0]) / -held:.2f}% of {held}B total" in shown


def test_the_page_works_in_a_browser(diff: Diff, tmp_path: Path) -> None:
    """The page breaks no rule of its own policy, finds sites by name and sorts them by a column."""
    browser = find()
    if browser is None:
        pytest.skip("Chromium is not installed")
    path = tmp_path / "diff.html"
    assert diff("--format", "html", "-o", str(path)).returncode == 0
    shown = "[...document.querySelectorAll('#sites tbody tr')].filter(row => !row.hidden).map(row => row.querySelector('summary').textContent.split(' ')[0])"
    with Page(browser) as page:
        page.open(path)
        assert page.ask(shown)[0] == "parse(int)"
        page.ask("document.querySelectorAll('#sites th button')[2].click()")
        assert page.ask(shown)[0] == "Journal<int>::add(int)"
        page.ask("document.getElementById('find').focus()")
        page.type("tables")
        assert page.ask(shown) == ["tables()"]
        assert page.ask("document.querySelectorAll('svg g rect').length") >= 4
        assert page.problems() == []
        assert page.requests() == [path.resolve().as_uri()]
