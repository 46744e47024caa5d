import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from symbolizer.elf import Elf
from symbolizer.symbol_table import SYMBOL, StringTable, Symbols, SymbolTable

Build = Callable[..., Path]
Nm = Callable[..., list[Any]]
FUNC, LABEL, LOCAL, GLOBAL, WEAK = 2, 0, 0, 1, 2


def table(*rows: tuple[str, int, int, int, int], hidden: list[bool] | None = None) -> SymbolTable:
    """Return a table of (name, value, size, type, binding), all in one executable section that ends at 0x2000."""
    text, made = b"\0", np.zeros(len(rows), SYMBOL)
    for index, (name, value, size, kind, binding) in enumerate(rows):
        made[index] = (len(text), binding << 4 | kind, 0, 1, value, size)
        text += name.encode() + b"\0"
    symbols = Symbols(made, StringTable(text, 0, len(text)), np.array(hidden) if hidden else None)
    return SymbolTable.build([symbols], np.array([0, 0x2000], np.uint64), np.array([False, True]), [])


def test_every_function_that_nm_knows_is_found_at_its_start_and_at_its_last_byte(
    build: Build, nm: Nm, nested_inlines: str
) -> None:
    for options in (["-O2"], ["-O2", "-no-pie"], ["-static"]):
        path = build(nested_inlines, *options)
        found = Elf.parse(path.read_bytes()).symbols()
        functions = [symbol for symbol in nm(path) if symbol.kind in "tTWi" and symbol.size]
        names: dict[int, set[str]] = {}
        for symbol in functions:
            names.setdefault(symbol.value, set()).add(symbol.name)
        assert len(functions) > 3
        for symbol in functions:
            hit = found.find(symbol.value)
            assert hit is not None
            assert hit[0] in names[symbol.value]
            assert hit[1] == 0
            last = found.find(symbol.value + symbol.size - 1)
            assert last is not None


def test_a_stripped_program_keeps_only_what_is_exported(build: Build, nested_inlines: str) -> None:
    data = build(nested_inlines, "-O2", "-rdynamic", "-s").read_bytes()
    found = Elf.parse(data).symbols()
    assert set(found.defined(["outer", "main", "quiet"])) == {"outer", "main"}
    assert len(Elf.parse(build(nested_inlines, "-O2", "-static", "-s").read_bytes()).symbols()) == 0


def test_an_address_after_the_end_of_a_function_is_not_named_by_it() -> None:
    functions = table(("f", 0x1000, 16, FUNC, GLOBAL), ("g", 0x1040, 16, FUNC, GLOBAL))
    assert functions.find(0x100F) == ("f", 15)
    assert functions.find(0x1010) is None
    assert functions.find(0x0FFF) is None
    assert functions.find(0x1050) is None
    assert functions.find(-1) is None
    assert functions.find(2**70) is None


def test_a_function_without_size_reaches_to_the_next_symbol_or_its_sections_end() -> None:
    functions = table(("f", 0x1000, 0, FUNC, GLOBAL), ("g", 0x1040, 0, LABEL, LOCAL))
    assert functions.find(0x103F) == ("f", 0x3F)
    assert functions.find(0x1FFF) == ("g", 0xFBF)
    assert functions.find(0x2000) is None


def test_a_label_inside_a_function_does_not_hide_it() -> None:
    functions = table(("f", 0x1000, 64, FUNC, GLOBAL), (".loop", 0x1010, 0, LABEL, LOCAL))
    assert functions.find(0x1020) == ("f", 0x20)


def test_the_innermost_of_nested_functions_is_named_and_the_outer_one_after_it() -> None:
    functions = table(("outer", 0x1000, 64, FUNC, GLOBAL), ("inner", 0x1010, 8, FUNC, LOCAL))
    assert functions.find(0x1012) == ("inner", 2)
    assert functions.find(0x1018) == ("outer", 0x18)


