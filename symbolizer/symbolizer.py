"""From (object, file offset) to frames; works after the process has gone, because it holds the objects' bytes."""

from collections.abc import Callable, Hashable
from functools import cached_property
from mmap import mmap

from symbolizer.demangle import demangle
from symbolizer.elf import Elf, ElfError
from symbolizer.frame import Frame, Why
from symbolizer.lines import LineTable
from symbolizer.printable import printable
from symbolizer.symbol_table import SymbolTable

Opener = Callable[[], bytes | mmap]


class ObjectFile:
    """One file with code: its bytes are held from the start, its tables are made when first needed.

    `path` is safe to print. `why` is None for a file that can be read, else the reason that it cannot.
    """

    def __init__(self, key: Hashable, display_path: str, opener: Opener) -> None:
        """Open the file at once, so that its names outlive the target; an opener may raise OSError or ValueError."""
        self.key = key
        self.path = printable(display_path)
        self.why: Why | None = None
        self.data: bytes | mmap = b""
        try:
            self.data = opener()
        except FileNotFoundError:
            self.why = Why.GONE
        except (OSError, ValueError):  # mmap() of an empty file raises ValueError
            self.why = Why.UNREADABLE

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
        """Return the file's functions, None if the tables cannot be read."""
        try:
            return self.elf.symbols() if self.elf is not None else None
        except ElfError:
            return None

    @cached_property
    def lines(self) -> LineTable | None:
        """Return the file's source lines, None if it carries no DWARF."""
        try:
            if self.elf is None or not self.elf.has_dwarf:
                return None
        except ElfError:
            return None
        return LineTable.parse(self.data, self.elf.load_address)


class Symbolizer:
    """Names addresses in the objects it was given; answers are kept, as the same call sites come again and again."""

    def __init__(self) -> None:
        """Start without objects."""
        self._objects: dict[Hashable, ObjectFile] = {}
        self._resolved: dict[tuple[Hashable, int, int, bool], tuple[Frame, ...]] = {}

    def add_object(self, key: Hashable, display_path: str, opener: Opener) -> ObjectFile:
        """Open an object and hold its bytes; for a key that is known already, return the one that is held."""
        if key not in self._objects:
            self._objects[key] = ObjectFile(key, display_path, opener)
        return self._objects[key]

    def object_file(self, key: Hashable) -> ObjectFile | None:
        """Return the object of that key, None if it was never added."""
        return self._objects.get(key)

    def resolve(
        self, key: Hashable | None, file_offset: int, address: int, is_return_address: bool
    ) -> tuple[Frame, ...]:
        """Return the frames at a byte of an object, innermost first; all but the last are inlined calls.

        `key` is None where nothing is mapped. `address` is the address in the process, and only goes into the
        frames. A return address is the byte after its call, which can belong to another line or function: the byte
        before it is looked up. One frame with `why` is the answer where there is no name.
        """
        if key is None:
            return (Frame(address, why=Why.UNMAPPED),)
        request = (key, file_offset, address, is_return_address)
        frames = self._resolved.get(request)
        if frames is None:
            target = self._objects.get(key)
            frames = (
                (Frame(address, why=Why.GONE),)
                if target is None
                else _resolve(target, file_offset, address, back=1 if is_return_address else 0)
            )
            # An object that comes later may name it.
            if target is not None:
                self._resolved[request] = frames
        return frames


def _resolve(target: ObjectFile, file_offset: int, address: int, back: int) -> tuple[Frame, ...]:
    """Return the frames of the code `back` bytes before the file offset."""

    def unnamed(why: Why) -> tuple[Frame, ...]:
        return (Frame(address, module=target.path, build_id=target.build_id, why=why),)

    if target.why is not None:
        return (Frame(address, module=target.path, why=target.why),)
    if not target.is_whole():
        return (Frame(address, module=target.path, why=Why.GONE),)
    if target.elf is None:
        return unnamed(Why.UNREADABLE)
    vaddr = target.elf.file_offset_to_vaddr(file_offset - back)
    if vaddr is None:
        return unnamed(Why.NOT_COVERED)
    frames = _named(target, vaddr, address, back)
    if frames:
        return frames
    if target.symbols is None:
        return unnamed(Why.UNREADABLE)
    return unnamed(Why.NOT_COVERED if len(target.symbols) else Why.NO_SYMBOLS)


def _named(target: ObjectFile, vaddr: int, address: int, back: int) -> tuple[Frame, ...]:
    """Return the frames at the vaddr, which lies `back` bytes before the address; empty if nothing names it.

    The outermost function's name and offset come from the ELF symbol where one covers the vaddr: DWARF knows one
    name for a function and the part that the compiler split off, and no scope for a static one. DWARF adds lines
    and inlined calls.
    """
    symbol = target.symbols.find(vaddr) if target.symbols is not None else None
    locations = target.lines.lookup(vaddr) if target.lines is not None else ()
    if not locations:
        if symbol is None:
            return ()
        return (Frame(address, demangle(symbol[0]), symbol[1] + back, target.path, target.build_id),)
    frames = []
    for location in locations:
        name, offset = location.function, None
        if not location.inlined and symbol is not None:
            name, offset = symbol[0], symbol[1] + back
        elif location.start is not None and location.start <= vaddr:
            offset = vaddr - location.start + back
        file = printable(location.file) if location.file is not None else None
        frames.append(
            Frame(
                address=address,
                function=demangle(name),
                offset=offset,
                module=target.path,
                build_id=target.build_id,
                file=file,
                line=location.line,
                inlined=location.inlined,
            )
        )
    return tuple(frames)
