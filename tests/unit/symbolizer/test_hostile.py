"""Damaged and hostile files cost their own names only: no exception, no hang, no memory without bound, no raw escapes.

What is fed to each parser, and what must hold, is in scripts/fuzzing/targets.py; scripts/fuzz searches for more.
"""

# ruff: noqa: E402  (the scripts are no package: their folder must be on the path first)

from __future__ import annotations

import io
import lzma
import os
import random
import re
import struct
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

SCRIPTS = Path(__file__).resolve().parents[3] / "scripts"
sys.path.insert(0, str(SCRIPTS))

from fuzzing import seeds as fuzz_seeds
from fuzzing import targets
from fuzzing.__main__ import NAMES
from fuzzing.limits import timed

from symbolizer.debug_files import DebugFiles
from symbolizer.demangle import demangle
from symbolizer.elf import Elf
from symbolizer.frame import Frame, Why
from symbolizer.image_build_id import image_build_id
from symbolizer.jit_symbol import jit_symbol
from symbolizer.line_service import BASE_TIME, Answer, LineService, Request
from symbolizer.line_source import LineSource
from symbolizer.minidebuginfo import minidebuginfo
from symbolizer.perf_map import PerfMap
from symbolizer.plt import plt_names
from symbolizer.symbolizer import Symbolizer
from symbolizer.unit_skips import UnitSkips
from symbolizer.unwind_info import UnwindInfo
from tests.programs.hostile_seeds import (
    COMPRESSION_HEADER,
    END_SEQUENCE,
    SET_ADDRESS,
    Part,
    bomb,
    build_seeds,
    dwarf_of,
    elf_of,
    uleb,
)
from tracer.report import github, json, junit, sarif, text
from tracer.report.model import Finding, Judged, Judgement, Outcome, Report, Target, Totals

#: Seconds of processor time for one input of any parser: generous, as the machine may be slow.
SECONDS = 2.0
#: Bytes that this process may take for a small file, however large what is packed in it.
MEMORY = 48 << 20
SHF_COMPRESSED = 0x800
LOW, HIGH, NAME, ORIGIN, ORIGIN_ACROSS = (0x11, 0x01), (0x12, 0x07), (0x03, 0x08), (0x31, 0x13), (0x31, 0x10)
#: In a file of dwarf_of(): where the entry behind the first begins, in .debug_info.
FIRST_ENTRY = 11 + 1 + 20
ADDRESS = 0x7F0000001234


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return build_seeds(tmp_path_factory.mktemp("seeds"))


@pytest.fixture(scope="module")
def symbolizer() -> Iterator[Symbolizer]:
    made = Symbolizer(debug_files=DebugFiles(()))
    yield made
    made.close()


def frames_of(symbolizer: Symbolizer, data: bytes, offset: int = 100) -> tuple[tuple[Frame, ...], str | None]:
    """Return the frames at a place in a file with these bytes, and the problem of its lines."""
    key = object()
    target = symbolizer.add_object(key, "/program", lambda: data)
    frames = symbolizer.resolve(key, offset, ADDRESS, False)
    targets.require_sound(frames)
    return frames, target.lines.problem if target.lines is not None else None


def processor_time(work: Callable[[], object]) -> float:
    begun = time.process_time()
    work()
    return time.process_time() - begun


