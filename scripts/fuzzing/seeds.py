"""What each target begins with: sound files, or parts of them, which are then damaged."""

from __future__ import annotations

import os
from pathlib import Path

from fuzzing import kernel_types, recordings
from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError

#: Targets whose seeds are whole ELF files.
_FILES = ("elf", "unwind", "plt", "memory_image", "whole")
_TEXTS: dict[str, tuple[bytes, ...]] = {
    "perf_map": (b"7f0010 40 LazyCompile:*go /srv/a.js:12:3\n7f0020 8 py::f:/a.py\n0x7f0000 0x100 [i] java::f\n",
                 b"10 10 a\n18 10 b\x1b[2J\n8 40 c\n", b"ffffffffffffffff 1 x\n1 ffffffffffffffff y\n"),
    "kallsyms": (b"ffffffff81000000 T _stext\nffffffff81000010 t f\nffffffff81001000 T _etext\n"
                 b"ffffffffc0000000 t g\t[mod]\nffffffffc0000100 t _RNvC1a1f\t[bpf]\n"
                 b"\0mod 16384 0 - Live 0xffffffffc0000000\n", b"0000000000000000 T f\n"),
    "maps": (b"55d0-55f0 r-xp 00001000 08:01 77   /usr/bin/a b (deleted)\n7ff0-7fff r--p 00000000 00:00 0 [vdso]\n",),
    "names": (b"_ZN4deep5riskyEi.cold", b"_RNvNtC7mycrate3foo3bar", b"_ZN3foo17h05af221e174051e9E", b"$s4main3fooyyF",
              b"_D8demangle4testFaZv", b"_ZNSt6vectorIiSaIiEE9push_backEOi@GLIBC_2", b"malloc@plt",
              b"_ZZ1fvENKUlvE_clEv", b"_ZN1AIS_IS_IS_EEE1fET_S_S0_S1_", b"_Z1fDpT_\x1b[2J", b"_RINvC1a1fNtB2_1TE"),
    "cfa_program": (bytes((1, 120, 16, 0x1B, 3, 40)) + b"\x0c\x07\x08\x90\x01\x41\x0e\x10\x86\x02\x43\x0d\x06\x0a\x0b",
                    bytes((1, 120, 16, 0x1B, 2, 9)) + b"\x0f\x04\x77\xa0\x01\x06\x10\x06\x02\x76\x70\x16\x10\x01\x06"),
    "debug_links": (b"program.debug\0\0\0\x12\x34\x56\x78", b"/x/.dwz/a\0" + bytes(range(20)), b"../a\0" + bytes(20)),
    "unit_lines": (bytes((123, 14, 13, 1, 0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))
                   + b"\0\x09\x02\0\x10\0\0\0\0\0\0\x14\x4b\x02\x04\0\x01\x01",),
}
#: Sections whose bytes are the seeds.
_PARTS = {
    "eh_frame": (".eh_frame", ".debug_frame"),
    "debugdata": (".gnu_debugdata",),
    "units": (".debug_aranges", ".debug_info"),
}


def seeds(target: str, files: dict[str, bytes]) -> list[bytes]:
    """Return inputs to begin with, made of sound ELF files."""
    if target in _FILES:
        return list(files.values())
    if target == "btf":
        return kernel_types.seeds()
    if target == "recording":
        return recordings.seeds()
    if target == "skips":
        return [_padded(info, abbrev) for data in files.values()
                if (info := _section(data, ".debug_info")) and (abbrev := _section(data, ".debug_abbrev"))]
    if target in _PARTS:
        first = b"\0" if target == "eh_frame" else b""
        return [first + part for data in files.values() for name in _PARTS[target] if (part := _section(data, name))]
    if target == "line_table":
        return [_line_table(data) for name, data in files.items() if name in ("cpp", "inlines")]
    return list(_TEXTS[target])


def _padded(info: bytes, abbrev: bytes) -> bytes:
    half = max(len(info), len(abbrev))
    return info.ljust(half, b"\0") + abbrev.ljust(half, b"\0")


def _section(data: bytes, name: str) -> bytes:
    try:
        section = Elf.parse(data).section(name)
        return bytes(section.data) if section is not None else b""
    except ElfError:
        return b""


def _line_table(data: bytes) -> bytes:
    from symbolizer.file_map import shared_descriptor
    from symbolizer.line_worker import convert

    source = shared_descriptor(data)
    try:
        with os.fdopen(convert([source], {"hidden": []}), "rb") as out:
            return Path(f"/proc/self/fd/{out.fileno()}").read_bytes()
    finally:
        os.close(source)
