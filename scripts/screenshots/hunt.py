"""The program that is hunted in: the demo's, as it is and with its leak mended."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tracer/cli/demo.c"
#: The early return that forgets the header, and the same with what it forgets.
LEAK = "return 400; /* The leak: header is not freed here. */"
MENDED = "return free(header), 400;"


def build(program: Path, *, fixed: bool = False) -> Path:
    """Compile the program to a file whose source lies beside it, server.c; fixed: without its leak. Returns it."""
    text = SOURCE.read_text()
    assert text.count(LEAK) == 1
    source = program.parent / "server.c"
    source.write_text(text.replace(LEAK, MENDED) if fixed else text)
    subprocess.run(["gcc", "-g", "-O2", f"-fdebug-prefix-map={program.parent}=.", "-o", program, source.name],
                   check=True, cwd=program.parent)
    return program


@contextmanager
def running(program: Path) -> Iterator[int]:
    """Run the program until the block ends; gives its pid."""
    with subprocess.Popen([program], stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process.pid
        finally:
            process.kill()


def words(*arguments: object) -> list[str]:
    """Return the command line of leaktrace with these arguments."""
    return [sys.executable, "-m", "tracer.cli", *map(str, arguments)]


def leaktrace(folder: Path, *arguments: object) -> str:
    """Run leaktrace in a folder; returns what it printed. Raises CalledProcessError."""
    return subprocess.run(words(*arguments), cwd=folder, check=True, capture_output=True, text=True).stdout
