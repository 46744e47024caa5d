"""From (object, file offset) to frames; works after the process has gone, because it holds the objects' bytes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence

from symbolizer.cache_folder import CacheFolder
from symbolizer.choices import Style
from symbolizer.debug_files import DebugFiles
from symbolizer.demangle import demangle
from symbolizer.frame import Frame, Why
from symbolizer.line_service import LineService
from symbolizer.line_source import LineSource, Piece
from symbolizer.lines import Location
from symbolizer.object_file import ObjectFile, Opener, Sources
from symbolizer.printable import printable

#: Answers that are kept; each is some 500 bytes.
MOST_ANSWERS = 200_000


#: Where a signal handler returns to, in glibc and musl: nobody called it, so the byte before it is not its own.
_SIGNAL_RETURN = ("__restore_rt", 0)
_NOWHERE = (Location("", None, None, inlined=False, start=None),)


class Symbolizer:
    """Names addresses in the objects it was given; answers are kept, as the same call sites come again and again."""

    def __init__(
        self,
        *,
        style: Style = Style.FULL,
        debug_files: DebugFiles | None = None,
        cache: CacheFolder | None = None,
        lines: LineService | None = None,
    ) -> None:
        """Start without objects. `cache` keeps tables of lines between runs; `lines` is who makes them."""
        self._style = style
        self._sources = Sources(lines or LineService(), debug_files or DebugFiles(), cache)
        self._objects: dict[Hashable, ObjectFile] = {}
        self._resolved: dict[tuple[Hashable, int, int, bool], tuple[Frame, ...]] = {}

    def object_by_path(self, path: str) -> ObjectFile | None:
        """Return the first object with that path as frames have it, None if there is none."""
        return next((each for each in self._objects.values() if each.path == path), None)

    @property
    def objects(self) -> int:
        """Return how many objects it was given."""
        return len(self._objects)

    def helpers(self) -> list[int]:
        """Return the ids of the processes that work in the background."""
        return self._sources.lines.processes()

    def close(self) -> None:
        """End what works in the background; the symbolizer can still be used, and starts it again."""
        self._sources.lines.close()

    def add_object(self, key: Hashable, path: str, opener: Opener, roots: Sequence[str] = ("/",)) -> ObjectFile:
        """Open an object and hold its bytes; for a key that is known already, return the one that is held.

        `roots` are the folders in which its debug files are looked for, its own first.
        """
        if key not in self._objects:
            self._objects[key] = ObjectFile(key, path, opener, self._sources, roots)
        return self._objects[key]

    def object_file(self, key: Hashable) -> ObjectFile | None:
        """Return the object of that key, None if it was never added."""
        return self._objects.get(key)

    def prepare(self, requests: Iterable[tuple[Hashable, int]]) -> None:
        """Make the tables for these (key, file offset), several at a time; resolve() would make one after the other."""
        vaddrs: list[tuple[Hashable, int]] = []
        for key, offset in requests:
            target = self._objects.get(key)
            if target is not None and target.why is None and target.is_whole() and target.elf is not None:
                vaddr = target.elf.file_offset_to_vaddr(offset)
                if vaddr is not None:
                    vaddrs.append((key, vaddr))
        self.prepare_at(vaddrs)

    def prepare_at(self, requests: Iterable[tuple[Hashable, int]]) -> None:
        """Make the tables for these (key, address as the file has it) of objects that were added."""
        vaddrs: dict[Hashable, list[int]] = defaultdict(list)
        for key, vaddr in requests:
            vaddrs[key].append(vaddr)
        wanted: list[tuple[LineSource, Piece]] = []
        for key, places in vaddrs.items():
            lines = self._objects[key].lines
            if lines is not None:
                wanted += [(lines, piece) for piece in lines.missing(places)]
        if wanted:
            self._sources.lines.warm_up()
        answers = self._sources.lines.ask([lines.request(piece) for lines, piece in wanted])
        for (lines, piece), answer in zip(wanted, answers, strict=True):
            lines.take(piece, answer)

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
            if target is None:
                # An object that comes later may name it.
                return (Frame(address, why=Why.GONE),)
            if len(self._resolved) >= MOST_ANSWERS:
                self._resolved.clear()
            frames = self._resolve(target, file_offset, address, back=1 if is_return_address else 0)
            self._resolved[request] = frames
        return frames

    def names_at(self, key: Hashable, vaddr: int, address: int, is_return_address: bool) -> tuple[Frame, ...]:
        """Return the frames at an address as the file has it, as resolve() does; empty if nothing names it.

        For a file that has names only: in a debug file the code, and with it its offsets, are absent.
        """
        target = self._objects[key]
        if target.why is not None or not target.is_whole() or target.elf is None:
            return ()
        back = 1 if is_return_address else 0
        frames = self._named(target, vaddr - back, address, back)
        if not frames and back and target.find_symbol(vaddr) == _SIGNAL_RETURN:
            frames = self._named(target, vaddr, address, 0)
        return frames

    def _resolve(self, target: ObjectFile, file_offset: int, address: int, back: int) -> tuple[Frame, ...]:
        """Return the frames of the code `back` bytes before the file offset."""

        def unnamed(why: Why) -> tuple[Frame, ...]:
            return (Frame(address, module=target.path, build_id=target.build_id, module_offset=vaddr, why=why),)

        vaddr: int | None = None
        if target.why is not None:
            return (Frame(address, module=target.path, why=target.why),)
        if not target.is_whole():
            return (Frame(address, module=target.path, why=Why.GONE),)
        if target.elf is None:
            return unnamed(Why.UNREADABLE)
        looked_up = target.elf.file_offset_to_vaddr(file_offset - back)
        if looked_up is None:
            return unnamed(Why.NOT_COVERED)
        vaddr = looked_up + back
        frames = self._named(target, looked_up, address, back)
        if not frames and back and target.find_symbol(vaddr) == _SIGNAL_RETURN:
            frames = self._named(target, vaddr, address, 0)
        if frames:
            return frames
        if target.symbols is None:
            return unnamed(Why.UNREADABLE)
        return unnamed(Why.NOT_COVERED if target.has_symbols() else Why.NO_SYMBOLS)

    def _named(self, target: ObjectFile, vaddr: int, address: int, back: int) -> tuple[Frame, ...]:
        """Return the frames at the vaddr, which lies `back` bytes before the address; empty if nothing names it.

        The outermost function's name and offset come from the ELF symbol where one covers the vaddr: DWARF knows one
        name for a function and the part that the compiler split off, and no scope for a static one. DWARF adds lines
        and inlined calls.
        """
        symbol = target.find_symbol(vaddr)
        lines = target.lines
        locations = lines.lookup(vaddr, symbol[0] if symbol else None) if lines is not None else ()
        if not locations:
            if symbol is None:
                return ()
            locations = _NOWHERE
        return tuple(self._frame(target, location, symbol, vaddr, address, back) for location in locations)

    def _frame(
        self,
        target: ObjectFile,
        location: Location,
        symbol: tuple[str, int] | None,
        vaddr: int,
        address: int,
        back: int,
    ) -> Frame:
        name, offset = location.function, None
        if not location.inlined and symbol is not None:
            name, offset = symbol[0], symbol[1] + back
        elif location.start is not None and location.start <= vaddr:
            offset = vaddr - location.start + back
        return Frame(
            address=address,
            function=demangle(name, self._style) if name else None,
            offset=offset,
            module=target.path,
            build_id=target.build_id,
            file=printable(location.file) if location.file is not None else None,
            line=location.line,
            inlined=location.inlined,
            why=None if name else Why.NO_SYMBOLS,
            module_offset=vaddr + back,
        )
