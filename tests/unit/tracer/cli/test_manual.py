"""The manual page has every command and option, is roff without faults, and what is installed is up to date."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from importlib import import_module
from pathlib import Path

import click
import pytest

from tracer.cli import COMMANDS, DEFAULT, main
from tracer.cli.completion import SHELLS, script
from tracer.cli.manual import _lines, page

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "tracer/share/man/man1/leaktrace.1"


def shown(roff: str) -> str:
    """Return what a reader sees, each paragraph in one line."""
    text = re.sub(r"\n(?!\.)", " ", roff)
    return re.sub(r"\\f[BIR]|\\&", "", text).replace(r"\-", "-").replace(r"\(aq", "'").replace(r"\(ga", "`").replace(r"\(dq", '"')


def test_it_is_up_to_date() -> None:
    """The page that is installed is the one that the commands make now; scripts/make_manual makes it anew."""
    assert PAGE.read_text() == page(COMMANDS, DEFAULT)


def test_everything_is_in_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Every command and every option that is not for developers, each with its help."""
    assert main(["man"]) == 0
    options, *commands = shown(capsys.readouterr().out).partition(".SH OPTIONS")[2].split(".SS leaktrace ")
    for (_, place), said in zip([("", DEFAULT), *COMMANDS.items()], [options, *commands], strict=True):
        command = import_module(place).command
        for option in command.params:
            if isinstance(option, click.Option):
                told = all(f"{each}\n" in said or f"{each} " in said or f"{each}," in said for each in option.opts)
                assert told != (option.hidden or option.name == "help") and (not told or (option.help or "") in said)


@pytest.mark.parametrize("words", [["groff", "-man", "-ww", "-z", "-Tutf8"], ["man", "--warnings", "-E", "UTF-8", "-l"], ["mandoc", "-T", "lint"]])
def test_it_is_roff(words: list[str]) -> None:
    """What reads manual pages finds no fault in it."""
    if not shutil.which(words[0]):
        # scripts/test installs that one; minimal systems are without the others.
        (pytest.fail if os.environ.get("CI") and words[0] == "mandoc" else pytest.skip)(f"{words[0]} is not installed")
    done = subprocess.run([*words, str(PAGE)], capture_output=True, text=True, timeout=60, check=False, env={"PATH": "/usr/bin:/bin", "MANWIDTH": "80"})
    said = done.stderr if words[0] != "mandoc" else done.stdout
    assert said == "" and done.returncode == 0


def test_hostile_words() -> None:
    """No help text is taken for a request: a line that begins with a full stop or a quote is text."""
    lines = _lines(f"{'x' * 69} .so /etc/passwd {'y' * 69} 'so \\fB{'z' * 69}")
    assert len(lines) > 3 and not [line for line in lines if line.startswith((".", "'")) or "\\fB" in line.replace("\\e", "")]
    assert any(".so /etc/passwd" in line for line in lines)


@pytest.mark.parametrize("shell", SHELLS)
def test_completion_is_installed(shell: str) -> None:
    """The scripts in tracer/share/ ask what leaktrace answers; with the click that made them they are the same."""
    installed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    names = [name for names in installed.values() for name in names]
    (name,) = [name for name in names if name.startswith("tracer/share/" + {"bash": "bash-", "zsh": "zsh/", "fish": "fish/"}[shell])]
    text = (ROOT / name).read_text()
    assert f"_LEAKTRACE_COMPLETE={shell}_complete" in text and f"_LEAKTRACE_COMPLETE={shell}_complete" in script(shell)
    assert str(PAGE.relative_to(ROOT)) in names and all((ROOT / each).is_file() for each in names)
