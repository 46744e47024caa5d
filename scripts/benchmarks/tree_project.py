"""A small C project whose `make check` makes some 300 processes, and loses a known number of bytes."""

from __future__ import annotations

import re
import shlex
import subprocess
from dataclasses import dataclass
from pathlib import Path

SOURCES = 36
#: How often the program is run; run N loses N bytes, and 64 more.
RUNS = 60
FIXED = 64

_SOURCE = """\
#include <stdlib.h>
int part{n}(int size) {{ char *block = malloc(size + {n}); int got = block != NULL; free(block); return got; }}
"""


@dataclass(frozen=True, slots=True)
class Project:
    """The project's folder."""

    folder: Path

    @property
    def lost_bytes(self) -> int:
        """What all runs of the program lose together."""
        return sum(FIXED + number for number in range(1, RUNS + 1))

    @property
    def lost_blocks(self) -> int:
        """In how many blocks."""
        return 2 * RUNS

    def write(self) -> None:
        """Write its files."""
        parts = range(SOURCES)
        for n in parts:
            (self.folder / f"part{n}.c").write_text(_SOURCE.format(n=n))
        declared = "".join(f"int part{n}(int);\n" for n in parts)
        calls = " + ".join(f"part{n}(argc)" for n in parts)
        (self.folder / "main.c").write_text(
            f"#include <stdlib.h>\n{declared}int main(int argc, char **argv)\n{{\n\tint got = {calls};\n"
            f"\tvoid *volatile lost = malloc({FIXED});\n\tlost = malloc(atoi(argv[1]));\n"
            f"\treturn got != {SOURCES};\n}}\n")
        objects = " ".join(f"part{n}.o" for n in parts) + " main.o"
        runs = "".join(
            f"run{n}: program\n\t@./program {n} && echo done > $$(basename $@)\n" for n in range(1, RUNS + 1))
        (self.folder / "Makefile").write_text(
            f"check: {' '.join(f'run{n}' for n in range(1, RUNS + 1))}\n"
            f"program: {objects}\n\tgcc -o $@ {objects}\n%.o: %.c\n\tgcc -O1 -g -c -o $@ $<\n{runs}")

    def clean(self) -> None:
        """Remove what make has made."""
        for path in self.folder.iterdir():
            if path.suffix == ".o" or path.name == "program" or re.fullmatch(r"run\d+", path.name):
                path.unlink()

    def single_commands(self) -> dict[str, tuple[int, list[str]]]:
        """Return each kind of process with how often `make check` runs it, and a command that is one of that kind."""
        said = subprocess.run(["gcc", "-###", "-O1", "-g", "-c", "-o", "part0.o", "part0.c"], cwd=self.folder,
                              capture_output=True, text=True, check=True).stderr
        # What it would run stands behind a blank, each on a line.
        parts = [shlex.split(line) for line in said.splitlines() if line.startswith(" ")]
        compiler, assembler = (next(words for words in parts if words[0].rpartition("/")[2] == name)
                               for name in ("cc1", "as"))
        # cc1 writes the file that as reads, under a name of the driver's.
        text = str(self.folder / "part0.s")
        compiler[compiler.index("-o") + 1] = text
        assembler[-1] = text
        return {
            "cc1": (SOURCES + 1, compiler),
            "as": (SOURCES + 1, assembler),
            "gcc": (SOURCES + 2, ["gcc", "--version"]),
            "sh": (RUNS, ["sh", "-c", ":"]),
            "program": (RUNS, ["./program", "1"]),
            "basename": (RUNS, ["basename", "run1"]),
        }