@pytest.mark.parametrize(
    ("names", "best"),
    [
        ([("local", LOCAL), ("exported_name", GLOBAL)], "exported_name"),
        ([("__libc_malloc", GLOBAL), ("malloc", GLOBAL)], "malloc"),
        ([("__write", GLOBAL), ("write", WEAK)], "write"),
        ([("_short", GLOBAL), ("allocate", GLOBAL)], "allocate"),
        ([("mmap64", WEAK), ("mmap", WEAK)], "mmap"),
        ([("_ZN1aC2Ev", GLOBAL), ("_ZN1aC1Ev", GLOBAL)], "_ZN1aC1Ev"),
    ],
)
def test_of_several_names_the_one_that_people_know_is_taken(names: list[tuple[str, int]], best: str) -> None:
    for order in (names, names[::-1]):
        found = table(*((name, 0x1000, 16, FUNC, binding) for name, binding in order)).find(0x1008)
        assert found == (best, 8)


def test_defined_finds_what_nm_finds_and_nothing_else(build: Build, nm: Nm) -> None:
    libc = next(Path("/").glob("lib/x86_64-linux-gnu/libc.so.6"), None) or pytest.skip("no glibc here")
    known: dict[str, set[int]] = {}
    for symbol in nm(libc, "-D"):
        if symbol.kind in "tTWi":
            known.setdefault(symbol.name, set()).add(symbol.value)
    found = Elf.parse(libc.read_bytes()).symbols().defined([*known, "no_such_function", "mallo", "alloc", ""])
    assert set(found) == set(known)
    assert all(value in known[name] for name, value in found.items())


def test_defined_takes_names_as_text_or_bytes_and_ignores_versions() -> None:
    functions = table(("malloc@@V_2", 0x1000, 16, FUNC, GLOBAL), ("longer_than_8", 0x1010, 16, FUNC, GLOBAL))
    assert functions.defined([b"malloc", "longer_than_8"]) == {"malloc": 0x1000, "longer_than_8": 0x1010}


def test_defined_prefers_the_exported_function_and_the_default_version() -> None:
    two = (("free", 0x1000, 16, FUNC, LOCAL), ("free", 0x1100, 16, FUNC, WEAK))
    assert table(*two).defined(["free"]) == {"free": 0x1100}
    versions = (("memcpy", 0x1000, 16, FUNC, GLOBAL), ("memcpy", 0x1100, 16, FUNC, GLOBAL))
    assert table(*versions, hidden=[True, False]).defined(["memcpy"]) == {"memcpy": 0x1100}


def test_defined_does_not_take_labels_or_imports(build: Build, nested_inlines: str) -> None:
    assert table(("spot", 0x1000, 0, LABEL, GLOBAL)).defined(["spot"]) == {}
    assert Elf.parse(build(nested_inlines).read_bytes()).symbols().defined(["malloc", "rand"]) == {}


def test_names_that_share_their_end_in_the_string_table_are_told_apart(build: Build) -> None:
    text = "void xx_release(void) {} void release(void) {} void prerelease(void) {}"
    functions = Elf.parse(build(text, "-shared", "-fPIC", "-O2", "-s").read_bytes()).symbols()
    found = functions.defined(["release", "xx_release", "prerelease", "lease"])
    assert sorted(found) == ["prerelease", "release", "xx_release"]
    assert len(set(found.values())) == 3


def test_a_file_with_both_tables_answers_as_with_one(build: Build, nested_inlines: str) -> None:
    both = build(nested_inlines, "-O2", "-rdynamic")
    one = both.with_name("one")
    subprocess.run(["strip", "-o", str(one), str(both)], check=True)
    names = ["outer", "main"]
    assert Elf.parse(both.read_bytes()).symbols().defined(names) == Elf.parse(one.read_bytes()).symbols().defined(names)


@pytest.mark.parametrize("size", range(20))
def test_eight_bytes_are_zero_after_the_tables_end(size: int) -> None:
    text = bytes(range(1, size + 1))
    strings = StringTable(b"##" + text + b"#########", 2, size)
    positions = np.arange(size + 12)
    expected = [int.from_bytes(text[position : position + 8], "little") for position in positions]
    assert strings.eight_bytes(positions).tolist() == expected
