from collections.abc import Callable
from pathlib import Path

from symbolizer.elf import Elf

Build = Callable[..., Path]
MAIN = """
#include <stdlib.h>
__attribute__((noinline)) void *grow(int n) { return malloc(n); }
int main(int c, char **v) { (void)v; return grow(c) == 0; }
"""


def test_compressed_sections_are_decompressed(build: Build) -> None:
    plain, packed = build(MAIN, "-g", name="plain"), build(MAIN, "-g", "-gz=zlib", name="packed")
    packed_section = Elf.parse(packed.read_bytes()).section(".debug_str")
    plain_section = Elf.parse(plain.read_bytes()).section(".debug_str")
    assert packed_section is not None
    assert plain_section is not None
    assert packed_section.size < len(packed_section.data)
    assert abs(len(packed_section.data) - len(plain_section.data)) < 100
    assert b"long unsigned int\0" in bytes(packed_section.data)
