"""What is fuzzed: one function per parser, from bytes to nothing. What may not happen raises.

Only documented exceptions are caught here. That an input takes too long or too much memory is seen by `limits.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from contextlib import suppress
from itertools import count, pairwise

from fuzzing import kernel_types, recordings
from symbolizer import line_program as lines_of_unit
from symbolizer.cfa_program import GARBAGE, CommonEntry, Machine
from symbolizer.choices import Style
from symbolizer.debug_files import DebugFiles
from symbolizer.demangle import LONGEST, demangle
from symbolizer.elf import Elf
from symbolizer.elf_data import find_data
from symbolizer.elf_error import ElfError
from symbolizer.frame import Frame
from symbolizer.image_build_id import image_build_id
from symbolizer.jit_symbol import jit_symbol
from symbolizer.kallsyms import KernelTable
from symbolizer.lines import LineTable
from symbolizer.mappings import AddressSpace, parse_maps
from symbolizer.minidebuginfo import minidebuginfo
from symbolizer.perf_map import PerfMap
from symbolizer.plt import plt_names
from symbolizer.symbolizer import Symbolizer
from symbolizer.unit_ranges import UnitRanges, pieces, unit_starts
from symbolizer.unit_skips import UnitSkips
from symbolizer.unwind_info import UnwindInfo
from symbolizer.unwind_rule import UnwindRule
from tests.programs.hostile_seeds import Part, elf_of

Target = Callable[[bytes], None]
_BORDERS = (0, 1, 64, 0x1000, 0x1040, 0x401000, 2**31, 2**32, 2**47, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1, 2**64, -1)
_SECTIONS = (
    ".text", ".symtab", ".strtab", ".dynsym", ".dynstr", ".debug_info", ".debug_abbrev", ".debug_line", ".debug_str",
    ".debug_aranges", ".gnu_debugdata", ".gnu_debuglink", ".gnu_debugaltlink", ".plt", ".rela.plt", ".eh_frame", "",
)
#: What no text of a frame may hold: C0, DEL and C1 controls, marks that turn the writing direction, separators of
#: lines, lone surrogates. Written as ranges of its own, not taken from what is tested.
_RAW = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_NOWHERE = "/nonexistent/leaktrace-fuzz"


def require(holds: bool, text: str) -> None:
    """Raise unless it holds; an assert statement would be left out under -O."""
    if not holds:
        raise AssertionError(text)


def require_printable(*texts: str | None) -> None:
    """Raise unless the texts are safe to write to a terminal."""
    for text in texts:
        require(text is None or _RAW.search(text) is None, f"not safe to print: {text!r}")


def require_sound(frames: Iterable[Frame]) -> None:
    """Raise unless there are frames, each with a name or a reason, and safe to print."""
    found = list(frames)
    require(bool(found), "no frame at all")
    for frame in found:
        require((frame.function is None) == (frame.why is not None), f"neither named nor explained: {frame}")
        require_printable(frame.function, frame.module, frame.file, frame.build_id)


def _places(elf: Elf) -> list[int]:
    """Return vaddrs to ask about: the borders of everything, and where its first segments begin and end."""
    ends = [place for part in elf.segments[:16] for place in (part.vaddr, part.vaddr + part.filesz - 1)]
    return [*_BORDERS, *ends, *range(0x1000, 0x1400, 0x40)]


def elf(data: bytes) -> None:
    """Headers, sections, notes, the dynamic section, symbols: ElfError is the only exception."""
    try:
        parsed = Elf.parse(data)
    except ElfError:
        return
    _ = parsed.load_address, parsed.image_base, parsed.build_id, parsed.has_symtab
    for offset in parsed.symbol_table_types():
        require(0 <= offset <= len(data) - 4, "a section header outside of the file")
    reads: tuple[Callable[[], object], ...] = (
        lambda: parsed.soname, lambda: parsed.needed, lambda: parsed.interpreter, lambda: parsed.has_dwarf)
    for read in reads:
        _quietly(read)
    for name in _SECTIONS:
        _quietly(lambda name=name: section.data if (section := parsed.section(name)) is not None else None)
    places = _places(parsed)
    for place in places:
        parsed.file_offset_to_vaddr(place)
        parsed.vaddr_to_file_offset(place)
    find_data(parsed, "environ")
    try:
        table = parsed.symbols()
    except ElfError:
        return
    for place in [*places, *table.value[:16].tolist(), *table.end[-16:].tolist()]:
        found = table.find(place)
        require(found is None or found[1] >= 0, "an offset below zero")
    table.defined(["main", "outer", "_ZN4deep5riskyEi", "a" * 300, b"\xff\xfe", "\udcff", ""])


def _quietly(read: Callable[..., object]) -> None:
    with suppress(ElfError):
        read()


def unwind(data: bytes) -> None:
    """Call frame information of a whole file: no exception at all."""
    info = UnwindInfo(data, limit=1 << 16)
    for place in (*_BORDERS, *range(0x1000, 0x1400, 0x10)):
        rule = info.rule_at(place)
        require(UnwindRule.decode(rule.encode()) == rule, f"{rule} is another one when encoded")
        bounds = info.function_bounds(place)
        require(bounds is None or bounds[0] <= place < bounds[1], "a function that does not cover the address")


def eh_frame(data: bytes) -> None:
    """Bytes as .eh_frame, as .debug_frame, and the first of them as the sorted table."""
    cut = data[0] % 64 if data else 0
    table, rest = data[1 : 1 + cut], data[1 + cut :]
    unwind(elf_of([Part(".eh_frame", rest)]))
    unwind(elf_of([Part(".debug_frame", rest)]))
    unwind(elf_of([Part(".eh_frame", rest), Part(".eh_frame_hdr", table)], eh_frame_hdr=".eh_frame_hdr"))


def cfa_program(data: bytes) -> None:
    """A call frame program: it ends in a rule, or in one of GARBAGE."""
    if len(data) < 6:
        return
    code, factor, column, encoding, flags, target = data[:6]
    entry = CommonEntry(code, factor - 128, 16 if column < 128 else column, encoding, bool(flags & 1), bool(flags & 2),
                        (7, 8), {16: -8})
    machine = Machine(entry, 0)
    try:
        machine.run(data[6:], target << 4, 0x1000)
        rule = machine.rule()
    except GARBAGE:
        return
    require(UnwindRule.decode(rule.encode()) == rule, f"{rule} is another one when encoded")
    UnwindRule.decode(int.from_bytes(data[:8], "little"))


def debugdata(data: bytes) -> None:
    """Bytes as .gnu_debugdata: a file with a .symtab, or none."""
    inner = minidebuginfo(Elf.parse(elf_of([Part(".gnu_debugdata", data)])))
    if inner is not None:
        _quietly(lambda: inner.symbols().find(0x1000))


def debug_links(data: bytes) -> None:
    """Bytes as .gnu_debuglink and .gnu_debugaltlink of a file: no exception, and nothing found where nothing is."""
    files = DebugFiles((_NOWHERE,))
    parsed = Elf.parse(elf_of([Part(".gnu_debuglink", data), Part(".gnu_debugaltlink", data)]))
    require(files.companion(parsed, f"{_NOWHERE}/program", (_NOWHERE,)) is None, "a file out of nothing")
    require(files.supplement(parsed, f"{_NOWHERE}/program", (_NOWHERE,)) is None, "a file out of nothing")


def plt(data: bytes) -> None:
    """Procedure linkage tables of a whole file: no exception at all."""
    try:
        parsed = Elf.parse(data)
    except ElfError:
        return
    names = plt_names(parsed)
    for place in _places(parsed):
        found = names.find(place)
        require(found is None or (found[0].endswith("@plt") and found[1] >= 0), f"{found}")


def perf_map(data: bytes) -> None:
    """A runtime's names: no exception, safe to print, and in pieces that do not overlap."""
    table = PerfMap.parse(data)
    apart = (table.start < table.end).all() and (table.end[:-1] <= table.start[1:]).all()
    require(bool(apart), "overlapping pieces")
    for place in [*_BORDERS, *table.start[:64].tolist(), *(table.end[:64] - 1).tolist()]:
        found = table.find(place)
        if found is not None:
            symbol = jit_symbol(found[0])
            require(found[1] >= 0, "an offset below zero")
            require_printable(found[0], symbol.function, symbol.file)


