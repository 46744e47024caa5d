"""Lines and inlined calls of real programs, as compilers, dwz and linkers leave them."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from symbolizer import line_source
from symbolizer.cache_folder import CacheFolder
from symbolizer.elf import Elf
from symbolizer.file_map import file_bytes
from symbolizer.line_service import LineService
from symbolizer.line_source import LineSource
from symbolizer.lines import Location

Build = Callable[..., Path]

# Three units with the same shape: a function that inlines two others, each at a line of its own.
UNIT = """
extern int sink(int);
namespace unit{n} {{
static inline __attribute__((always_inline)) int innermost(int v) {{ return sink(v + {n}); }}
static inline __attribute__((always_inline)) int middle(int v) {{
    return innermost(v * 2);
}}
__attribute__((noinline)) int outer(int v) {{
    return middle(v) + 1;
}}
}}
int entry{n}(int v) {{ return unit{n}::outer(v); }}
"""
MAIN = """
int entry0(int); int entry1(int); int entry2(int);
__attribute__((noinline)) int sink(int v) { asm volatile(""); return v; }
int main(int c, char **) { return entry0(c) + entry1(c) + entry2(c); }
"""


def need(tool: str) -> str:
    """Skip without the tool; where CI is set, that is a failure."""
    if shutil.which(tool) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is missing")
        pytest.skip(f"{tool} is missing")
    return tool


@pytest.fixture(scope="module")
def service() -> Iterator[LineService]:
    made = LineService()
    yield made
    made.close()


@pytest.fixture
def units(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that builds the program of three units with these options."""

    def build(*options: str, compiler: str = "g++") -> Path:
        names = []
        for number in range(3):
            (tmp_path / f"unit{number}.cc").write_text(UNIT.format(n=number))
            names.append(f"unit{number}.cc")
        (tmp_path / "main.cc").write_text(MAIN)
        subprocess.run([need(compiler), *names, "main.cc", "-o", "program", "-O2", "-g", *options],
                       check=True, cwd=tmp_path, capture_output=True)
        return tmp_path / "program"

    return build


def source(path: Path, service: LineService, supplement: bytes | None = None, cache: CacheFolder | None = None) -> LineSource:
    with path.open("rb") as file:
        return LineSource(Elf.parse(file_bytes(file.fileno())), supplement, service, cache)


def first_call(path: Path, function: str) -> int:
    """Return the address of the first call in a function, by objdump."""
    text = subprocess.run(["objdump", "-d", f"--disassemble={function}", str(path)], check=True, capture_output=True, text=True)
    return next(int(line.split(":")[0], 16) for line in text.stdout.splitlines() if "\tcall" in line)


def calls_in_outer(path: Path) -> list[int]:
    return [first_call(path, f"_ZN5unit{number}5outerEi") for number in range(3)]


def chain(locations: tuple[Location, ...]) -> list[tuple[str, int | None, bool]]:
    """Return function without scope and parameters, line, and whether it was inlined."""
    return [(location.function.partition("(")[0].rpartition("::")[2], location.line, location.inlined) for location in locations]


def assert_inlined_twice(lines: LineSource, path: Path) -> None:
    for number, vaddr in enumerate(calls_in_outer(path)):
        found = lines.lookup(vaddr)
        names = [location.function for location in found]
        assert [line for _, line, _ in chain(found)] == [4, 6, 9]
        assert [inlined for _, _, inlined in chain(found)] == [True, True, False]
        for name, expected in zip(names, ("innermost", "middle", "outer"), strict=True):
            assert expected in name, names
        assert {os.path.basename(location.file or "") for location in found} == {f"unit{number}.cc"}


@pytest.mark.parametrize(("option", "deepest"), [("-gdwarf-4", 1), ("-gdwarf-5", 3), ("-gz=zlib", 3), ("-no-pie", 3), ("-flto", 2)])
def test_gcc_as_addr2line_sees_it(
    units: Build, service: LineService, option: str, deepest: int, nm: Callable[[Path], list[Any]],
    addr2line: Callable[[Path, int], list[tuple[str, str, int]]]
) -> None:
    """Each version of DWARF, compressed or not, at a fixed address or not, or from link-time optimisation."""
    path = units(option)
    lines, lengths = source(path, service), set()
    (text,) = (symbol for symbol in nm(path) if symbol.name == ("main" if option == "-flto" else "_ZN5unit05outerEi"))
    for vaddr in range(text.value, text.value + text.size):
        found = [(os.path.basename(location.file or ""), location.line) for location in lines.lookup(vaddr)]
        assert found == [(file, line) for _, file, line in addr2line(path, vaddr)], hex(vaddr)
        lengths.add(len(found))
    assert max(lengths) == deepest, "the program has other inlined calls than this test was made for"


@pytest.mark.parametrize("options", [["-gdwarf-4"], ["-gdwarf-5"], ["-gdwarf-5", "-gdwarf-aranges"]])
def test_clang(units: Build, service: LineService, options: list[str]) -> None:
    """clang nests functions in their namespaces, and reads strings and addresses through tables."""
    path = units(*options, compiler="clang++")
    assert_inlined_twice(source(path, service), path)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_a_large_file_is_read_in_pieces(
    units: Build, service: LineService, monkeypatch: pytest.MonkeyPatch, compiler: str
) -> None:
    """Of a file that is larger than two pieces, only the units of the addresses that were asked for are read."""
    monkeypatch.setattr(line_source, "PIECE", 64)
    path = units(compiler=compiler)
    lines = source(path, service)
    first, *others = calls_in_outer(path)
    assert [line for _, line, _ in chain(lines.lookup(first))] == [4, 6, 9]
    assert len(lines._tables) == 1, "more than one unit was read for one address"
    assert lines.missing(others) and not lines.missing([first])
    assert_inlined_twice(lines, path)
    assert lines.lookup(1 << 40) == () and lines.problem is None


