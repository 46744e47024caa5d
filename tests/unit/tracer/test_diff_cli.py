"""The command leaktrace diff."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.tracer import recorded
from tracer.cli import main

NEVER_NEEDED = "import sys; sys.modules['bcc'] = None; from tracer.cli import main; sys.exit(main(sys.argv[1:]))"


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Return two recordings of two reports each; the second trace has twice as much of everything at its end."""
    names = []
    for name, last in (("before", 1000), ("after", 2000)):
        path = tmp_path / f"{name}.leaktrace"
        recorded.recorded(path, recorded.report({1: recorded.finding(1, 1000, 1)}, 5.0),
                          recorded.report({1: recorded.finding(1, last, 2)}, 10.0))
        names.append(str(path))
    return names


def test_it_needs_no_bcc(files: list[str]) -> None:
    """A difference is made where BCC is not installed."""
    answer = subprocess.run([sys.executable, "-c", NEVER_NEEDED, "diff", *files, "--format", "json"], capture_output=True,
                            text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    assert json.loads(answer.stdout)["sites"][0]["change"]["bytes"] == 1000


@pytest.mark.parametrize(("options", "code"), [
    ((), 0), (("--fail-on", "bytes>999"), 23), (("--fail-on", "bytes>1000"), 0), (("--at", "5", "--fail-on", "bytes>0"), 0),
    (("--at", "10:5", "--fail-on", "bytes>=0"), 23), (("--fail-on", "bytes>1", "--error-exitcode", "9"), 9),
    (("--error-exitcode", "4"), 2), (("--per", "request"), 2), (("--per", "request=0:1"), 2), (("--fail-on", "age>1"), 2),
    (("--per", "request=10:20", "--fail-on", "bytes>0"), 0), (("--per", "second", "--fail-on", "bytes>99"), 23),
    (("--at", "-1"), 2),
])
def test_options_and_exit_codes(files: list[str], options: tuple[str, ...], code: int,
                                capsys: pytest.CaptureFixture[str]) -> None:
    """Moments, scales and budgets do what they say, and each end has its own exit code."""
    assert main(["diff", *files, *options]) == code
    assert code == 2 or "In total" in capsys.readouterr().out


def test_a_file_is_written_and_the_judgement_said(files: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --output, what a run must know is on standard error."""
    out = tmp_path / "d.svg"
    assert main(["diff", *files, "--format", "flamegraph", "-o", str(out), "--fail-on", "bytes>1"]) == 23
    assert out.read_text().startswith("<svg")
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", "leaktrace: FAILED: 1 site over budget\n")


def test_a_cut_recording_is_not_judged(files: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A recording without its end gives 4 where a budget is asked for, and a warning where none is."""
    path = Path(files[1])
    path.write_bytes(path.read_bytes()[:-3])
    assert main(["diff", *files]) == 0
    assert "WARNING: the recording after ends within a report" in capsys.readouterr().out
    assert main(["diff", *files, "--fail-on", "bytes>1G"]) == 4
