import mmap
import os
import re
import shutil
import struct
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError
from symbolizer.plt import plt_names

Build = Callable[..., Path]
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
TABLES = (".plt", ".plt.sec", ".plt.got")
MAIN = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
int main(int argc, char **argv) {
    void *(*volatile indirect)(size_t) = malloc;
    char *text = indirect(argc);
    puts(strcpy(text, argv[0]));
    free(realloc(text, 5));
    return text == 0;
}
"""


def need(tool: str) -> None:
    """Skip the test where the tool is missing; where CI is set, nobody reads what was skipped, so fail."""
    if shutil.which(tool) is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"this test needs {tool}")


def labels(path: Path) -> dict[int, str]:
    """Return vaddr → name of every entry to which objdump gives a name."""
    sections = [option for table in TABLES for option in ("-j", table)]
    text = subprocess.run(["objdump", "-d", *sections, str(path)], capture_output=True, text=True).stdout
    found = {}
    for vaddr, name in re.findall(r"^([0-9a-f]{16}) <(.*)>:$", text, re.MULTILINE):
        if name.endswith("@plt"):
            found[int(vaddr, 16)] = re.sub(r"@+[A-Z][A-Z_]*[_.][^@]*(?=@plt$)", "", name)
    return found


def opened(path: Path) -> Elf:
    with path.open("rb") as file:
        return Elf.parse(mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ))


@pytest.mark.parametrize(
    ("options", "table"),
    [
        (["-Wl,-z,lazy"], ".plt"),
        (["-Wl,-z,lazy", "-no-pie"], ".plt"),
        (["-Wl,-z,now"], ".plt"),
        (["-fcf-protection", "-Wl,-z,ibtplt,-z,lazy"], ".plt.sec"),
        (["-fcf-protection", "-Wl,-z,ibtplt,-z,now"], ".plt.sec"),
        (["-fPIC", "-shared", "-Wl,-z,lazy"], ".plt"),
        (["-fuse-ld=lld"], ".plt"),
        (["-fuse-ld=lld", "-Wl,-z,now"], ".plt"),
        (["-fuse-ld=lld", "-fcf-protection", "-Wl,-z,force-ibt"], ".plt.sec"),
    ],
)
def test_every_entry_has_the_name_that_objdump_gives_it(build: Build, options: list[str], table: str) -> None:
    if "-fuse-ld=lld" in options:
        need("ld.lld")
    path = build(MAIN, "-O1", *options)
    expected = labels(path)
    elf = opened(path)
    names = plt_names(elf)
    section = elf.section(table)
    assert section is not None
    inside = {name for vaddr, name in expected.items() if section.vaddr <= vaddr < section.vaddr + section.size}
    assert inside >= {"free@plt", "puts@plt", "realloc@plt"}
    assert {vaddr: names.find(vaddr) for vaddr in expected} == {vaddr: (name, 0) for vaddr, name in expected.items()}
    assert len(names) == len(expected)


def test_entries_for_functions_whose_address_is_taken_are_named(build: Build) -> None:
    """Such entries lie in .plt.got and have 8 bytes, or 16 with endbr64."""
    text = "#include <stdlib.h>\nvoid *(*taken)(size_t);\nint main(void) { void *(*volatile f)(size_t) = malloc; taken = f; return malloc(9) == 0; }\n"
    for options, size in (["-fPIE"], 8), (["-fPIE", "-fcf-protection", "-Wl,-z,ibtplt"], 16):
        elf = opened(build(text, "-O1", *options))
        names, section = plt_names(elf), elf.section(".plt.got")
        assert section is not None
        found = [names.find(vaddr) for vaddr in range(section.vaddr, section.vaddr + section.size, size)]
        assert ("malloc@plt", 0) in found
        vaddr = section.vaddr + size * found.index(("malloc@plt", 0))
        assert names.find(vaddr + size - 1) == ("malloc@plt", size - 1)
        after = names.find(vaddr + size)
        assert after is None or after[0] != "malloc@plt"


def test_the_first_entry_of_a_lazy_table_has_no_name(build: Build) -> None:
    for options in ([], ["-fcf-protection", "-Wl,-z,ibtplt"]):
        elf = opened(build(MAIN, "-O1", "-Wl,-z,lazy", *options))
        section = elf.section(".plt")
        assert section is not None
        assert [plt_names(elf).find(section.vaddr + offset) for offset in range(16)] == [None] * 16


def test_an_address_in_an_entry_has_its_offset_and_one_outside_no_name(build: Build) -> None:
    path = build(MAIN, "-O1", "-Wl,-z,lazy")
    names, expected = plt_names(opened(path)), labels(path)
    start = next(vaddr for vaddr, name in expected.items() if name == "realloc@plt")
    assert names.find(start + 6) == ("realloc@plt", 6)
    assert names.find(start + 15) == ("realloc@plt", 15)
    assert names.find(min(expected) - 1) is None
    end = max(vaddr for vaddr in expected) + 16
    assert [names.find(vaddr) for vaddr in (0, -1, end, 1 << 63, 1 << 64, 1 << 70)] == [None] * 6


@pytest.mark.parametrize("library", ["libc.so.6", "libstdc++.so.6", "libpython3.11.so.1.0", "libLLVM-14.so.1"])
def test_real_libraries_are_named_as_objdump_names_them_and_soon(library: str) -> None:
    path = LIBRARIES / library
    if not path.exists():
        (pytest.fail if os.environ.get("CI") else pytest.skip)(f"this test needs {path}")
    elf = opened(path)
    start = time.monotonic()
    names = plt_names(elf)
    took = time.monotonic() - start
    expected = {vaddr: name for vaddr, name in labels(path).items() if not name.startswith("*ABS*")}
    assert len(expected) > 10
    assert {vaddr: names.find(vaddr) for vaddr in expected} == {vaddr: (name, 0) for vaddr, name in expected.items()}
    assert took < 0.3


@pytest.mark.parametrize("options", [["-static"], ["-static-pie"], ["-fuse-ld=lld", "-static"]])
def test_entries_of_a_static_program_have_the_name_of_what_their_resolver_chooses(
    build: Build, options: list[str]
) -> None:
    if "-fuse-ld=lld" in options:
        need("ld.lld")
    path = build(MAIN, "-O1", *options)
    elf = opened(path)
    names = plt_names(elf)
    relocations = subprocess.run(["readelf", "-rW", str(path)], check=True, capture_output=True, text=True).stdout
    resolvers = [int(vaddr, 16) for vaddr in re.findall(r"R_X86_64_IRELATIVE?\s+([0-9a-f]+)", relocations)]
    defined = subprocess.run(["nm", str(path)], check=True, capture_output=True, text=True).stdout.splitlines()
    chosen = {f"{line.split()[2]}@plt" for line in defined if int(line[:16].strip() or "0", 16) in resolvers}
    section = elf.section(".iplt") or elf.section(".plt")
    assert section is not None
    found = {names.find(vaddr) for vaddr in range(section.vaddr, section.vaddr + section.size, 16)} - {None}
    assert len(found) > 3
    assert {name for name, _ in filter(None, found)} <= chosen


def test_a_stripped_static_program_has_no_names(build: Build) -> None:
    elf = opened(build(MAIN, "-O1", "-static", "-s"))
    section = elf.section(".plt")
    assert section is not None
    names = plt_names(elf)
    assert len(names) > 3
    assert {names.find(vaddr) for vaddr in range(section.vaddr, section.vaddr + section.size)} == {None}


@pytest.mark.parametrize("section", [".plt", ".rela.plt", ".dynsym", ".dynstr"])
def test_a_table_outside_the_file_means_no_names(build: Build, section: str) -> None:
    data = bytearray(build(MAIN, "-O1").read_bytes())
    vaddr = Elf.parse(bytes(data)).section(".plt")
    assert vaddr is not None
    found = Elf.parse(bytes(data)).section(section)
    assert found is not None
    (headers,) = struct.unpack_from("<Q", data, 40)
    at = data.index(struct.pack("<QQQ", found.vaddr, found.offset, found.size), headers)
    struct.pack_into("<Q", data, at + 8, 1 << 40)
    names = plt_names(Elf.parse(bytes(data)))
    assert {names.find(vaddr.vaddr + offset) for offset in range(vaddr.size)} == {None}


def test_a_relocation_for_a_symbol_behind_the_last_means_no_name(build: Build) -> None:
    data = bytearray(build(MAIN, "-O1", "-Wl,-z,lazy").read_bytes())
    elf = Elf.parse(bytes(data))
    symbols, relocations, table = (elf.section(name) for name in (".dynsym", ".rela.plt", ".plt"))
    assert symbols is not None
    assert relocations is not None
    assert table is not None
    first = plt_names(elf).find(table.vaddr + 16)
    for symbol in (0, symbols.size // 24, 2**32 - 1):
        struct.pack_into("<I", data, relocations.offset + 12, symbol)
        names = plt_names(Elf.parse(bytes(data)))
        found = [names.find(table.vaddr + offset) for offset in range(16, table.size, 16)]
        assert first not in found
        assert found.count(None) == 1


@given(st.data())
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_damage_never_raises(build: Build, tmp_path: Path, data: st.DataObject) -> None:
    program = tmp_path / "damaged"
    if not program.exists():
        build(MAIN, "-O1", name="damaged")
    content = bytearray(program.read_bytes())
    (headers,) = struct.unpack_from("<Q", content, 40)
    places = st.one_of(st.integers(0, 0x800), st.integers(headers, len(content) - 1), st.integers(0x1000, 0x1100))
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(places)] = data.draw(st.integers(0, 255))
    try:
        elf = Elf.parse(bytes(content))
    except ElfError:
        return
    names = plt_names(elf)
    for vaddr in range(0x1000, 0x1100):
        names.find(vaddr)
