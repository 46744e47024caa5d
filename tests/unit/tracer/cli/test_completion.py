"""Completion answers from the commands' own definitions, in time, and in a real shell."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tracer.cli import COMMANDS, main
from tracer.cli.candidates import _processes

ROOT = Path(__file__).resolve().parents[4]
#: What takes long to import, of all that leaktrace needs; numpy comes with the modules of reports.
SLOW = {"bcc", "elftools", "numpy", "rich", "textual"}
IMPORTED = ("import sys; from tracer.cli import main; code = main([]); "
            "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr); sys.exit(code)")


def asked(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """Return what bash is told of the last word."""
    monkeypatch.setenv("_LEAKTRACE_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "\n".join(("leaktrace", *words)))
    monkeypatch.setenv("COMP_CWORD", str(len(words)))
    assert main([]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(("words", "some"), [
    (["re"], ["plain,report"]), (["ru"], ["plain,run"]), (["--sor"], ["plain,--sort"]),
    (["--sort", ""], ["plain,loss", "plain,size", "plain,count"]), (["-p", "1", "--sort", "c"], ["plain,count"]),
    (["run", "--fail"], ["plain,--fail-on"]), (["run", "--format", ""], ["plain,text", "plain,json"]),
    (["kernel", "--vm"], ["plain,--vmalloc"]), (["report", "x.leak"], ["file,x.leak"]), (["report", "x", "--format", "js"], ["plain,json"]),
    (["completion", ""], ["plain,bash", "plain,zsh", "plain,fish"]), (["--record", "a"], ["file,a"]), (["-O", "/li"], ["file,/li"]),
    (["run", "ls", "-"], ["file,-"]), (["run", "--", "ls", "--fail"], ["file,--fail"]), (["kernel", "--", "/bin/l"], ["file,/bin/l"]),
    (["--hash"], []), (["nonsense", ""], []), (["--color=ne"], ["plain,never"]),
])  # fmt: skip
def test_words(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], some: list[str]) -> None:
    """Commands, options, choices and files; not what is for developers, and nothing of ours within a command's own words."""
    assert asked(monkeypatch, capsys, *words) == some


