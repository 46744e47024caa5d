"""--check-frees: every kind of wrong free is found with its stacks and its number, and no right one is called wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.live.conftest import ROOT, Starter

Build = Callable[..., Path]


def run(*words: str | Path, lines: int = 2, options: tuple[str, ...] = ()) -> tuple[dict[str, Any], str, int]:
    """Return the report of `leaktrace run`, what the command wrote, and the exit code; lines: sent to the command."""
    done = subprocess.run(
        [sys.executable, "-m", "tracer.cli", "run", "--check-frees", "--format", "json", *options, "--", *map(str, words)],
        cwd=ROOT, input="\n" * lines, capture_output=True, text=True, timeout=60, check=False)
    documents = [line for line in done.stderr.splitlines() if line.startswith('{"schema"')]
    assert len(documents) == 1, done.stderr
    return json.loads(documents[0]), done.stdout, done.returncode


def innermost(frames: list[dict[str, Any]] | None) -> str | None:
    return (frames[0]["function"] or "").partition("(")[0] if frames else None


def short(misuse: dict[str, Any]) -> dict[str, Any]:
    """Return what a test program says of a misuse."""
    return {name: misuse[name] for name in ("kind", "count", "allocated_by", "freed_by")} | {
        name: innermost(misuse[name]) for name in ("allocated", "freed")}


@pytest.mark.parametrize("flags", [(), ("-static",), ("-static-libstdc++",)], ids=["shared", "static", "own runtime"])
def test_mismatches(build: Build, flags: tuple[str, ...]) -> None:
    """Each pair of functions that do not go together is found, with who called them, as often as it happened."""
    report, said, _ = run(build("frees_wrong.cpp", *flags))
    truth = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    key = json.dumps
    assert sorted(map(short, report["misuses"]), key=key) == sorted(truth, key=key)


def test_double(build: Build) -> None:
    """The three stacks of a double free have names, though glibc has ended the program; it fails a run that says so."""
    report, _, code = run(build("frees_wrong.cpp"), "double", options=("--fail-on", "misuses>0"))
    (misuse,) = report["misuses"]
    assert short(misuse) == {"kind": "double", "count": 1, "allocated_by": "malloc", "freed_by": "free",
                             "allocated": "from_malloc", "freed": "give_back_again"}
    assert (misuse["freed_before_by"], innermost(misuse["freed_before"])) == ("free", "give_back_first")
    assert code == 23


def test_unknown(build: Build) -> None:
    """An address that nobody gave is told of where all was seen from the start."""
    report, _, _ = run(build("frees_wrong.cpp"), "far")
    (misuse,) = report["misuses"]
    assert short(misuse) == {"kind": "unknown", "count": 1, "allocated_by": None, "freed_by": "free",
                             "allocated": None, "freed": "free_far"}


@pytest.mark.parametrize("flags", [(), ("-static",)], ids=["shared", "static"])
def test_nothing_is_called_wrong(build: Build, flags: tuple[str, ...]) -> None:
    """All forms of new and delete, C's own functions, threads, and the standard library free rightly."""
    report, said, code = run(build("frees_right.cpp", "-pthread", *flags))
    assert said.splitlines() == ["ready", "end"] and code == 0
    assert report["misuses"] == []


@pytest.mark.parametrize("words", [
    ("perl", "-e", "my %h; $h{$_ % 200} = 'x' x ($_ % 900) for 1..3000; open F, '/etc/passwd'; my @l = <F>"),
    ("/usr/bin/python3", "-c", "import json, re, threading\n"
     "for t in [threading.Thread(target=lambda: json.dumps([str(i) * i for i in range(200)])) for _ in range(3)]:\n"
     "    t.start(); t.join()"),
], ids=["perl", "python3"])
def test_programs_that_are_right(words: tuple[str, ...]) -> None:
    """Large programs that are known to free rightly are accused of nothing."""
    report, _, code = run(*words)
    assert (report["misuses"], code) == ([], 0)


def test_own_operators(build: Build) -> None:
    """A program with operators of its own, inlined or not, is not accused of what they do inside."""
    report, said, code = run(build("frees_own.cpp"))
    assert said.splitlines() == ["ready", "end"] and code == 0
    assert report["misuses"] == []


def test_attached(build: Build, leaktrace: Starter, run_program: Callable[..., Any]) -> None:
    """Of a process that ran before, frees of what it had then are no misuse, and mismatches are found."""
    program = run_program(build("frees_wrong.cpp"))
    trace = leaktrace.attach(program, "--check-frees")
    truth = [line for line in program.work() if "kind" in line]
    assert sorted(map(short, trace.stop().report["misuses"]), key=json.dumps) == sorted(truth, key=json.dumps)


def test_not_asked_for(build: Build) -> None:
    """Without the option nothing is said, not even that there is nothing."""
    done = subprocess.run([sys.executable, "-m", "tracer.cli", "run", "--format", "json", "--", build("frees_wrong.cpp")],
                          cwd=ROOT, input="\n\n", capture_output=True, text=True, timeout=60, check=False)
    (line,) = [line for line in done.stderr.splitlines() if line.startswith('{"schema"')]
    assert json.loads(line)["misuses"] is None