def kallsyms(data: bytes) -> None:
    """The kernel's names, and behind a NUL its modules: no exception, and safe to print."""
    symbols, _, modules = data.partition(b"\0")
    table = KernelTable.parse(symbols, modules)
    for place in [*_BORDERS, *table.start[:64].tolist(), *table.stops[:16].tolist()]:
        found = table.find(place)
        if found is not None:
            require_printable(found.name, found.module)
        region = table.region(place)
        require_printable(region.module if region is not None else None)
    table.module_lines()


def units(data: bytes) -> None:
    """Bytes as .debug_aranges and .debug_info: no exception, and pieces that cover all of it once."""
    ranges = UnitRanges.parse_aranges(memoryview(data))
    ranges.units()
    for place in (*_BORDERS[:-2], *list(ranges.start[:16])):
        ranges.unit_of(place)
    starts = unit_starts(memoryview(data))
    require(all(start < len(data) for start in starts), "a unit outside of its section")
    parts = pieces(starts, len(data), 64)
    require(parts[-1][1] == len(data) and all(a[1] == b[0] for a, b in pairwise(parts)), "a gap")


def skips(data: bytes) -> None:
    """The first half as .debug_info, the second as .debug_abbrev: no exception, and changes within .debug_info only."""
    half = len(data) // 2
    info = memoryview(data)[:half]
    known = UnitSkips(info, memoryview(data)[half:])
    starts = unit_starts(info)
    if starts and known.are_safe(starts[-1]):
        for start in starts:
            for at, byte in known.patch(start):
                require(start <= at < half and 0 <= byte < 256, "a change outside of the unit")


