"""From an address to functions, files and lines, inlined calls included: symbolic's sorted table of a file's DWARF."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Self

#: Characters; what is longer is no path that the kernel would open.
LONGEST_PATH = 4096
# symbolic gives this as the function start of an inlined call, which has none.
_NO_START = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Location:
    """One function at an address, with its linker name where DWARF has it, else ""; `line` counts from 1.

    `start` is the function's first address, None for an inlined call. `file` is None where DWARF names none.
    """

    function: str
    file: str | None
    line: int | None
    inlined: bool
    start: int | None


class LineTable:
    """The functions and lines of one object file, or of some of its units."""

    __slots__ = ("_cache", "_image_base")

    def __init__(self, cache: Any, image_base: int) -> None:
        """Make a table from symbolic's cache; `parse()` is for everybody else."""
        self._cache = cache
        self._image_base = image_base

    @classmethod
    def parse(cls, content: bytes, image_base: int) -> Self | None:
        """Return the table in these bytes (line_worker.convert() made them), None if they are none.

        `image_base` is the vaddr of the lowest PT_LOAD segment, not rounded, from which symbolic counts.
        """
        # Loaded when the first file with DWARF needs it.
        import cffi
        from symbolic.exceptions import SymbolicError
        from symbolic.symcache import SymCache

        make: Any = SymCache.from_bytes
        try:
            return cls(make(cffi.FFI().from_buffer("uint8_t[]", content)), image_base)
        except (SymbolicError, ValueError):
            return None

    def lookup(self, vaddr: int) -> tuple[Location, ...]:
        """Return the functions at the address, innermost first; empty where DWARF does not describe it."""
        relative = vaddr - self._image_base
        if not 0 <= relative < _NO_START:
            return ()
        from symbolic.exceptions import SymbolicError

        try:
            found = self._cache.lookup(relative)
        except SymbolicError:
            return ()
        # symbolic fills the places without DWARF from the symbol table: no file, no language.
        if all(location.full_path is None and location.lang == "unknown" for location in found):
            return ()
        outermost = len(found) - 1
        return tuple(self._location(location, inlined=index < outermost) for index, location in enumerate(found))

    def _location(self, found: Any, inlined: bool) -> Location:
        start = None if found.sym_addr == _NO_START else found.sym_addr + self._image_base
        return Location(
            function=found.symbol,
            file=tidy(found.full_path) if found.full_path else None,
            line=found.line or None,
            inlined=inlined,
            start=start,
        )


@lru_cache(maxsize=4096)
def tidy(path: str) -> str:
    """Return the path without `.` and `x/..`; the compilation folder stands before it already."""
    return posixpath.normpath(path[:LONGEST_PATH])
