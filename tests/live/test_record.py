"""--record and leaktrace report: what was recorded as root is read by a user without rights and BCC, as it was shown."""

from __future__ import annotations

import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import PATIENCE, ROOT, Starter, site
from tests.live.test_exact import assert_sites_exact
from tests.live.test_options import run_tool
from tests.live.test_run import run
from tracer.recording import load

Build = Callable[..., Path]
NOBODY = 65534
#: leaktrace in a Python that has no BCC, as a user who may nothing.
READS = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--", sys.executable, "-c",
         "import sys; sys.modules['bcc'] = None; from tracer.cli import run; run()")


@pytest.fixture
def path(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file in a folder of the user who, as leaktrace is told, called sudo: nobody."""
    folder = Path(tempfile.mkdtemp(prefix="leaktrace-test-"))
    os.chown(folder, NOBODY, NOBODY)
    monkeypatch.setenv("SUDO_UID", str(NOBODY))
    monkeypatch.setenv("SUDO_GID", str(NOBODY))
    try:
        yield folder / "trace.leaktrace"
    finally:
        shutil.rmtree(folder)


def read(path: Path, *options: str) -> tuple[list[dict[str, Any]], str]:
    """Return the reports that nobody reads in a recording, and what is said beside."""
    answer = subprocess.run([*READS, "report", str(path), "--format", "json", *options], cwd=ROOT, capture_output=True,
                            text=True, timeout=PATIENCE, check=False, stdin=subprocess.DEVNULL)
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()], answer.stderr


def as_read(report: dict[str, Any]) -> dict[str, Any]:
    """Return a report without what a recording has only nearly: ages of sites that are not among the first."""
    for rank, each in enumerate(report["sites"]):
        if rank >= 100:
            each |= {"oldest_s": None, "evidence": None, "confidence": None, "slope_bytes_per_s": None}
    return report


def differences(one: Any, other: Any, place: str = "") -> list[str]:
    """Return where two documents differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        return [each for key in one for each in differences(one[key], other[key], f"{place}.{key}")]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [each for at, pair in enumerate(zip(one, other, strict=True)) for each in differences(*pair, f"{place}[{at}]")]
    return [] if one == other else [f"{place}: {one} != {other}"]


def test_a_recording_is_what_was_shown(build: Build, run_program: Any, leaktrace: Starter, path: Path) -> None:
    """Every report of a trace is read exactly as JSON had it; the last has what the program says that it did."""
    program = run_program(build("known.c"))
    trace = leaktrace.attach(program, "--record", str(path), interval="0.5")
    trace.next_report()
    truth = program.work()
    trace.next_report()
    trace.next_report()
    shown = trace.stop()
    found, said = read(path, "--all")
    assert said == "" and shown.returncode == 0
    assert differences(list(map(as_read, found)), list(map(as_read, shown.reports))) == []
    assert len(found) >= 4 and found[-1]["last"]
    assert_sites_exact(found[-1], truth)
    assert (path.stat().st_uid, stat.S_IMODE(path.stat().st_mode)) == (NOBODY, 0o600)


def test_a_trace_that_is_killed_leaves_its_reports(build: Build, run_program: Any, leaktrace: Starter, path: Path) -> None:
    """After SIGKILL in the middle, the reports so far are read as they were shown."""
    program = run_program(build("known.c"))
    program.go()
    trace = leaktrace.attach(program, "--record", str(path), interval="0.3")
    shown = [trace.next_report() for _ in range(4)]
    trace.process.send_signal(signal.SIGKILL)
    trace.process.wait(PATIENCE)
    found, _ = read(path, "--all")
    # What was shown last may not have been recorded.
    assert len(found) >= 3
    assert differences(list(map(as_read, found[:4])), list(map(as_read, shown[: len(found)]))) == []


def test_a_run_is_recorded(build: Build, path: Path) -> None:
    """The one report of a short command is in its recording, all sites with their names, and its exit code is kept."""
    output = path.with_suffix(".json")
    # The command is nobody's, too.
    program = shutil.copy(build("run_sites.c"), path.parent)
    answer = run(program, "3", "2", options=("--record", str(path), "--format", "json", "--output", str(output),
                                                          "--fail-on", "total_count>4"))
    assert answer.returncode == 23, answer.stderr
    (found,), _ = read(path)
    assert (site(found, "first_site").live, site(found, "second_site").live) == ((300, 3), (20, 2))
    # The process has ended, and what it had mapped is known.
    (mapped,) = load(str(path)).report().mappings or ()
    frame = next(each for each in found["sites"][0]["frames"] if each["function"] == "first_site")
    (file,) = [each for each in mapped.files if each.start <= int(frame["address"], 16) < each.end]
    assert (file.path, file.build_id) == (str(program), frame["build_id"])
    shown = json.loads(output.read_text())
    for name in ("totals", "targets", "taken", "elapsed_s", "last", "notes"):
        assert found[name] == shown[name]
    assert found["sites"] == [{key: each[key] for key in found["sites"][0]} for each in shown["sites"]]


def test_a_full_disk_does_not_end_the_trace(build: Build, run_program: Any, path: Path) -> None:
    """Where the disk is full at once or soon, reports go on, it is said once, and the exit code is 4."""
    folder = path.parent / "small"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k,mode=777", "leaktrace", str(folder)], check=True)
    try:
        program = run_program(build("known.c"))
        program.go()
        answer = run_tool("-p", str(program.pid), "--record", str(folder / "r"), "--format", "json", "0.2", "12",
                          "-T", "100")
        assert answer.returncode == 4 and answer.stderr.count("No space left on device") == 1, answer.stderr
        shown = [json.loads(line) for line in answer.stdout.splitlines()]
        assert len(shown) >= 12
        if "it was ended before" not in answer.stderr and (folder / "r").stat().st_size > 1000:
            found, said = read(folder / "r", "--all")
            assert said == "" and found == shown[: len(found)]
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_trace_of_the_kernel_is_recorded(path: Path) -> None:
    """The report of the kernel's memory is read with its sources, caches and processes as JSON had it."""
    output = path.with_suffix(".json")
    answer = run_tool("kernel", "--record", str(path), "--format", "json", "--output", str(output), "--", "ls", "/")
    assert answer.returncode == 0, answer.stderr
    (found,), _ = read(path)
    shown = json.loads(output.read_text())
    assert found["sources"] == shown["sources"] and found["totals"] == shown["totals"]
    assert len(found["sites"]) > 10
    assert found["sites"] == [{key: each[key] for key in found["sites"][0]} for each in shown["sites"]]