def test_pieces_and_the_whole_agree(
    units: Build, service: LineService, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Every address has the same answer, read in pieces or at once, also after dwz has put common parts elsewhere."""
    path = units()
    subprocess.run([need("dwz"), str(path)], check=True, capture_output=True)
    text = Elf.parse(path.read_bytes()).section(".text")
    assert text is not None
    whole = source(path, service)
    expected = [whole.lookup(vaddr) for vaddr in range(text.vaddr, text.vaddr + text.size)]
    monkeypatch.setattr(line_source, "PIECE", 64)
    in_pieces = source(path, service)
    found = [in_pieces.lookup(vaddr) for vaddr in range(text.vaddr, text.vaddr + text.size)]
    assert found == expected and len(in_pieces._tables) > 1


def test_names_that_dwz_moved_to_another_file(units: Build, service: LineService, tmp_path: Path) -> None:
    """With its supplementary file an inlined call has its name; without it the call is there, nameless."""
    first = units()
    twins = [tmp_path / "one", tmp_path / "two"]
    for twin in twins:
        shutil.copy(first, twin)
    subprocess.run([need("dwz"), "-m", "common.debug", "one", "two"], check=True, cwd=tmp_path, capture_output=True)
    supplement = (tmp_path / "common.debug").read_bytes()
    vaddr = first_call(twins[0], "_ZN5unit15outerEi")
    assert [location.function for location in source(twins[0], service).lookup(vaddr)][:2] == ["", ""]
    with_it = [location.function for location in source(twins[0], service, supplement).lookup(vaddr)]
    assert ["innermost" in with_it[0], "middle" in with_it[1], len(with_it)] == [True, True, 3]


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_split_dwarf_has_lines_and_names_what_is_missing(units: Build, service: LineService, compiler: str) -> None:
    """What -gsplit-dwarf leaves in the program are lines; the file with the rest is named."""
    path = units("-gsplit-dwarf", compiler=compiler)
    lines = source(path, service)
    (location,) = lines.lookup(calls_in_outer(path)[1])
    assert (location.line, os.path.basename(location.file or "")) == (4, "unit1.cc")
    (missing,) = lines.split
    assert missing.endswith("unit1.dwo")


@pytest.mark.parametrize("option", ["-gline-tables-only", "-gmlt"])
def test_line_tables_only(units: Build, service: LineService, option: str) -> None:
    """clang then describes functions only where calls were inlined; the others have their lines all the same."""
    path = units("-g0", option, compiler="clang++")
    (location,) = source(path, service).lookup(_start_of(path, "_Z6entry1i"))
    assert (location.function, location.line, os.path.basename(location.file or "")) == ("", 12, "unit1.cc")


def test_assembler(build: Build, service: LineService, tmp_path: Path) -> None:
    """A function in assembler has lines and no description."""
    (tmp_path / "f.s").write_text(".globl twice\ntwice:\n lea (%rdi,%rdi), %eax\n ret\n.section .note.GNU-stack\n")
    subprocess.run(["as", "-g", "f.s", "-o", "f.o"], check=True, cwd=tmp_path)
    path = build("int twice(int); int main(int c, char **v) { (void)v; return twice(c); }", "-g", str(tmp_path / "f.o"))
    locations = source(path, service).lookup(_start_of(path, "twice") + 3)
    assert [(os.path.basename(location.file or ""), location.line) for location in locations] == [("f.s", 4)]


def test_a_file_without_lines_at_an_address(units: Build, service: LineService) -> None:
    """Code that the compiler made no line for has none, and that is no problem of the file."""
    lines = source(units(), service)
    assert lines.lookup(0x10) == () and lines.problem is None and not lines.split


def test_tables_are_kept_between_runs(units: Build, service: LineService, tmp_path: Path) -> None:
    """A second run needs no reader of DWARF; a damaged table is made anew."""
    path, cache = units(), CacheFolder(tmp_path / "cache", 1 << 20)
    vaddr = calls_in_outer(path)[0]
    expected = source(path, service, cache=cache).lookup(vaddr)
    again = source(path, _no_service(), cache=cache)
    assert again.missing([vaddr]) == [] and again.lookup(vaddr) == expected
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:-9])
    assert source(path, service, cache=cache).lookup(vaddr) == expected
    assert source(path, _no_service(), cache=cache).lookup(vaddr) == expected


def test_another_build_is_another_file(units: Build, service: LineService, tmp_path: Path) -> None:
    """Tables are kept by build id: what was built otherwise is read anew."""
    cache = CacheFolder(tmp_path / "cache", 1 << 20)
    source(units(), service, cache=cache).lookup(0x1000)
    source(units("-DOTHER=1", "-fno-plt"), service, cache=cache).lookup(0x1000)
    assert len(list((tmp_path / "cache").iterdir())) == 2


def _start_of(path: Path, name: str) -> int:
    text = subprocess.run(["nm", str(path)], check=True, capture_output=True, text=True).stdout
    return next(int(line.split()[0], 16) for line in text.splitlines() if line.endswith(f" {name}"))


def _no_service() -> LineService:
    class Refusing(LineService):
        def ask(self, requests):  # type: ignore[no-untyped-def]
            if requests:
                raise AssertionError("a reader was asked")
            return []

    return Refusing()
