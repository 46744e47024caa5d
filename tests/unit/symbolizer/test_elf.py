import re
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError, ElfUnsupported

Build = Callable[..., Path]
MAIN = """
#include <stdlib.h>
__attribute__((noinline)) void *grow(int n) { return malloc(n); }
int main(int c, char **v) { (void)v; return grow(c) == 0; }
"""


def readelf(path: Path, *options: str) -> str:
    return subprocess.run(["readelf", "-W", *options, str(path)], check=True, capture_output=True, text=True).stdout


def touch_everything(data: bytes) -> None:
    """Use every part of the public interface; for damaged files, which may raise ElfError and nothing else."""
    elf = Elf.parse(data)
    for use in (
        lambda: elf.build_id,
        lambda: elf.soname,
        lambda: elf.needed,
        lambda: elf.interpreter,
        lambda: elf.has_dwarf,
        lambda: [section.data for name in (".debug_info", ".text", ".dynstr") if (section := elf.section(name))],
        lambda: (elf.image_base, elf.file_offset_to_vaddr(0x1000), elf.vaddr_to_file_offset(0x1000)),
        lambda: elf.symbols().find(elf.entry),
        lambda: elf.symbols().defined(["malloc", "grow", "a_much_longer_name", b"\xff"]),
    ):
        try:
            use()
        except ElfError:
            continue
    try:
        table = elf.symbols()
    except ElfError:
        return
    for row in range(min(len(table), 20)):
        table.find(int(table.value[row]))
        table.find(int(table.end[row]))


def test_a_position_independent_program_is_described_as_readelf_describes_it(build: Build) -> None:
    path = build(MAIN, "-O2", "-pie", "-fPIE", "-Wl,--build-id")
    elf = Elf.parse(path.read_bytes())
    build_id = re.search("Build ID: ([0-9a-f]+)", readelf(path, "-n"))
    assert build_id is not None
    assert elf.build_id == build_id[1]
    assert elf.interpreter == "/lib64/ld-linux-x86-64.so.2"
    assert "libc.so.6" in elf.needed
    assert elf.soname is None
    assert elf.image_base == 0
    assert f"Entry point address:               {elf.entry:#x}" in readelf(path, "-h")
    assert len(elf.segments) == readelf(path, "-l").count("  LOAD  ")


def test_a_fixed_address_program_has_its_base(build: Build) -> None:
    elf = Elf.parse(build(MAIN, "-no-pie").read_bytes())
    assert elf.image_base == 0x400000


def test_a_library_has_its_soname(build: Build) -> None:
    elf = Elf.parse(build(MAIN, "-shared", "-fPIC", "-Wl,-soname,libgrow.so.1").read_bytes())
    assert elf.soname == "libgrow.so.1"


def test_a_file_without_build_id_has_none(build: Build) -> None:
    assert Elf.parse(build(MAIN, "-Wl,--build-id=none").read_bytes()).build_id is None


@pytest.mark.parametrize("options", [["-pie", "-fPIE"], ["-no-pie"], ["-static"]])
def test_offsets_and_vaddrs_are_each_others_inverse(build: Build, options: list[str]) -> None:
    elf = Elf.parse(build(MAIN, *options).read_bytes())
    for segment in elf.segments:
        for offset in (segment.offset, segment.offset + segment.filesz - 1):
            vaddr = elf.file_offset_to_vaddr(offset)
            assert vaddr is not None
            assert elf.vaddr_to_file_offset(vaddr) == offset
    assert elf.file_offset_to_vaddr(1 << 40) is None
    assert elf.vaddr_to_file_offset(elf.image_base - 1) is None


def test_a_byte_in_two_segments_is_taken_to_be_in_the_executable_one(build: Build) -> None:
    data = bytearray(build(MAIN, "-no-pie").read_bytes())
    code = next(segment for segment in Elf.parse(bytes(data)).segments if segment.executable)
    first = data.index(struct.pack("<I", 1), 64)  # p_type of the first PT_LOAD, which holds the headers
    while (first - 64) % 56:
        first = data.index(struct.pack("<I", 1), first + 1)
    struct.pack_into("<Q", data, first + 16, 0x10000)  # p_vaddr
    struct.pack_into("<Q", data, first + 32, code.offset + code.filesz)  # p_filesz: now it reaches over the code
    assert Elf.parse(bytes(data)).file_offset_to_vaddr(code.offset) == code.vaddr


