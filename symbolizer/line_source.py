"""The lines of one object file: made when first asked for, all at once or, of a large file, piece by piece."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cached_property
from itertools import chain
from mmap import mmap
from typing import Any

from symbolizer.cache_folder import CacheFolder
from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.elf_section import Section
from symbolizer.file_map import shared_descriptor
from symbolizer.line_service import BASE_TIME, BYTES_PER_SECOND, Answer, LineService, Request
from symbolizer.lines import LineTable, Location, tidy
from symbolizer.unit_ranges import UnitRanges, pieces, unit_starts
from symbolizer.unit_skips import UnitSkips

#: Of .debug_info, in bytes: reading that much takes some 0.3 s. Files of less than two are read whole.
PIECE = 24 << 20
#: Changes with the content of cached files; symbolic's own format has its version in the name as well.
FORMAT = "lines-1"
_WHOLE = (0, 0)
#: Thunks (Itanium C++ ABI, 5.1.4): they stand in no source, and the line they are given says nothing.
_MADE_BY_COMPILERS = ("_ZTh", "_ZTv", "_ZTc")
#: Bytes of .debug_aranges and .debug_abbrev; those of the largest programs have some 20 MB.
LARGEST_TABLE = 1 << 27
#: For all addresses of one file that symbolic's table does not answer.
MOST_SECONDS = 30.0
Piece = tuple[int, int]


class LineSource:
    """The DWARF of one ELF file; `supplement` has the parts that dwz moved to another file.

    `problem` is None, or one sentence's end that says why lines are missing. `split` has the .dwo files that would
    have had more.
    """

    def __init__(
        self, elf: Elf, supplement: bytes | mmap | None, service: LineService, cache: CacheFolder | None
    ) -> None:
        self._elf = elf
        self._supplement = supplement
        self._service = service
        self._cache = cache if elf.build_id is not None else None
        self._tables: dict[Piece, LineTable | None] = {}
        self._seconds_left = MOST_SECONDS
        self.problem: str | None = None
        self.split: set[str] = set()

    # Which pieces there are.

    @cached_property
    def _info(self) -> Section | None:
        try:
            return self._elf.section(".debug_info")
        except ElfError:
            return None

    @cached_property
    def _starts(self) -> list[int]:
        """Return where the units start, empty for a file that is read whole: it is small, or compressed."""
        info = self._info
        if info is None or info.is_compressed or len(info.raw) < 2 * PIECE:
            return []
        starts = unit_starts(info.raw)
        skips = self._unit_skips
        return starts if starts and skips is not None and skips.are_safe(starts[-1]) else []

    @cached_property
    def _unit_skips(self) -> UnitSkips | None:
        try:
            abbrev = self._elf.section(".debug_abbrev")
            return UnitSkips(self._info.raw, abbrev.content(LARGEST_TABLE)) if self._info and abbrev else None
        except ElfError:
            return None

    @cached_property
    def _pieces(self) -> list[Piece]:
        size = self._info_size
        # Of equal size, so that two that are read at once are done at once.
        return pieces(self._starts, size, size // max(1, size // PIECE)) if self._starts else [_WHOLE]

    @property
    def _info_size(self) -> int:
        return len(self._info.raw) if self._info is not None else 0

    @cached_property
    def _units(self) -> UnitRanges:
        """Return which unit describes which addresses; where .debug_aranges does not say, the units themselves do."""
        try:
            section = self._elf.section(".debug_aranges")
            found = UnitRanges.parse_aranges(section.content(LARGEST_TABLE) if section is not None else memoryview(b""))
        except ElfError:
            found = UnitRanges.of(())
        if found.units().issuperset(self._starts):
            return found
        request = Request({"do": "ranges"}, [shared_descriptor(self._elf.data)], self._time(self._info_size))
        answer = self._service.ask([request])[0]
        return UnitRanges.from_bytes(answer.content) if not answer.error else found

    def _piece_of(self, vaddr: int) -> Piece | None:
        if not self._starts:
            return _WHOLE
        unit = self._units.unit_of(vaddr)
        if unit is None:
            return None
        return next((piece for piece in self._pieces if piece[0] <= unit < piece[1]), None)

    # Making their tables.

    def missing(self, vaddrs: Iterable[int]) -> list[Piece]:
        """Return the pieces that have to be made before these can be looked up; those that are cached are loaded."""
        wanted = {piece for vaddr in vaddrs if (piece := self._piece_of(vaddr)) is not None} - self._tables.keys()
        return [piece for piece in sorted(wanted) if not self._load(piece)]

    def request(self, piece: Piece) -> Request:
        """Return what to ask the service for a piece."""
        descriptors = [shared_descriptor(self._elf.data)]
        changes = array("Q", chain.from_iterable(self._skips(piece)))
        if changes:
            descriptors.append(shared_descriptor(changes.tobytes()))
        size = self._info_size if piece == _WHOLE else piece[1] - piece[0]
        message = {"do": "convert", "hidden": self._elf.symbol_table_types()}
        return Request(message, descriptors, self._time(size))

    def take(self, piece: Piece, answer: Answer) -> None:
        """Take the service's answer for a piece."""
        table = LineTable.parse(answer.content, self._elf.load_address) if not answer.error else None
        self._tables[piece] = table
        if table is None:
            self.problem = answer.error or "its reader made nothing of it"
        elif self._cache is not None:
            self._cache.store(self._cache_name(piece), answer.content)

    def _load(self, piece: Piece) -> bool:
        content = self._cache.load(self._cache_name(piece)) if self._cache is not None else None
        table = LineTable.parse(content, self._elf.load_address) if content is not None else None
        if table is not None:
            self._tables[piece] = table
        return table is not None

    def _cache_name(self, piece: Piece) -> str:
        from symbolic.symcache import SYMCACHE_LATEST_VERSION

        # One build id can belong to the whole file and to its stripped one with a part of the DWARF.
        return f"{self._elf.build_id}-{self._info_size:x}-{piece[0]:x}-{piece[1]:x}.{FORMAT}.{SYMCACHE_LATEST_VERSION}"

    def _skips(self, piece: Piece) -> Iterator[tuple[int, int]]:
        """Give (file offset, byte) to change so that units that have code in other pieces are passed over.

        Units without code stay: they have what others refer to.
        """
        info, skips = self._info, self._unit_skips
        if piece == _WHOLE or info is None or skips is None:
            return
        with_code = self._units.units()
        for start in self._starts:
            if start in with_code and not piece[0] <= start < piece[1]:
                yield from ((info.offset + at, byte) for at, byte in skips.patch(start))

    def _time(self, size: int) -> float:
        return BASE_TIME + size / BYTES_PER_SECOND

    # Looking up.

    def lookup(self, vaddr: int, symbol: str | None = None) -> tuple[Location, ...]:
        """Return the functions at the vaddr, innermost first; empty where DWARF does not describe it.

        `symbol` is the linker name of the function there, if it is known.
        """
        piece = self._piece_of(vaddr)
        if piece is None:
            return ()
        if self.missing([vaddr]):
            self.take(piece, self._service.ask([self.request(piece)])[0])
        table = self._tables[piece]
        locations = table.lookup(vaddr) if table is not None else ()
        if any(not location.function for location in locations):
            return self._with_names(vaddr, locations)
        if not locations and table is not None and not (symbol or "").startswith(_MADE_BY_COMPILERS):
            return self._by_line_table(vaddr)
        return locations

    def _ask_about(self, vaddr: int, what: str, descriptors: list[int]) -> Any:
        """Return what the worker finds out about one address; all addresses of a file have one budget of time."""
        began = time.monotonic()
        answer = self._service.ask([Request({"do": what, "vaddr": vaddr}, descriptors)])[0]
        self._seconds_left -= time.monotonic() - began
        if answer.error or self._seconds_left <= 0:
            self._seconds_left = 0.0
            self.problem = answer.error or "reading them took too long"
        return answer.values.get(what)

    def _with_names(self, vaddr: int, locations: tuple[Location, ...]) -> tuple[Location, ...]:
        """Return the locations with the names that lie in another file, or in a unit that was not read."""
        if self._seconds_left <= 0:
            return locations
        descriptors = [shared_descriptor(self._elf.data)]
        if self._supplement is not None:
            descriptors.append(shared_descriptor(self._supplement))
        names = self._ask_about(vaddr, "names", descriptors) or []
        if len(names) != len(locations):
            return locations
        return tuple(location if location.function else replace(location, function=name)
                     for location, name in zip(locations, names, strict=True))

    def _by_line_table(self, vaddr: int) -> tuple[Location, ...]:
        """Return the line of code for which no function is described.

        clang leaves functions out with -gline-tables-only, compilers leave out those they made themselves, assemblers
        know none, and with -gsplit-dwarf they are in a .dwo file.
        """
        if self._seconds_left <= 0:
            return ()
        place = self._ask_about(vaddr, "place", [shared_descriptor(self._elf.data)])
        if not place:
            return ()
        file, line, dwo = place
        if dwo:
            self.split.add(dwo)
        if not file:
            return ()
        return (Location("", tidy(file), line, inlined=False, start=None),)
