"""The programs that are scored: all of tests/programs/verdicts; what is true of one stands in its first comment."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failure

PROGRAMS = Path(__file__).resolve().parents[2] / "tests" / "programs"
VERDICTS = PROGRAMS / "verdicts"
# Frame pointers, because memleak finds no stack without them; the same build for all tools.
FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer", "-pthread")
SUFFIXES = (".c", ".cpp")


@dataclass(frozen=True, slots=True)
class Truth:
    """Whether a program leaks, and why that is so; function: the one that allocates what leaks, "" if nothing does."""

    function: str
    why: str


@dataclass(frozen=True, slots=True)
class Program:
    """A source of the corpus with its truth."""

    source: Path
    truth: Truth

    @property
    def name(self) -> str:
        """The file's name without its suffix."""
        return self.source.stem


def first_comment(source: str) -> str:
    """Return the text of a source's first comment, without its stars, in one line."""
    inside = source.partition("/*")[2].partition("*/")[0]
    return " ".join(re.sub(r"^ ?\*", "", line).strip() for line in inside.splitlines()).strip()


def truth(source: str) -> Truth:
    """Return what `Truth: leaks at NAME(): why.` or `Truth: no leak: why.` says; Failure if neither is there."""
    match = re.search(r"Truth: (?:leaks at ([\w:~]+)\(\)|no leak): (.+?)\.(?:\s|$)", first_comment(source))
    if not match:
        raise Failure("a program's first comment has no truth")
    return Truth(match[1] or "", match[2])


def corpus(folder: Path = VERDICTS) -> list[Program]:
    """Return the programs of a folder: those that leak first, each part by name."""
    programs = [Program(one, truth(one.read_text())) for one in folder.iterdir() if one.suffix in SUFFIXES]
    return sorted(programs, key=lambda one: (not one.truth.function, one.name))


def build(sources: Iterable[Path], folder: Path, flags: Sequence[str] = FLAGS) -> None:
    """Build sources into a folder that exists, each under its name; Failure if a compiler is missing or fails."""
    for source in sources:
        compiler = "g++" if source.suffix == ".cpp" else "gcc"
        command = [compiler, *flags, "-o", str(folder / source.stem), str(source)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
        except FileNotFoundError as error:
            raise Failure(f"{compiler} is missing: apt install gcc g++ libc6-dev") from error
        if done.returncode:
            raise Failure(f"{compiler} could not build {source.name}: {done.stderr.strip()[-300:]}")