def test_the_bytes_at_a_functions_vaddr_are_its_code(build: Build) -> None:
    path = build(MAIN, "-O2")
    elf = Elf.parse(path.read_bytes())
    section = elf.section(".text")
    assert section is not None
    offset = elf.vaddr_to_file_offset(section.vaddr)
    assert offset == section.offset
    assert bytes(section.data[:16]) == path.read_bytes()[offset : offset + 16]


def test_dwarf_is_seen_only_where_it_is(build: Build) -> None:
    assert Elf.parse(build(MAIN, "-g").read_bytes()).has_dwarf
    assert not Elf.parse(build(MAIN, "-g0", "-s").read_bytes()).has_dwarf


def test_a_32_bit_file_is_unsupported_and_says_so(build: Build) -> None:
    data = bytearray(build(MAIN).read_bytes())
    data[4] = 1
    struct.pack_into("<H", data, 18, 3)
    with pytest.raises(ElfUnsupported, match="32-bit") as raised:
        Elf.parse(bytes(data))
    assert (raised.value.is_64bit, raised.value.machine) == (False, 3)


def test_another_machine_is_unsupported_and_named(build: Build) -> None:
    data = bytearray(build(MAIN).read_bytes())
    struct.pack_into("<H", data, 18, 183)
    with pytest.raises(ElfUnsupported, match="183"):
        Elf.parse(bytes(data))


def test_a_file_without_section_headers_keeps_its_dynamic_symbols(build: Build) -> None:
    for hash_style in ("gnu", "sysv"):
        data = bytearray(build(MAIN, "-shared", "-fPIC", f"-Wl,--hash-style={hash_style}").read_bytes())
        whole = Elf.parse(bytes(data)).symbols()
        struct.pack_into("<Q", data, 40, 0)  # e_shoff
        struct.pack_into("<HH", data, 60, 0, 0)  # e_shnum, e_shstrndx
        elf = Elf.parse(bytes(data))
        assert elf.symbols().defined(["grow"]) == whole.defined(["grow"]) != {}
        assert elf.build_id is not None


@pytest.mark.parametrize("data", [b"", b"\x7fELF", bytes(64), b"\x7fELF\x02\x01\x01" + bytes(57), b"#!/bin/sh\n" * 20])
def test_what_is_no_elf_file_raises_elf_error(data: bytes) -> None:
    with pytest.raises(ElfError):
        Elf.parse(data)


def test_a_file_cut_off_anywhere_raises_nothing_but_elf_error(build: Build) -> None:
    data = build(MAIN, "-g", "-gz=zlib").read_bytes()
    for length in range(0, len(data), 97):
        try:
            touch_everything(data[:length])
        except ElfError:
            continue


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Return the bytes of a small library with compressed DWARF."""
    path = tmp_path_factory.mktemp("library") / "library.so"
    command = ["gcc", "-g", "-gz=zlib", "-shared", "-fPIC", "-x", "c", "-", "-o", str(path)]
    subprocess.run(command, input=MAIN, check=True, text=True)
    return path.read_bytes()


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data(), headerless=st.booleans())
def test_a_damaged_file_raises_nothing_but_elf_error(library: bytes, data: st.DataObject, headerless: bool) -> None:
    damaged = bytearray(library)
    shoff = struct.unpack_from("<Q", damaged, 40)[0]
    for _ in range(data.draw(st.integers(1, 4))):
        # Mostly headers, the dynamic section and symbols; they are what is parsed.
        start = data.draw(st.sampled_from([0, 64, 0x2C0, 0x300, 0x2D00, 0x2E00, shoff, shoff + 64 * 6]))
        position = min(len(damaged) - 8, start + data.draw(st.integers(0, 900)))
        damaged[position : position + 8] = data.draw(
            st.sampled_from([b"\xff" * 8, bytes(8), b"\x00\x00\x00\x80" * 2]) | st.binary(min_size=8, max_size=8)
        )
    if headerless:
        struct.pack_into("<Q", damaged, 40, 0)
    try:
        touch_everything(bytes(damaged))
    except ElfError:
        return
