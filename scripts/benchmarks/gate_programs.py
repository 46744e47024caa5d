"""The programs that the gates are asked about: one row each; what is true of one stands in its source's first comment.

Chosen so that each asks something of its own, and not for who answers well: the plain case (`leaks`, which is also a
ring, and a process of a few milliseconds) and its opposite (`clean`); what a user accepts (`suppressed`); other
processes, with and without exec (`forks`, `execs`); three ways to an end or to a stack that leak checkers stumble on
(`crashes`, `leaves`, `unloaded`); what real programs are made of (`threads`, `exceptions`); memory that is kept on
purpose (`reachable`), which needs a look at pointers; and the price of each block (`busy`).
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Failure

SOURCES = Path(__file__).with_name("gates")
# As the sanitizers' manual asks for whole stacks, and the same for all tools.
FLAGS = ("-g", "-O1", "-fno-omit-frame-pointer")


@dataclass(frozen=True, slots=True)
class Program:
    """One program. `arguments` has {folder} filled in, where all of them are built; `library` is built with it."""

    name: str
    source: str
    arguments: tuple[str, ...] = ()
    library: str = ""
    children: bool = False
    """It starts processes that are to be judged too."""
    unloads: bool = False
    """It unloads code that lost blocks."""
    suppressed: bool = False
    """The suppression files are given."""

    def command(self, folder: Path) -> list[str]:
        """Return the command line of the program as it is built in a folder."""
        return [str(folder / self.name), *(word.format(folder=folder) for word in self.arguments)]


@dataclass(frozen=True, slots=True)
class Truth:
    """What is lost at the end of a program: bytes, blocks, and the one function that allocated them."""

    bytes: int = 0
    blocks: int = 0
    function: str = ""


PROGRAMS = (
    Program("leaks", "leaks.c"),
    Program("clean", "clean.c"),
    Program("suppressed", "suppressed.c", suppressed=True),
    Program("forks", "forks.c", children=True),
    Program("execs", "execs.c", ("{folder}/leaks",), children=True),
    Program("crashes", "crashes.c"),
    Program("leaves", "leaves.c"),
    Program("unloaded", "unloaded.c", ("{folder}/unloaded_library.so",), "unloaded_library.c", unloads=True),
    Program("threads", "threads.c"),
    Program("exceptions", "exceptions.cpp"),
    Program("reachable", "reachable.c"),
    Program("busy", "busy.c"),
)


def truth(source: str) -> Truth:
    """Return what the first comment of a source says is lost."""
    comment = " ".join(source.partition("*/")[0].replace("\n *", " ").split())
    if "Answer: nothing." in comment:
        return Truth()
    match = re.search(r"Answer: ([\d,]+) bytes in ([\d,]+) blocks? at ([\w:]+)\.", comment)
    if not match:
        raise Failure("a program's first comment has no answer")
    return Truth(int(match[1].replace(",", "")), int(match[2].replace(",", "")), match[3])


def build(programs: Sequence[Program], folder: Path, flags: Sequence[str]) -> None:
    """Build programs into a folder, which is made; Failure if a compiler is missing or fails."""
    folder.mkdir()
    for program in programs:
        _compile(SOURCES / program.source, folder / program.name, flags)
        if program.library:
            output = folder / Path(program.library).with_suffix(".so")
            _compile(SOURCES / program.library, output, (*flags, "-shared", "-fPIC"))


def _compile(source: Path, output: Path, flags: Sequence[str]) -> None:
    compiler = "g++" if source.suffix == ".cpp" else "gcc"
    command = [compiler, *FLAGS, *flags, "-o", str(output), str(source)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise Failure(f"{compiler} is missing: apt install gcc g++ libc6-dev") from error
    if done.returncode:
        raise Failure(f"{compiler} could not build {source.name}: {done.stderr.strip()[-300:]}")
