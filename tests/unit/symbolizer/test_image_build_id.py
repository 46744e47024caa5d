"""The build id of a mapped image is that of the file it came from."""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from symbolizer.elf import Elf
from symbolizer.image_build_id import image_build_id
from symbolizer.mappings import parse_maps

Build = Callable[..., Path]


def read_own(address: int, size: int) -> bytes:
    with open("/proc/self/mem", "rb", buffering=0) as memory:
        memory.seek(address)
        return memory.read(size)


def test_every_library_of_this_process() -> None:
    """What memory says and what the mapped files say is the same, for each file."""
    seen = 0
    for mapping in parse_maps(Path("/proc/self/maps").read_bytes()):
        if mapping.is_file and mapping.file_offset == 0 and (mapping.path.endswith(".so") or ".so." in mapping.path):
            expected = Elf.parse(Path(mapping.path).read_bytes()).build_id
            assert image_build_id(read_own, mapping.start) == expected, mapping.path
            seen += expected is not None
    assert seen > 1


@pytest.mark.parametrize("options", [["-no-pie"], ["-pie"], ["-Wl,--build-id=none"]])
def test_a_program(build: Build, nested_inlines: str, options: list[str]) -> None:
    """A file mapped as its first segment says, wherever that is; without a build id there is none."""
    path = build(nested_inlines, *options)
    data = path.read_bytes()
    elf, at = Elf.parse(data), 0x7F0000000000

    def read(address: int, size: int) -> bytes:
        vaddr = address - at + elf.image_base
        offset = elf.vaddr_to_file_offset(vaddr)
        assert offset is not None
        return data[offset : offset + size]

    assert image_build_id(read, at) == elf.build_id
    assert (elf.build_id is None) == ("none" in options[0])


@pytest.mark.parametrize("change", [(0, b"ELF?"), (4, b"\x01"), (5, b"\x02"), (54, struct.pack("<H", 55)), (56, b"\xff\xff")])
def test_damaged_headers(build: Build, nested_inlines: str, change: tuple[int, bytes]) -> None:
    """What is no image of a program has no build id, and little of it is read."""
    offset, content = change
    data = bytearray(build(nested_inlines).read_bytes())
    data[offset : offset + len(content)] = content
    asked: list[int] = []

    def read(address: int, size: int) -> bytes:
        asked.append(size)
        return bytes(data[address : address + size])

    assert image_build_id(read, 0) is None and sum(asked) < 10_000


def test_memory_that_cannot_be_read() -> None:
    """That the process has gone is the reader's error."""

    def gone(address: int, size: int) -> bytes:
        raise ProcessLookupError

    with pytest.raises(OSError):
        image_build_id(gone, 0)
