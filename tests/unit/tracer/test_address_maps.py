"""What code processes have mapped, as reports have it."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from symbolizer.mappings import AddressSpace, parse_maps
from symbolizer.symbolizer import Symbolizer
from tracer.address_maps import AddressMaps

FIRST = (b"1000-2000 r-xp 00001000 08:01 77 /usr/bin/a\n2000-3000 rw-p 00002000 08:01 77 /usr/bin/a\n"
         b"5000-6000 r-xp 00000000 00:00 0 \n")
SECOND = FIRST + b"7000-8000 r-xp 00003000 08:01 78 /lib/\x1b[2Jb.so\n"


def process(uid: int, text: bytes) -> Any:
    return SimpleNamespace(uid=uid, process=SimpleNamespace(pid=100 + uid), space=AddressSpace.of(parse_maps(text)))


def test_code_that_is_a_files_is_there() -> None:
    """Of each process there are its executable files, safe to show, and neither data nor code without a file."""
    symbolizer = Symbolizer()
    try:
        one, other = AddressMaps(symbolizer).of([process(1, FIRST), process(2, SECOND)])
    finally:
        symbolizer.close()
    assert (one.pid, other.pid) == (101, 102)
    assert [(each.start, each.end, each.offset, each.path) for each in one.files] == [(0x1000, 0x2000, 0x1000, "/usr/bin/a")]
    assert [each.path for each in other.files] == ["/usr/bin/a", "/lib/\\x1b[2Jb.so"]


def test_what_is_loaded_later_is_there_later() -> None:
    """A map is made again when the process has loaded something, and is the same object while it has not."""
    symbolizer = Symbolizer()
    try:
        maps, traced = AddressMaps(symbolizer), process(1, FIRST)
        first = maps.of([traced])
        assert maps.of([traced])[0] is first[0]
        traced.space = AddressSpace.of(parse_maps(SECOND))
        assert len(maps.of([traced])[0].files) == 2 and len(first[0].files) == 1
    finally:
        symbolizer.close()


def test_own_maps_have_this_interpreter() -> None:
    """Of this process itself, the C library is there."""
    symbolizer = Symbolizer()
    text = Path("/proc/self/maps").read_bytes()
    try:
        (mine,) = AddressMaps(symbolizer).of([process(os.getpid(), text)])
    finally:
        symbolizer.close()
    assert any("libc" in each.path for each in mine.files)
