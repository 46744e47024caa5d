"""Everything that can be wrong with a gate's inputs is found before the command starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.attach import start
from tracer.cli import gated, main
from tracer.report.model import Judgement
from tracer.settings import Settings


class StartedError(Exception):
    """The command would have been started."""


@pytest.fixture(autouse=True)
def _start_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def prepare(settings: Settings) -> None:
        raise StartedError

    monkeypatch.setattr(gated, "prepare", prepare)
    monkeypatch.setattr(start, "prepare", prepare)


@pytest.mark.parametrize(("option", "text", "said"), [
    ("--suppressions", "leak:a\nb\n", ":2: "), ("--suppressions", "{\n x\n Memcheck:Leak\n what:a\n}\n", ":4: "),
    ("--suppressions", None, "suppression file FILE cannot be read"), ("--baseline", None, "baseline FILE cannot be read"),
    ("--baseline", "", "FILE is empty"), ("--baseline", "[]", "FILE"), ("--baseline", '{"schema": "leaktrace/2"}', "leaktrace/2"),
    ("--baseline", '{"schema": "leaktrace/1"}', "FILE"), ("--output", None, "FILE/below cannot be written"),
    ("--junit", None, "FILE/below cannot be written"), ("--sarif", None, "FILE/below cannot be written"),
])  # fmt: skip
def test_bad_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, text: str | None, said: str) -> None:
    """A file that is not there or not what it should be ends in 2, with its name, and a line where there is one."""
    path = tmp_path / "file"
    if text is not None:
        path.write_text(text)
    value = f"{path}/below" if "below" in said else str(path)
    assert main(["run", option, value, "--", "true"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert said.replace("FILE", str(path)) in lines[0] and len(lines) == 2


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    """A suppression file may name files in any bytes."""
    path = tmp_path / "file"
    path.write_bytes(b"leak:/home/\xff/lib.so\n")
    with pytest.raises(StartedError):
        main(["run", "--suppressions", str(path), "true"])


@pytest.mark.parametrize("option", ["--suppressions", "--baseline"])
def test_an_endless_file(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    """A file that does not end is refused, and not read into memory."""
    monkeypatch.setattr(gated, "LARGEST_INPUT", 1 << 20)
    assert main(["run", option, "/dev/zero", "true"]) == 2
    assert "/dev/zero is larger than 1 MB" in capsys.readouterr().err


@pytest.mark.parametrize(("expression", "marked"), [("bytes > 3 and x > 4", "x > 4"), ("bytes >> 3", "> 3"), ("", ""), ("(count>1", "")])
def test_bad_expressions(capsys: pytest.CaptureFixture[str], expression: str, marked: str) -> None:
    """An expression that does not parse ends in 2, shown with a mark at the place."""
    assert main(["run", "--fail-on", expression, "true"]) == 2
    _, shown, mark, _ = capsys.readouterr().err.splitlines()
    assert shown == f"  {expression}" and shown[mark.index("^"):] == marked


def test_bad_input_leaves_outputs_alone(tmp_path: Path) -> None:
    """What an earlier run wrote is not emptied by one that does not begin."""
    path = tmp_path / "report"
    path.write_text("earlier")
    assert main(["run", "--output", str(path), "--fail-on", "nonsense", "true"]) == 2
    assert path.read_text() == "earlier"


def test_only_what_was_reported_is_printed_as_suppressions() -> None:
    """Nothing is printed for a judgement without sites."""
    assert "".join(gated._suppressions(Judgement((), (), 0))) == ""


def test_processes_that_a_command_leaves_are_found() -> None:
    """A process of ours that nobody named as a helper is one that was left."""
    import subprocess

    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as one:
        assert one.pid in gated._left_behind([]) and one.pid not in gated._left_behind([one.pid])
        assert not gated._is_zombie(one.pid)
    assert one.pid not in gated._left_behind([])
