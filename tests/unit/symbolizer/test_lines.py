import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from symbolic.exceptions import SymbolicError

from symbolizer import line_worker
from symbolizer.elf import Elf
from symbolizer.file_map import shared_descriptor
from symbolizer.lines import LineTable

Build = Callable[..., Path]
Nm = Callable[..., list[Any]]
Addr2line = Callable[[Path, int], list[tuple[str, str, int]]]


def content_of(data: bytes, hidden: list[int]) -> bytes:
    """Return the table that the worker makes, here in this process."""
    descriptors = [shared_descriptor(data)]
    result = line_worker.convert(descriptors, {"hidden": hidden})
    os.close(descriptors[0])
    with open(result, "rb") as file:
        return os.pread(file.fileno(), 1 << 30, 0)


def table_of(path: Path) -> LineTable:
    data = path.read_bytes()
    elf = Elf.parse(data)
    table = LineTable.parse(content_of(data, elf.symbol_table_types()), elf.load_address)
    assert table is not None
    return table


def call_returns(path: Path) -> list[int]:
    """Return the addresses of the bytes just before every call's return address in outer()."""
    text = subprocess.run(
        ["objdump", "-d", "--disassemble=outer", str(path)], check=True, capture_output=True, text=True
    )
    lines = [line.split("\t") for line in text.stdout.splitlines() if line.count("\t") >= 2]
    return [int(line[0].strip(" :"), 16) + len(line[1].split()) - 1 for line in lines if line[2].startswith("call")]


@pytest.mark.parametrize(
    "options",
    [
        ["-pie", "-fPIE"],
        ["-no-pie"],
        ["-gdwarf-4"],
        ["-gz=zlib"],
        ["-static"],
        ["-no-pie", "-Wl,-Ttext-segment=0x10000"],
    ],
)
def test_inlined_calls_are_as_addr2line_says(
    build: Build, addr2line: Addr2line, nested_inlines: str, options: list[str]
) -> None:
    path = build(nested_inlines, "-g", "-O2", *options)
    table = table_of(path)
    calls = call_returns(path)
    assert len(calls) == 2
    for vaddr in calls:
        found = [(place.function, Path(place.file or "").name, place.line) for place in table.lookup(vaddr)]
        assert found == addr2line(path, vaddr)
        assert [name for name, _, _ in found] == ["make", "twice", "outer"]
        assert [place.inlined for place in table.lookup(vaddr)] == [True, True, False]


def test_the_outermost_function_has_its_start_and_the_inlined_ones_none(
    build: Build, nm: Nm, nested_inlines: str
) -> None:
    path = build(nested_inlines, "-g", "-O2", "-no-pie")
    (outer,) = (symbol for symbol in nm(path) if symbol.name == "outer")
    starts = [place.start for place in table_of(path).lookup(call_returns(path)[0])]
    assert starts == [None, None, outer.value]


def test_a_relative_path_has_the_compilation_folder_before_it(tmp_path: Path) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "x.c").write_text("int main(void) { return 0; }\n")
    subprocess.run(["gcc", "-g", "src/../src/./x.c", "-o", "x"], check=True, cwd=tmp_path)
    path = tmp_path / "x"
    (place,) = table_of(path).lookup(Elf.parse(path.read_bytes()).symbols().defined(["main"])["main"])
    assert place.file == str(tmp_path / "src" / "x.c")
    assert place.line == 1


def test_code_without_dwarf_has_no_lines(build: Build, nested_inlines: str) -> None:
    path = build(nested_inlines, "-g", "-static")
    symbols = Elf.parse(path.read_bytes()).symbols().defined(["malloc", "main"])
    assert table_of(path).lookup(symbols["malloc"]) == ()
    assert table_of(path).lookup(symbols["main"]) != ()
    assert table_of(path).lookup(1) == table_of(path).lookup(1 << 50) == ()


@pytest.mark.parametrize("content", [b"", b"SYMC", b"SYMC" + bytes(200), b"\xff" * 500])
def test_what_is_no_table_is_none(content: bytes) -> None:
    assert LineTable.parse(content, 0) is None


def test_damaged_dwarf_is_an_error_or_an_incomplete_table(build: Build, nested_inlines: str) -> None:
    data = build(nested_inlines, "-g", "-O2").read_bytes()
    elf = Elf.parse(data)
    for name in (".debug_info", ".debug_abbrev", ".debug_line", ".debug_str"):
        section = elf.section(name)
        assert section is not None
        damaged = bytearray(data)
        damaged[section.offset : section.offset + section.size] = b"\xff" * section.size
        try:
            table = LineTable.parse(content_of(bytes(damaged), []), 0)
        except SymbolicError:
            continue
        assert table is not None and isinstance(table.lookup(elf.entry), tuple)
