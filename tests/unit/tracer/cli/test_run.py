"""The command line of `leaktrace run`: whose options are whose, and what is refused before anything is started."""

from __future__ import annotations

from typing import Any

import pytest

from tracer.cli import gated, main


@pytest.fixture
def given(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The options of each run that was asked for; none is done."""
    runs: list[dict[str, Any]] = []

    def note(options: dict[str, Any]) -> int:
        runs.append(options)
        return 7

    monkeypatch.setattr(gated, "run", note)
    return runs


@pytest.mark.parametrize(("words", "command"), [
    (["--", "ls", "-l"], ("ls", "-l")), (["ls", "-l"], ("ls", "-l")), (["ls", "--", "-l"], ("ls", "--", "-l")),
    (["-v", "ls", "-v", "--help"], ("ls", "-v", "--help")), (["--", "-x"], ("-x",)), (["-T", "3", "ls", "-T", "4"], ("ls", "-T", "4")),
    (["ls", "--fail-on", "bytes>0"], ("ls", "--fail-on", "bytes>0")),
])  # fmt: skip
def test_the_commands_words(given: list[dict[str, Any]], words: list[str], command: tuple[str, ...]) -> None:
    """From the command's first word on every word is the command's, a -- included."""
    assert main(["run", *words]) == 7
    assert given[0]["words"] == command


def test_defaults(given: list[dict[str, Any]]) -> None:
    """Without options nothing can fail, and the exit code over budget is LeakSanitizer's."""
    main(["run", "ls"])
    (options,) = given
    assert (options["budgets"], options["suppressions"], options["baseline"], options["error_exitcode"]) == ((), (), None, 23)
    assert not (options["as_root"] or options["github"] or options["no_default_suppressions"] or options["print_suppressions"])


def test_options_that_repeat(given: list[dict[str, Any]]) -> None:
    """Budgets and suppression files may be several."""
    main(["run", "--fail-on", "a", "--fail-on", "b", "--suppressions", "x", "--suppressions", "y", "ls"])
    assert (given[0]["budgets"], given[0]["suppressions"]) == (("a", "b"), ("x", "y"))


@pytest.mark.parametrize("words", [
    [], ["--"], ["--nonsense", "ls"], ["--format", "xml", "ls"], ["--error-exitcode", "0", "ls"], ["--error-exitcode", "256", "ls"],
    ["--error-exitcode", "x", "ls"], ["-T", "0", "ls"], ["--demangle", "none", "ls"], ["--demangle", "short", "ls"], ["-p", "1", "ls"],
])  # fmt: skip
def test_wrong_usage(given: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """No command, and options that are none or have no such value, end in 2 with sentences on stderr."""
    assert main(["run", *words]) == 2
    captured = capsys.readouterr()
    assert given == [] and captured.out == "" and captured.err and "Traceback" not in captured.err