def peak_memory(work: Callable[[], object]) -> int:
    """Return the most bytes that Python and numpy held for the work."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# Damage to sound files.


@st.composite
def changes(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """Return a function that cuts bytes short, and changes some of them."""
    cut = draw(st.one_of(st.none(), st.floats(0, 1)))
    places = draw(st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)), max_size=8))
    near = draw(st.integers(1, 8))

    def change(data: bytes) -> bytes:
        damaged = bytearray(data if cut is None else data[: int(cut * len(data))])
        for place, value in places:
            # Half of the changes go to the beginning, where the headers are.
            at = int(place * len(damaged) // (1 if near % 2 else 1 + len(damaged) // 256))
            damaged[at : at + len(value)] = value[: len(damaged) - at]
        return bytes(damaged)

    return change


def test_each_target_can_be_asked_for_by_its_name() -> None:
    """The names that scripts/fuzz takes are those of the targets."""
    assert tuple(targets.TARGETS) == NAMES


# Not the whole path, which has a test below, nor symbolic's tables: on damaged ones that library ends the process.
@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("whole", "line_table")])
def test_no_parser_is_disturbed_by_damage(seeds: dict[str, bytes], name: str) -> None:
    """Sound input, cut short and changed anywhere, gives nothing but what is documented, in time."""
    target, inputs = timed(targets.TARGETS[name](), SECONDS), fuzz_seeds.seeds(name, seeds)
    for sound in inputs:
        target(sound)

    @settings(max_examples=60, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(range(len(inputs))), changes())
    def damage(number: int, change: Callable[[bytes], bytes]) -> None:
        target(change(inputs[number]))

    damage()


@pytest.mark.parametrize("form", ["cpp", "compressed", "dwarf4", "minidebuginfo", "dwz1", "split"])
def test_a_damaged_program_gives_frames(seeds: dict[str, bytes], symbolizer: Symbolizer, form: str) -> None:
    """Thirty-four times a file with bits flipped, or cut short: each has frames in time, with a name or the reason for none."""
    chance = random.Random(form)
    if form not in seeds:
        pytest.skip("no dwz here")
    for number in range(34):
        data = bytearray(seeds[form])
        if number % 4 == 0:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.choice((1, 4, 64)) if data else 0):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        begun = time.monotonic()
        targets.frames_of(symbolizer, hash((form, number)), bytes(data))
        assert time.monotonic() - begun < BASE_TIME


# DWARF that is made to cost much.

RANGE = struct.pack("<QQ", 1, 1 << 19)
FUNCTION = (0x2E, True, (LOW, HIGH, NAME))
DEEP = 200_000
HOSTILE_DWARF = {
    "a line table of one million rows": lambda: dwarf_of(b"", [], SET_ADDRESS + b"\x20" * 1_000_000 + END_SEQUENCE),
    "a file without end": lambda: dwarf_of(b"", [], SET_ADDRESS + b"\x03" + b"\xff" * 100_000),
    "functions in functions": lambda: dwarf_of((uleb(2) + RANGE + b"f\0") * DEEP + bytes(DEEP), [FUNCTION]),
    "inlined calls in inlined calls": lambda: dwarf_of(
        uleb(2) + RANGE + b"f\0" + (uleb(3) + RANGE + struct.pack("<I", FIRST_ENTRY)) * DEEP + bytes(DEEP),
        [FUNCTION, (0x1D, True, (LOW, HIGH, ORIGIN))]),
    "blocks in blocks": lambda: dwarf_of(uleb(2) * DEEP + bytes(DEEP), [(0x0B, True, ())]),
    "an origin that is itself": lambda: dwarf_of(
        uleb(2) + RANGE + struct.pack("<I", FIRST_ENTRY) + b"\0", [(0x2E, True, (LOW, HIGH, ORIGIN))]),
    "an origin across units that is itself": lambda: dwarf_of(
        uleb(2) + RANGE + struct.pack("<I", FIRST_ENTRY) + b"\0", [(0x2E, True, (LOW, HIGH, ORIGIN_ACROSS))]),
    "two origins of each other": lambda: dwarf_of(
        uleb(2) + RANGE + struct.pack("<I", FIRST_ENTRY + 21) + uleb(2) + RANGE + struct.pack("<I", FIRST_ENTRY),
        [(0x2E, False, (LOW, HIGH, ORIGIN))]),
    "a long chain of origins": lambda: dwarf_of(
        b"".join(uleb(2) + RANGE + struct.pack("<I", FIRST_ENTRY + 21 * at) for at in range(1, DEEP)),
        [(0x2E, False, (LOW, HIGH, ORIGIN))]),
    "more than can be unpacked": lambda: elf_of(
        [Part(".debug_info", COMPRESSION_HEADER.pack(1, 0, 1 << 62, 1) + bomb(1 << 20)[24:], 1, SHF_COMPRESSED)]),
    "more than there is memory": lambda: elf_of(
        [Part(".debug_info", COMPRESSION_HEADER.pack(1, 0, 3 << 30, 1) + bomb(1 << 20)[24:], 1, SHF_COMPRESSED)]),
    "packed in an unknown way": lambda: elf_of([Part(".debug_info", COMPRESSION_HEADER.pack(9, 0, 99, 1), 1, SHF_COMPRESSED)]),
}  # fmt: skip
#: What ends the reader, or what it refuses: the file's lines have a problem.
HAS_PROBLEM = {"functions in functions", "inlined calls in inlined calls", "a long chain of origins",
               "more than there is memory", "more than can be unpacked"}


def test_written_dwarf_is_read(symbolizer: Symbolizer) -> None:
    """The files below are hostile for what they say, not because nothing of them is read."""
    frames, problem = frames_of(symbolizer, dwarf_of(uleb(2) + RANGE + b"f\0\0", [FUNCTION]))
    assert (frames[0].function, frames[0].line, problem) == ("f", 1, None)


@pytest.mark.parametrize("kind", HOSTILE_DWARF)
def test_hostile_dwarf_is_answered(symbolizer: Symbolizer, kind: str) -> None:
    """However deep, circular or large it says it is, there is an answer in time, and this process does not read it."""
    data = HOSTILE_DWARF[kind]()
    begun = time.monotonic()
    _, problem = frames_of(symbolizer, data)
    assert time.monotonic() - begun < BASE_TIME
    assert problem is not None or kind not in HAS_PROBLEM


class Refusing(LineService):
    """Real readers for the tables; every other question is one that its time was not enough for."""

    def __init__(self) -> None:
        super().__init__()
        self.refused = 0

    def ask(self, requests: Sequence[Request]) -> list[Answer]:
        if requests[0].message["do"] == "convert":
            return super().ask(requests)
        for request in requests:
            for descriptor in request.descriptors:
                os.close(descriptor)
        self.refused += len(requests)
        return [Answer(error="reading it took too long") for _ in requests]


def test_what_takes_too_long_is_asked_once() -> None:
    """The limit is one for the file: an unnamed function has many addresses, and each question could take 15 s."""
    service = Refusing()
    elf = Elf.parse(dwarf_of(uleb(2) + RANGE, [(0x2E, False, (LOW, HIGH))]))
    lines = LineSource(elf, None, service, None)
    for vaddr in range(0x100, 0x140):
        lines.lookup(vaddr)
    service.close()
    assert service.refused in (1, 2) and lines.problem is not None


# ELF files that are made to cost much.


@pytest.mark.parametrize("more", [(1 << 17) - 4, 1 << 17, 1 << 18])
def test_many_sections_are_read_or_refused(symbolizer: Symbolizer, more: int) -> None:
    data = elf_of([Part(".text", bytes(64), flags=6)], more_headers=more)
    assert processor_time(lambda: frames_of(symbolizer, data)) < SECONDS


@pytest.mark.parametrize("size", [1 << 63, (1 << 64) - 1, 1 << 40])
@pytest.mark.parametrize("name", [".debug_info", ".symtab", ".dynsym", ".plt", ".gnu_debugdata", ".gnu_debuglink", ".eh_frame"])
def test_a_section_beyond_the_file_has_no_names(symbolizer: Symbolizer, name: str, size: int) -> None:
    kind = {".symtab": 2, ".dynsym": 11}.get(name, 1)
    data = elf_of([Part(name, bytes(64), kind, size=size), Part(".strtab", b"\0a\0", 3)])
    frames, _ = frames_of(symbolizer, data)
    assert frames[0].why in (Why.NO_SYMBOLS, Why.UNREADABLE)
    UnwindInfo(data).rule_at(100)


def test_many_segments_cost_no_time(symbolizer: Symbolizer) -> None:
    """A header can name 65,534 segments; a thousand addresses are looked up in all of them in the time of one file."""
    data = bytearray(elf_of([Part(".text", bytes(64), flags=6)]))
    segment = struct.pack("<IIQQQQQQ", 1, 4, 1 << 40, 1 << 40, 0, 1, 1, 4096)
    struct.pack_into("<Q", data, 32, len(data))
    struct.pack_into("<H", data, 56, 65_534)
    damaged = bytes(data) + segment * 65_534

    def look_up() -> None:
        key = object()
        symbolizer.add_object(key, "/program", lambda: damaged)
        for offset in range(1000):
            symbolizer.resolve(key, offset, ADDRESS + offset, False)

    assert processor_time(look_up) < SECONDS


@pytest.mark.parametrize("name", [".plt", ".dynsym", ".rela.dyn", ".gnu_debugdata", ".gnu_debuglink"])
def test_a_packed_section_does_not_take_the_memory_of_this_process(name: str) -> None:
    """What the loader needs is never packed, and what is small never becomes large."""
    elf = Elf.parse(elf_of([
        Part(name, bomb(128 << 20), 1, SHF_COMPRESSED),
        *(Part(other, struct.pack("<QIIQ", 100, 7, 1, 0), 4) for other in (".rela.plt",) if other != name),
    ]))

    def read() -> None:
        plt_names(elf).find(100)
        minidebuginfo(elf)
        DebugFiles(()).companion(elf, "/nonexistent/program")

    assert peak_memory(read) < MEMORY


def test_a_bomb_of_lzma_takes_no_more_than_its_limit(seeds: dict[str, bytes]) -> None:
    """128 MB in 20 KB; 64 MB are let through, and twice that are held for a moment."""
    elf = Elf.parse(elf_of([Part(".gnu_debugdata", lzma.compress(seeds["c"] + bytes(128 << 20), preset=0))]))
    assert peak_memory(lambda: minidebuginfo(elf)) < 140 << 20


def test_units_with_hostile_abbreviations_cost_no_time() -> None:
    """Each of many units can have a table of its own in the same bytes, and each table can be long."""
    abbrev = (b"\x01\x11\x00" + b"\x11\x01" * 255 + b"\0\0") * 4096
    unit = struct.pack("<IH", 29, 4)
    info = b"".join(unit + struct.pack("<IB", number, 8) + b"\x01" + bytes(21) for number in range(16))
    skips = UnitSkips(memoryview(info), memoryview(abbrev))
    assert processor_time(lambda: [skips.patch(start) for start in range(0, len(info), 33)]) < SECONDS


@pytest.mark.parametrize("length", [1, 2, 3])
def test_a_last_unit_that_is_cut_off_is_in_doubt(length: int) -> None:
    """Its header ends before its type."""
    info = struct.pack("<I", length) + b"\x05\0\0"[:length]
    UnitSkips(memoryview(info), memoryview(b"\x31\x10")).are_safe(0)
    UnitSkips(memoryview(info), memoryview(b"\x31\x10")).patch(0)


def test_overlapping_common_entries_cost_no_time() -> None:
    """In .eh_frame each function can name another CIE, each of which runs through all those behind it."""
    count = 2000
    cies = b"".join(
        struct.pack("<I", (count - at) * 15 + 11) + bytes(4) + b"\x01" + bytes(4) + b"\x0f\x0d" for at in range(count)
    ) + bytes(15)
    functions = b"".join(
        struct.pack("<IIQQ", 20, len(cies) + 24 * at + 4 - 15 * at, 0x1000 + at, 1) for at in range(count)
    )
    info = UnwindInfo(elf_of([Part(".eh_frame", cies + functions)]))
    assert processor_time(lambda: info.rule_at(0x1000)) < 0.6


@pytest.mark.parametrize("vaddr", [1 << 63, (1 << 64) - 1, 0])
def test_a_damaged_image_in_memory_is_no_error_of_ours(vaddr: int) -> None:
    """Whatever its headers say, reading it ends in an id, in none, or in what callers expect: OSError."""
    header = struct.pack("<4sBB10xHHIQQQIHHHHHH", b"\x7fELF", 2, 1, 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 64, 0, 0)
    load = struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, 99, 99, 4096)
    note = struct.pack("<IIQQQQQQ", 4, 4, 0, vaddr, 0, 99, 99, 4)
    targets.memory_image(header + load + note + note)
    # The last page of a mapping: fewer bytes come than were asked for.
    targets.memory_image(header + load[:20])
    with pytest.raises(OSError):
        image_build_id(lambda address, size: (_ for _ in ()).throw(OSError()), 0)


# Names.

NAMES_THAT_COST = {
    "parts that look like clones": "a" + ".cold" * 13_000 + "x",
    "numbered parts that look like clones": "a" + ".cold.1" * 9_000 + "x",
    "references without an end": "_Z" + "S" * 65_000,
    "hashes": "_ZN" + "17h" * 21_000,
    "template arguments in template arguments": "_Z1fI" + "I" * 60_000,
    "pointers to pointers": "_Z1f" + "P" * 60_000 + "i",
    "Rust tuples in tuples": "_RINvC1a1f" + "T" * 60_000,
    "Swift types in types": "$s" + "Say" * 20_000,
    "D functions in functions": "_D1a" + "F" * 60_000 + "Z",
    "references that double": "_Z1fI" + "".join(f"St4pairIS{'' if not at else at - 1}_S_E" for at in range(9)) * 20 + "Evv",
}


@pytest.mark.parametrize("kind", NAMES_THAT_COST)
def test_a_hostile_name_costs_no_time(kind: str) -> None:
    assert processor_time(lambda: targets.names(NAMES_THAT_COST[kind].encode())) < SECONDS
    assert demangle(NAMES_THAT_COST[kind])


#: Twelve bytes each: they take the places of a name and of a file's name in a compiled program.
RAW_NAME, RAW_FILE = b"\x1b[2J\x9b\r\n\xe2\x80\xae12", b"\x1b]0;\x07\x08\xc2\x85\xffx.c"
SOURCE = "__attribute__((noinline)) int hostile_name(int v) { return v * 3; }\nint main(int c, char **) { return hostile_name(c); }\n"


@pytest.fixture(params=["gcc", "g++"])
def raw_program(request: pytest.FixtureRequest, tmp_path: Path) -> bytes:
    """Return a program whose names of a function and of a file have control characters, in .symtab and in DWARF."""
    suffix = {"gcc": "c", "g++": "cc"}[request.param]
    (tmp_path / f"hostile_ab.{suffix}").write_text(SOURCE.replace("char **", "char **v"))
    subprocess.run([request.param, "-g", "-O1", f"hostile_ab.{suffix}", "-o", "program"], cwd=tmp_path, check=True)
    file = f"hostile_ab.{suffix}".encode()
    data = (tmp_path / "program").read_bytes()
    return data.replace(b"hostile_name", RAW_NAME).replace(file, RAW_FILE.ljust(len(file), b"\x1b"))


def raw_frames(data: bytes) -> tuple[Frame, ...]:
    """Return the frames of the function with the raw name, with a raw path of the module as well."""
    elf = Elf.parse(data)
    value = next(int(elf.symbols().value[row]) for row in range(len(elf.symbols())) if b"2J" in elf.symbols()._raw_name(row))
    offset = elf.vaddr_to_file_offset(value)
    assert offset is not None
    symbolizer = Symbolizer(debug_files=DebugFiles(()))
    symbolizer.add_object("key", "/tmp/\x1b[31m\n\udcff\u202e.so", lambda: data)
    frames = symbolizer.resolve("key", offset, ADDRESS, False)
    symbolizer.close()
    return frames


def report_of(frames: tuple[Frame, ...]) -> tuple[Report, Judgement]:
    finding = Finding(
        rank=1, pid=7, bytes=9, count=1, allocated_bytes=9, allocated_count=1, freed_count=0, oldest_s=1.0,
        growth_bytes_per_s=None, gained_bytes=None, gained_count=None, error=None, frames=frames)
    report = Report(
        taken=datetime(2026, 3, 1, tzinfo=UTC), elapsed_s=5.0, kernel="6.18", targets=(Target(7, "program", "/program"),),
        totals=Totals(9, 1, 9, 1, 0), findings=(finding,), losses=(), complete=True)  # fmt: skip
    return report, Judgement((Judged(finding, Outcome.FAILED, "bytes > 0", "ab"),), (), 23)


FORMATS: dict[str, Callable[[Report, Judgement, io.StringIO], None]] = {
    "text": lambda report, judgement, out: text.write(report, out),
    "json": lambda report, judgement, out: json.write(report, out),
    "github": lambda report, judgement, out: github.write(report, judgement, out, workspace=None),
    "junit": junit.write,
    "sarif": lambda report, judgement, out: sarif.write(report, judgement, out, folder="/", version="1"),
}
#: Of what no report may hold, only what is no line break, tab or blank of its own.
RAW = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@pytest.mark.parametrize("form", FORMATS)
def test_no_control_character_of_a_name_or_a_path_is_written(raw_program: bytes, form: str) -> None:
    """Terminal escapes, line breaks and marks of writing direction in names and paths are written as \\xNN."""
    frames = raw_frames(raw_program)
    targets.require_sound(frames)
    function, file = frames[-1].function, frames[-1].file
    assert function is not None and r"\x1b[2J" in function and file is not None and r"\x1b]0;\x07" in file
    harmless = tuple(Frame(frame.address, "f", frame.offset, "/m", frame.build_id, "f.c", 1) for frame in frames)
    shown, lines = [], []
    for each in (frames, harmless):
        out = io.StringIO()
        FORMATS[form](*report_of(each), out)
        shown.append(out.getvalue())
        lines.append(out.getvalue().count("\n"))
    assert RAW.search(shown[0]) is None
    assert lines[0] == lines[1], "a name has made a line of its own"


@pytest.mark.parametrize("name", [
    b"py::\x1b[2J:/a\x07.py", b"LazyCompile:*\x1b]0;x\x07 /a\x9b.js:1:2", b"\xff\xfe\x1b", b"f\r\x1b[A", b"\xe2\x80\xaejava",
])  # fmt: skip
def test_names_of_a_runtime_are_safe_to_print(name: bytes) -> None:
    found = PerfMap.parse(b"1000 10 " + name + b"\n").find(0x1008)
    assert found is not None
    symbol = jit_symbol(found[0])
    targets.require_printable(found[0], symbol.function, symbol.file)
