"""leaktrace's symbolizer as a program: requests on standard input (symbol_requests.Request), names on standard output.

    python symbol_leaktrace.py [--primes N | --json]

With --primes the first N requests come before, and how long the rest took is told on standard error. With --json there
is one line a request, with linker names.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from symbolizer.line_service import LineService

# ruff: noqa: E402
# Before the rest is loaded, which takes as long as they take to start.
LINES = LineService()
if __name__ == "__main__":
    LINES.warm_up()

from symbolizer.cache_folder import CacheFolder, default_folder
from symbolizer.choices import Style
from symbolizer.elf import Elf
from symbolizer.file_map import FileMap, file_bytes
from symbolizer.frame import Frame
from symbolizer.symbol_table import SymbolTable
from symbolizer.symbolizer import Symbolizer

CACHE_BYTES = 1 << 30
Answers = list[tuple[Frame, ...]]


def opener(path: str) -> Callable[[], bytes | FileMap]:
    """Return what reads or maps a file, as the tracer does it."""

    def opened() -> bytes | FileMap:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return file_bytes(descriptor)
        finally:
            os.close(descriptor)

    return opened


def names(symbolizer: Symbolizer, lines: Sequence[str]) -> Answers:
    """Return the frames of every request, asked for as the tracer does it."""
    asked = []
    for line in lines:
        path, vaddr, offset = line.rstrip("\n").split("\t")
        symbolizer.add_object(path, path, opener(path))
        asked.append((path, int(offset, 16), int(vaddr, 16)))
    symbolizer.prepare((path, offset) for path, offset, _ in asked)
    return [symbolizer.resolve(path, offset, vaddr, False) for path, offset, vaddr in asked]


def write(answers: Answers) -> None:
    """Print frames as other symbolizers do: a line with the function, a line with file and line, then an empty one."""
    lines = []
    for frames in answers:
        for frame in frames:
            lines.append(f"{frame.function or '??'}\n{frame.file or '??'}:{frame.line or 0}\n")
        lines.append("\n")
    sys.stdout.write("".join(lines))
    sys.stdout.flush()


def write_json(lines: Sequence[str], answers: Answers) -> None:
    """Print frames for a comparison, with start and all names of the outermost function."""
    tables: dict[str, SymbolTable] = {}
    for line, frames in zip(lines, answers, strict=True):
        path, vaddr, _ = line.split("\t")
        if path not in tables:
            tables[path] = Elf.parse(opener(path)()).symbols()
        told = [(frame.function, frame.file, frame.line) for frame in frames]
        start, aliases = function(tables[path], int(vaddr, 16))
        print(json.dumps({"frames": told, "start": start, "aliases": aliases}))


def function(table: SymbolTable, vaddr: int) -> tuple[int, list[str]]:
    """Return where the function that covers the vaddr begins, and the linker names of all that begin there."""
    found = table.find(vaddr)
    if found is None:
        return vaddr, []
    start = vaddr - found[1]
    first, last = (int(table.value.searchsorted(start, side)) for side in ("left", "right"))
    return start, sorted({table.name_of(row) for row in range(first, last)})


def main(arguments: Sequence[str]) -> None:
    lines = sys.stdin.readlines()
    as_json = arguments == ["--json"]
    primes = int(arguments[1]) if arguments and not as_json else 0
    cache = CacheFolder(default_folder() / "lines", CACHE_BYTES)
    symbolizer = Symbolizer(style=Style.NONE if as_json else Style.FULL, cache=cache, lines=LINES)
    names(symbolizer, lines[:primes])
    start = time.perf_counter()
    answers = names(symbolizer, lines[primes:])
    took = time.perf_counter() - start
    if as_json:
        write_json(lines, answers)
    else:
        write(answers)
        print(f"took {took:.6f}", file=sys.stderr)
    symbolizer.close()


if __name__ == "__main__":
    main(sys.argv[1:])
