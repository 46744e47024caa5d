"""What reports say alike."""

from __future__ import annotations

import posixpath
from collections.abc import Sequence

from symbolizer.frame import Frame
from tracer.report.model import Finding

#: Functions of containers, which are made in every program that uses them.
_TEMPLATES = ("std::", "__gnu_cxx::")
#: Files of the C and C++ runtimes, whose functions allocate for others.
_RUNTIME = ("libc.so", "libc-", "libc++", "libstdc++.so", "ld-linux", "ld-musl", "libpthread")


def amount(size: int, count: int) -> str:
    """Return bytes and blocks in words."""
    return f"{size} bytes in {count} {'allocation' if count == 1 else 'allocations'} not given back"


def held(finding: Finding) -> str:
    """Return what a site holds in words, and whether that is an estimate."""
    return ("about " if finding.error else "") + amount(finding.bytes, finding.count)


def size(bytes_: float) -> str:
    """Return a number of bytes with two or three digits and a unit, 1 kB being 1,024 bytes."""
    value, unit = abs(bytes_), "bytes"
    for larger in ("kB", "MB", "GB", "TB"):
        if value < 1000:
            break
        value, unit = value / 1024, larger
    sign = "-" if bytes_ < 0 else ""
    return f"{sign}{value:.0f} {unit}" if unit == "bytes" or value >= 10 else f"{sign}{value:.1f} {unit}"


def blocks(count: int) -> str:
    """Return a number of blocks in words."""
    return f"{count:,} block{'' if count == 1 else 's'}"


def known_by(frames: Sequence[Frame]) -> str | None:
    """Return the function that a reader knows a site by, the innermost of the program's own; None without any name."""
    named = [frame for frame in frames if frame.function is not None]
    own = [frame for frame in named if not _is_runtime(frame.module) and not str(frame.function).startswith(_TEMPLATES)]
    return (own or named)[0].function if named else None


def short(name: str, longest: int = 60) -> str:
    """Return a name with its end cut off where it is too long for a line."""
    return name if len(name) <= longest else f"{name[: longest - 1]}…"


def _is_runtime(module: str | None) -> bool:
    return (module or "").rpartition("/")[2].startswith(_RUNTIME)


def below(folder: str | None, file: str | None) -> str | None:
    """Return a file's path relative to the folder if it lies below; a relative one is taken as relative to it."""
    if not file or not folder:
        return None
    path = posixpath.relpath(posixpath.join(folder, file), folder)
    return None if path == ".." or path.startswith("../") else path
