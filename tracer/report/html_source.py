"""A few lines of source around each frame, where the files are on this machine.

What files are read is said by a recording, which may come from anybody: so only files that are source by their name,
relative ones only below the current folder, regular, text and not too large.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass

#: Lines before and behind the one of a frame.
AROUND = 3
#: Bytes of a file, characters of a line, files and bytes of all excerpts.
LARGEST, WIDEST, MOST_FILES, MOST_TEXT = 4 << 20, 240, 400, 400_000
#: What is source. Without this, a recording could ask for any file of the user that makes a page of it.
_SOURCE = frozenset((
    ".c", ".cc", ".cpp", ".cxx", ".c++", ".h", ".hh", ".hpp", ".hxx", ".h++", ".inc", ".inl", ".ipp", ".tcc", ".cu",
    ".rs", ".go", ".zig", ".d", ".nim", ".swift", ".m", ".mm", ".py", ".pyx", ".js", ".mjs", ".ts", ".java", ".kt",
    ".scala", ".cs", ".pl", ".rb", ".lua", ".vala", ".ml", ".hs", ".adb", ".ads", ".pas", ".f90", ".cr", ".s", ".S"))


@dataclass(frozen=True, slots=True)
class Excerpt:
    """Lines of one file by their numbers from 1; changed: the file is newer than what is reported."""

    lines: dict[int, str]
    changed: bool


def excerpts(places: Iterable[tuple[str, int]], taken: float) -> dict[str, Excerpt]:
    """Return by file what stands around these lines; a file that is missing or not to be read is left out.

    taken: when the report was made, in seconds since 1970.
    """
    wanted: dict[str, set[int]] = {}
    for file, line in places:
        if file in wanted or len(wanted) < MOST_FILES:
            wanted.setdefault(file, set()).add(line)
    made: dict[str, Excerpt] = {}
    left = MOST_TEXT
    for file, lines in wanted.items():
        found = _read(file)
        if found is None:
            continue
        text, modified = found
        around = {line: text[line - 1][:WIDEST] for middle in sorted(lines) if middle <= len(text)
                  for line in range(max(1, middle - AROUND), min(len(text), middle + AROUND) + 1)}
        left -= sum(map(len, around.values()))
        if left < 0:
            break
        if around:
            made[file] = Excerpt(around, modified > taken)
    return made


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOFOLLOW)


def _read(file: str) -> tuple[list[str], float] | None:
    """Return the lines of a file and when it was written, None if it is not one to show."""
    try:
        path, here = os.path.realpath(file), os.path.realpath(os.curdir)
        if not os.path.isabs(file) and os.path.commonpath([here, path]) != here:
            return None
        if not all(os.path.splitext(name)[1] in _SOURCE for name in (file, path)):
            return None
        # A pipe or a device that calls itself source shall not be waited for.
        with open(path, "rb", opener=_open) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_size > LARGEST:
                return None
            content = opened.read(LARGEST + 1)
    except (OSError, ValueError):
        return None
    if b"\0" in content or len(content) > LARGEST:
        return None
    return content.decode("utf-8", "replace").replace("\r\n", "\n").split("\n"), status.st_mtime