def unit_lines(data: bytes) -> None:
    """A line number program: rows, or IndexError where it ends within an instruction."""
    if len(data) < 4:
        return
    base = data[2]
    header = lines_of_unit.Parameters(data[0] - 128, data[1], base, data[3], tuple(data[4 : 3 + base]))
    with suppress(IndexError):
        lines_of_unit.run(data[3 + base :], header)


def line_table(data: bytes) -> None:
    """Bytes as the table that a worker sends or a cache has: none, or answers."""
    table = LineTable.parse(data, 0x1000)
    if table is not None:
        for place in _BORDERS:
            for location in table.lookup(place):
                require(location.line is None or location.line > 0, "line zero")


def memory_image(data: bytes) -> None:
    """An ELF image in memory, read as /proc/PID/mem is: an id, none, or OSError."""
    start = 0x7F0000000000

    def read(address: int, size: int) -> bytes:
        if address >= 2**63:
            raise OverflowError("what seek() raises")
        if address < 0:
            raise OSError("what the kernel answers")
        at = address - start
        if not 0 <= at < len(data):
            raise OSError("not mapped")
        return data[at : at + size]

    with suppress(OSError):
        image_build_id(read, start)


def names(data: bytes) -> None:
    """A linker name: text in each style, safe to print and not much longer than it may be."""
    name = data.decode("utf-8", "backslashreplace")
    for style in Style:
        text = demangle(name, style)
        require_printable(text)
        # One character can become six when it is made safe.
        require(len(text) <= 6 * LONGEST + 100, f"{len(text)} characters")


def maps(data: bytes) -> None:
    """The text of /proc/PID/maps: mappings that are none are left out."""
    space = AddressSpace.of(parse_maps(data))
    for place in (*_BORDERS, *space.starts[:32]):
        mapping = space.locate(place)
        require(mapping is None or mapping.start <= place < mapping.end, "a mapping that does not hold the address")
    space.objects()


class WholePath:
    """Files from opening to frames, with real worker processes, which are renewed from time to time."""

    EVERY = 500

    def __init__(self) -> None:
        self._symbolizer = Symbolizer(debug_files=DebugFiles((_NOWHERE,)))
        self._number = count(1)

    def __call__(self, data: bytes) -> None:
        """Frames for any place in the file; no exception at all."""
        number = next(self._number)
        if number % self.EVERY == 0:
            self.close()
            self._symbolizer = Symbolizer(debug_files=DebugFiles((_NOWHERE,)))
        frames_of(self._symbolizer, number, data)

    def close(self) -> None:
        """End the workers."""
        self._symbolizer.close()


def frames_of(symbolizer: Symbolizer, key: int, data: bytes) -> list[Frame]:
    """Return the frames at some places of a file with these bytes, after a look at each."""
    target = symbolizer.add_object(key, f"{_NOWHERE}/\x1b]0;{key}", lambda: data)
    offsets = [64, *range(0x1010, 0x1300, 0x90), len(data) - 1, 2**64]
    if target.elf is not None:
        offsets += [part.offset + part.filesz // 2 for part in target.elf.segments[:4] if part.executable]
    symbolizer.prepare((key, offset) for offset in offsets)
    found: list[Frame] = []
    for offset in offsets:
        frames = symbolizer.resolve(key, offset, 0x7F0000000000 + offset, True)
        require_sound(frames)
        found += frames
    return found


TARGETS: dict[str, Callable[[], Target]] = {
    "elf": lambda: elf,
    "unwind": lambda: unwind,
    "eh_frame": lambda: eh_frame,
    "cfa_program": lambda: cfa_program,
    "debugdata": lambda: debugdata,
    "debug_links": lambda: debug_links,
    "plt": lambda: plt,
    "perf_map": lambda: perf_map,
    "kallsyms": lambda: kallsyms,
    "units": lambda: units,
    "skips": lambda: skips,
    "unit_lines": lambda: unit_lines,
    "line_table": lambda: line_table,
    "memory_image": lambda: memory_image,
    "names": lambda: names,
    "maps": lambda: maps,
    "btf": lambda: kernel_types.btf,
    "recording": lambda: recordings.recording,
    "whole": WholePath,
}
