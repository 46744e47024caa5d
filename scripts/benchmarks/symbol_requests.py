"""What is asked: addresses spread over the functions of files, the same ones for the same file in every run.

    python symbol_requests.py COUNT FILE...    COUNT addresses of each file
    python symbol_requests.py --libraries N    the N largest shared libraries below /usr/lib that have function symbols

It runs as a program of its own, so that the bench itself stays small: a process that it starts counts the memory of
the bench as its own until it has become another program (getrusage(2)).
"""

from __future__ import annotations

import mmap
import os
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

SEED = 20231124
LIBRARIES = Path("/usr/lib")
_DETACHED = Path("/usr/lib/debug")
_MANY_TRIES = 100


class Request(NamedTuple):
    """One address: the file, its vaddr, and where in the file its byte lies."""

    path: str
    vaddr: int
    offset: int

    def __str__(self) -> str:
        return f"{self.path}\t{self.vaddr:#x}\t{self.offset:#x}"

    @classmethod
    def read(cls, line: str) -> Request:
        """Return what str() wrote."""
        path, vaddr, offset = line.rstrip("\n").split("\t")
        return cls(path, int(vaddr, 16), int(offset, 16))


def spread(functions: Sequence[tuple[int, int]], count: int, chance: random.Random) -> list[int]:
    """Return `count` distinct addresses, each of a function drawn by chance; `functions` are (start, size).

    Fewer where the functions have not that many bytes.
    """
    chosen: dict[int, None] = {}
    for _ in range(count * _MANY_TRIES):
        if len(chosen) == count or not functions:
            break
        start, size = chance.choice(functions)
        chosen[start + chance.randrange(size)] = None
    return list(chosen)


def functions_of(path: Path) -> tuple[list[tuple[int, int]], dict[int, int]]:
    """Return the functions of a file as sorted (start, size), and start → file offset; empty if it has none."""
    import numpy as np

    from symbolizer.elf import Elf
    from symbolizer.elf_error import ElfError

    try:
        with path.open("rb") as file:
            elf = Elf.parse(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        table = elf.symbols()
    except (ElfError, OSError, ValueError):
        return [], {}
    sizes = table.size
    rows = np.flatnonzero(sizes > 0)
    pairs = sorted(set(zip(table.value[rows].tolist(), sizes[rows].tolist(), strict=True)))
    offsets = {start: elf.vaddr_to_file_offset(start) for start, _ in pairs}
    known = {start: offset for start, offset in offsets.items() if offset is not None}
    return [(start, size) for start, size in pairs if start in known], known


def requests(path: Path, count: int) -> list[Request]:
    """Return `count` requests into one file."""
    functions, offsets = functions_of(path)
    starts = [start for start, _ in functions]
    found = spread(functions, count, random.Random(SEED))
    return [_request(path, vaddr, starts, offsets) for vaddr in found]


def _request(path: Path, vaddr: int, starts: Sequence[int], offsets: dict[int, int]) -> Request:
    from bisect import bisect_right

    start = starts[bisect_right(starts, vaddr) - 1]
    return Request(str(path), vaddr, offsets[start] + vaddr - start)


def largest_libraries(count: int) -> Iterator[Path]:
    """Yield the largest shared libraries with function symbols, each file once, the largest first."""
    sizes: dict[Path, int] = {}
    for folder, _, names in os.walk(LIBRARIES):
        if _DETACHED in (Path(folder), *Path(folder).parents):
            continue
        for name in names:
            path = Path(folder, name)
            if ".so" in name and not path.is_symlink() and path.is_file():
                sizes[path] = path.stat().st_size
    found = 0
    for path in sorted(sizes, key=lambda one: (-sizes[one], one)):
        if found == count:
            return
        if functions_of(path)[0]:
            found += 1
            yield path


def main(arguments: Sequence[str]) -> None:
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    if arguments[0] == "--libraries":
        print(*largest_libraries(int(arguments[1])), sep="\n")
        return
    for path in arguments[1:]:
        print(*requests(Path(path), int(arguments[0])), sep="\n")


if __name__ == "__main__":
    main(sys.argv[1:])