def test_first_word(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Every command can be the first word."""
    assert asked(monkeypatch, capsys, "") == [f"plain,{name}" for name in COMMANDS]


def test_programs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """The first word of a command is a program in PATH."""
    for name, mode in (("lt-run-me", 0o755), ("lt-not-me", 0o644)):
        (tmp_path / name).touch(mode)
    monkeypatch.setenv("PATH", f"{tmp_path}:/nowhere")
    assert asked(monkeypatch, capsys, "run", "lt-") == ["plain,lt-run-me"]
    assert asked(monkeypatch, capsys, "kernel", "--slab", "--", "lt-") == ["plain,lt-run-me"]


def test_processes(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """-p has the ids of processes, found by the id or by the name."""
    with subprocess.Popen([shutil.copy("/bin/sleep", "/dev/shm/lt-compl-name"), "60"]) as process:
        try:
            # Until exec it is Python.
            while not Path(f"/proc/{process.pid}/comm").read_text().startswith("lt-compl"):
                time.sleep(0.01)
            for words in (["-p", str(process.pid)[:-1]], ["-p", "lt-compl"], ["kernel", "--pid", "lt-compl-name"]):
                assert f"plain,{process.pid}" in asked(monkeypatch, capsys, *words)
            assert "plain,lt-compl-name" in asked(monkeypatch, capsys, "--comm", "lt-c")
        finally:
            process.kill()
            os.unlink("/dev/shm/lt-compl-name")


def test_hostile_processes(tmp_path: Path) -> None:
    """A name cannot make more lines than one, those of the kernel and of what has ended are left out."""
    for pid, name, line in (("7", b"a\nplain,rm\n", b"x\0\x1b[2J\0"), ("8", b"kworker\n", b"")):
        (tmp_path / pid).mkdir()
        (tmp_path / pid / "comm").write_bytes(name)
        (tmp_path / pid / "cmdline").write_bytes(line)
    (tmp_path / "9").mkdir()
    (tmp_path / "self").mkdir()
    assert list(_processes(tmp_path)) == [(7, "a\\x0aplain,rm", "x \\x1b[2J")]


@pytest.mark.parametrize("environment", [
    {"_LEAKTRACE_COMPLETE": "bash_complete"}, {"_LEAKTRACE_COMPLETE": "x"}, {"_LEAKTRACE_COMPLETE": "tcsh_complete"},
    {"_LEAKTRACE_COMPLETE": "bash_complete", "COMP_WORDS": "leaktrace", "COMP_CWORD": "x"},
])  # fmt: skip
def test_nonsense(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]) -> None:
    """What no shell asks is wrong usage, and starts no trace."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["-p", "1"]) == 2


@pytest.mark.parametrize(("words", "needed"), [
    ("leaktrace ", {"numpy"}), ("leaktrace --s", set()), ("leaktrace report --f", {"numpy"}), ("leaktrace -p ", set()),
])  # fmt: skip
def test_soon(words: str, needed: set[str]) -> None:
    """An answer comes before a user notices, so it does without what takes long to import."""
    environment = os.environ | {"_LEAKTRACE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    answer = subprocess.run([sys.executable, "-c", IMPORTED], cwd=ROOT, env=environment, capture_output=True, text=True,
                            check=True, timeout=60)
    # It names its own modules too, or it would say nothing of the others.
    assert answer.stdout and {"tracer", "click"} < set(answer.stderr.split())
    assert set(answer.stderr.split()) & SLOW == needed


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with leaktrace as a program in it, and a recording."""
    program = tmp_path / "leaktrace"
    program.write_text(f"#!/bin/sh\nPYTHONPATH={ROOT} exec {sys.executable} -m tracer.cli \"$@\"\n")
    program.chmod(0o755)
    (tmp_path / "web.leaktrace").touch()
    return tmp_path


def in_shell(folder: Path, *words: str) -> str:
    return subprocess.run(words, cwd=folder, env={"PATH": f"{folder}:/usr/bin:/bin", "TERM": "dumb", "HOME": str(folder)}, check=True,
                          capture_output=True, text=True, timeout=60).stdout


def need(shell: str) -> None:
    """Skip the test where the shell is not installed; scripts/test installs it."""
    if not shutil.which(shell):
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"{shell} is not installed")


BASH = """\
. {script}
COMP_WORDS=({words}) COMP_CWORD={at} COMPREPLY=()
compopt() {{ printf 'compopt %s %s\n' "$1" "$2"; }}
complete -p leaktrace
_leaktrace_completion leaktrace
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.mark.parametrize(("words", "at", "expected"), [
    ("leaktrace re", 1, ["report"]), ("leaktrace --sort ''", 2, ["loss", "size", "count"]), ("leaktrace run --junit x", 3, ["compopt -o default", ""]),
])  # fmt: skip
def test_in_bash(folder: Path, words: str, at: int, expected: list[str]) -> None:
    """A real bash completes with the script that the wheel installs."""
    script = ROOT / "tracer/share/bash-completion/completions/leaktrace"
    said = in_shell(folder, "bash", "--norc", "-c", BASH.format(script=script, words=words, at=at)).splitlines()
    assert "_leaktrace_completion leaktrace" in said[0] and said[1:] == expected


def test_in_zsh(folder: Path) -> None:
    """A real zsh takes the script for what completes leaktrace, and has commands with their help."""
    need("zsh")
    script = ROOT / "tracer/share/zsh/site-functions"
    said = in_shell(folder, "zsh", "-f", "-c", f"fpath=({script} $fpath); autoload -U compinit; compinit -u -D; echo $_comps[leaktrace]\n"
                    "compadd() { echo compadd $*; }; _describe() { print -l -- ${(P)3}; }; words=(leaktrace re); CURRENT=2\n"
                    "autoload -Uz _leaktrace; _leaktrace 2>/dev/null")
    assert said.splitlines()[0] == "_leaktrace" and "report:" in said


def test_in_fish(folder: Path) -> None:
    """A real fish completes commands, with their help, and choices."""
    need("fish")
    script = ROOT / "tracer/share/fish/vendor_completions.d/leaktrace.fish"
    said = in_shell(folder, "fish", "--no-config", "-c", f"source {script}; complete -C 'leaktrace rep'; complete -C 'leaktrace --sort s'")
    assert said.splitlines()[0].startswith("report\t") and "size" in said
