"""One file with code, and every place its names may lie: in it, in its debug file, in what it carries compressed."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from mmap import mmap
from typing import Protocol

from symbolizer.cache_folder import CacheFolder
from symbolizer.debug_files import DebugFile, DebugFiles
from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.frame import Why
from symbolizer.line_service import LineService
from symbolizer.line_source import LineSource
from symbolizer.minidebuginfo import minidebuginfo
from symbolizer.plt import plt_names
from symbolizer.printable import printable
from symbolizer.symbol_table import SymbolTable

Opener = Callable[[], bytes | mmap]


class NameTable(Protocol):
    """Names of addresses."""

    def find(self, vaddr: int) -> tuple[str, int] | None:
        """Return the linker name of what covers the vaddr, and the vaddr's offset in it in bytes."""


@dataclass(frozen=True, slots=True)
class Sources:
    """Where the names of all objects may come from besides the objects themselves."""

    lines: LineService
    debug_files: DebugFiles
    cache: CacheFolder | None = None


class ObjectFile:
    """One file: its bytes are held from the start, its tables are made when first needed.

    `path` is safe to print. `why` is None for a file that can be read, else the reason that it cannot. `roots` are the
    folders in which its debug files are looked for, its own first: "/", or "/proc/PID/root".
    """

    def __init__(
        self, key: Hashable, path: str, opener: Opener, sources: Sources, roots: Sequence[str] = ("/",)
    ) -> None:
        """Open the file at once, so that its names outlive the target; an opener may raise OSError or ValueError."""
        self.key = key
        self.path = printable(path)
        self.why: Why | None = None
        self.data: bytes | mmap = b""
        self._raw_path = path
        self._sources = sources
        self._roots = tuple(roots)
        try:
            self.data = opener()
        except FileNotFoundError:
            self.why = Why.GONE
        except (OSError, ValueError):  # mmap() of an empty file raises ValueError
            self.why = Why.UNREADABLE

    @property
    def is_of_host(self) -> bool:
        """Return whether its path is one of this machine's own root folder, not of a container's."""
        return self._roots[0] == "/"

    @property
    def has_all_symbols(self) -> bool:
        """Return whether it names all its functions, so that a debug file would bring no more names."""
        return self._complete is not None or self.debug_file is not None

    @property
    def refused_debug_file(self) -> str | None:
        """Return the debug file that lies where it should and is another build's, None if there is none."""
        return self._sources.debug_files.refused.get(self._raw_path)

    @property
    def made_lines(self) -> LineSource | None:
        """Return the source lines if they were asked for and there are any."""
        return self.__dict__.get("lines")

    def is_whole(self) -> bool:
        """Return whether the file still has the bytes that are mapped: reading beyond its end would end the process."""
        return not isinstance(self.data, mmap) or self.data.size() >= len(self.data)

    @cached_property
    def elf(self) -> Elf | None:
        """Return the parsed file, None if it cannot be read or is no ELF file for x86-64."""
        try:
            return Elf.parse(self.data)
        except ElfError:
            return None

    @cached_property
    def build_id(self) -> str | None:
        """Return the build id in hex, None if there is none."""
        return self.elf.build_id if self.elf is not None else None

    @cached_property
    def symbols(self) -> SymbolTable | None:
        """Return the file's own functions, None if the tables cannot be read."""
        return _symbols(self.elf)

    @cached_property
    def debug_file(self) -> DebugFile | None:
        """Return its separate debug file, None if it has DWARF of its own or there is none."""
        if self.elf is None or _has_dwarf(self.elf):
            return None
        return self._sources.debug_files.companion(self.elf, self._raw_path, self._roots)

    @cached_property
    def lines(self) -> LineSource | None:
        """Return the source lines, its own or its debug file's; None if there is no DWARF."""
        elf, path = self.elf, self._raw_path
        if self.debug_file is not None:
            elf, path = self.debug_file.elf, self.debug_file.path
        if elf is None or not _has_dwarf(elf):
            return None
        supplement = self._sources.debug_files.supplement(elf, path, self._roots)
        return LineSource(elf, supplement.data if supplement else None, self._sources.lines, self._sources.cache)

    def find_symbol(self, vaddr: int) -> tuple[str, int] | None:
        """Return the linker name of what covers the vaddr, and the vaddr's offset in it, by the best table."""
        if self._complete is not None:
            found = self._complete.find(vaddr)
            if found is not None:
                return found
        for table in self._other_tables():
            found = table.find(vaddr)
            if found is not None:
                return found
        return None

    def has_symbols(self) -> bool:
        """Return whether it has the name of any function anywhere."""
        tables = [self._complete, self._debug_symbols, self._compressed_symbols, self.symbols]
        return any(len(table) for table in tables if table is not None)

    @cached_property
    def _complete(self) -> SymbolTable | None:
        """Return the file's own table of all its functions, None if it was stripped."""
        return self.symbols if self.elf is not None and self.elf.has_symtab else None

    def _other_tables(self) -> Iterator[NameTable]:
        """Give the other tables of names, each made when it comes to it: those of all functions first."""
        if self._complete is None:
            for extra in (self._debug_symbols, self._compressed_symbols, self.symbols):
                if extra is not None:
                    yield extra
        if self._plt is not None:
            yield self._plt

    @cached_property
    def _debug_symbols(self) -> SymbolTable | None:
        return _symbols(self.debug_file.elf) if self.debug_file is not None else None

    @cached_property
    def _compressed_symbols(self) -> SymbolTable | None:
        return _symbols(minidebuginfo(self.elf)) if self.elf is not None else None

    @cached_property
    def _plt(self) -> NameTable | None:
        return plt_names(self.elf) if self.elf is not None else None


def _symbols(elf: Elf | None) -> SymbolTable | None:
    try:
        return elf.symbols() if elf is not None else None
    except ElfError:
        return None


def _has_dwarf(elf: Elf) -> bool:
    try:
        return elf.has_dwarf
    except ElfError:
        return False
