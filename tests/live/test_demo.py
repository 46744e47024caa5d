"""`leaktrace demo` shows what its program's first comment says."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest


@pytest.fixture(scope="module")
def demo() -> subprocess.CompletedProcess[str]:
    if not shutil.which("gcc"):
        pytest.skip("the demo needs gcc")
    return subprocess.run([sys.executable, "-m", "tracer.cli", "demo"], capture_output=True, text=True, timeout=120,
                          check=False)


@pytest.fixture(scope="module")
def reports(demo: subprocess.CompletedProcess[str]) -> list[list[str]]:
    """Each report as the texts of its sites, first site first."""
    assert demo.returncode == 0, demo.stderr
    return [report.split(" allocations from stack")[1:] for report in demo.stdout.split("] Top ")[1:]]


def test_the_leak_comes_first(reports: list[list[str]]) -> None:
    """Both reports begin with the function that leaks, and name its caller and source line."""
    assert len(reports) == 2
    for first, *_ in reports:
        innermost, caller = [line for line in first.splitlines() if "[leaky-server]" in line][:2]
        assert "copy_header+" in innermost and " demo.c:" in innermost
        assert "handle_request+" in caller


def test_the_cache_comes_second(reports: list[list[str]]) -> None:
    """The cache that only grows is there, below the leak."""
    assert all("remember_user+" in sites[1] for sites in reports)


def test_what_is_freed_is_absent(reports: list[list[str]]) -> None:
    """The function whose allocations are all freed is in no report for good: a page may live while one is taken."""
    assert not all("render_page" in "".join(sites) for sites in reports)


def test_a_stranger_is_told_what_was_seen(demo: subprocess.CompletedProcess[str]) -> None:
    """At the end, stderr explains the report and names the next command; the report alone is on stdout."""
    assert demo.stderr.rstrip().endswith("sudo leaktrace -p PID")
    assert "What you saw" in demo.stderr and "What you saw" not in demo.stdout
