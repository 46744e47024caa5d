"""Sound files of every form that the symbolizer reads, and ELF files written to order, for tests that damage them."""

from __future__ import annotations

import lzma
import shutil
import struct
import subprocess
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

C_SOURCE = """
static inline __attribute__((always_inline)) int inner(int v) { __asm__ volatile(""); return v * 3; }
static __attribute__((noinline)) int hidden(int v) { return inner(v) + 1; }
int outer(int v) { return hidden(v) + inner(v); }
extern int imported(int);
int calls(int v) { return imported(v) + outer(v); }
static int fast(int v) { return v; }
static int (*choose(void))(int) { return fast; }
int chosen(int) __attribute__((ifunc("choose")));
int main(int argc, char **argv) { (void)argv; return outer(argc) + chosen(argc); }
"""
CPP_SOURCE = """
namespace deep {
struct error { int v; };
template <typename T> struct box {
    T value;
    __attribute__((noinline)) T get(T more) const { return value + more; }
};
static __attribute__((noinline)) int risky(int v) { if (v > 9) throw error{v}; return v; }
inline __attribute__((always_inline)) int twice(int v) { return risky(v) + box<int>{v}.get(v); }
}
int outer(int v) { try { return deep::twice(v); } catch (deep::error &) { return 0; } }
int main(int argc, char **) { return outer(argc) + deep::box<long>{1}.get(argc); }
"""
#: Name of a form → compiler and options. All are below 64 KB, so that a fuzzer gets through many.
FORMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "c": ("gcc", ("-g", "-O0")),
    "inlines": ("gcc", ("-g", "-O2")),
    "cpp": ("g++", ("-g", "-O2")),
    "compressed": ("g++", ("-g", "-O2", "-gz")),
    "dwarf4": ("g++", ("-g", "-gdwarf-4", "-O2")),
    "library": ("gcc", ("-g", "-O1", "-shared", "-fPIC")),
    "plt_sec": ("gcc", ("-O2", "-shared", "-fPIC", "-fcf-protection", "-Wl,-z,ibtplt")),
    "plt_got": ("gcc", ("-O2", "-shared", "-fPIC", "-fno-plt")),
    "fixed": ("gcc", ("-g", "-O2", "-no-pie", "-nostdlib", "-static")),
    "split": ("gcc", ("-g", "-O2", "-gsplit-dwarf")),
    "debug_frame": ("gcc", ("-g", "-O2", "-fno-asynchronous-unwind-tables", "-fno-unwind-tables")),
}
_SHARED = ("library", "plt_sec", "plt_got")


def build_seeds(folder: Path) -> dict[str, bytes]:
    """Return name → bytes of sound files of every form that this machine's tools can make; `folder` is for the work."""
    found: dict[str, bytes] = {}
    (folder / "seed.c").write_text(C_SOURCE)
    (folder / "seed.cc").write_text(CPP_SOURCE)
    library = folder / "libimported.so"
    imported = folder / "imported.c"
    imported.write_text("int imported(int v) { return v; }")
    _run("gcc", imported, "-shared", "-fPIC", "-o", library)
    for name, (compiler, options) in FORMS.items():
        out = folder / name
        source = folder / ("seed.cc" if compiler == "g++" else "seed.c")
        extra: tuple[object, ...] = () if name in _SHARED or compiler == "g++" else (library,)
        if name == "fixed":
            extra = (imported, "-Wl,-e,main")
        if _run(compiler, source, "-o", out, *options, *extra, "-Wl,--build-id"):
            found[name] = out.read_bytes()
    _derive(folder, found)
    return found


def _derive(folder: Path, found: dict[str, bytes]) -> None:
    """Add what strip, objcopy and dwz make of the programs."""
    stripped, program = folder / "stripped", folder / "cpp"
    _run("strip", "-o", stripped, program)
    symbols = folder / "symbols"
    _run("objcopy", "--only-keep-debug", "--strip-debug", program, symbols)
    packed = folder / "symbols.xz"
    packed.write_bytes(lzma.compress(symbols.read_bytes()))
    _run("objcopy", f"--add-section=.gnu_debugdata={packed}", stripped, folder / "minidebuginfo")
    debug = folder / "debug"
    _run("objcopy", "--only-keep-debug", program, debug)
    _run("objcopy", f"--add-gnu-debuglink={debug}", stripped, folder / "linked")
    names = ["stripped", "minidebuginfo", "debug", "linked"]
    if shutil.which("dwz"):
        for name in ("dwz1", "dwz2"):
            shutil.copy(program, folder / name)
        _run("dwz", "-m", folder / "dwz.debug", "-M", "dwz.debug", folder / "dwz1", folder / "dwz2")
        names.append("dwz1")
    found.update((name, (folder / name).read_bytes()) for name in names if (folder / name).exists())


def _run(*words: object) -> bool:
    done = subprocess.run([str(word) for word in words], capture_output=True, check=False)
    return done.returncode == 0


# Files that are written.

#: Tag, whether it has children, (attribute, form) …
Declaration = tuple[int, bool, Sequence[tuple[int, int]]]
COMPRESSION_HEADER = struct.Struct("<IIQQ")
#: A line number program: line 1 for the addresses from 1 to 0x800.
SET_ADDRESS = b"\0\x09\x02" + (1).to_bytes(8, "little")
END_SEQUENCE = b"\0\1\1"
ONE_LINE = SET_ADDRESS + b"\x01\x02\x80\x10" + END_SEQUENCE


@dataclass(frozen=True, slots=True)
class Part:
    """One section to write; `size` is what its header says, if that is not the truth. Offset and vaddr are equal."""

    name: str
    data: bytes
    type: int = 1
    flags: int = 0
    link: int = 0
    size: int | None = None


def elf_of(parts: Sequence[Part], *, more_headers: int = 0, eh_frame_hdr: str | None = None) -> bytes:
    """Return an ELF file with these sections, numbered from 1, in one executable segment that shows the whole file.

    `more_headers` empty section headers come behind them. `eh_frame_hdr` names the section for PT_GNU_EH_FRAME.
    """
    headers = 1 + (eh_frame_hdr is not None)
    names = b"\0" + b"".join(part.name.encode() + b"\0" for part in parts) + b".shstrtab\0"
    everything = [*parts, Part(".shstrtab", names, 3)]
    body, rows, name_at = bytearray(64 + 56 * headers), [bytes(64)], 1
    frame_header = b""
    for part in everything:
        body += bytes(-len(body) % 16)
        size = len(part.data) if part.size is None else part.size
        rows.append(struct.pack("<IIQQQQIIQQ", name_at, part.type, part.flags, len(body), len(body), size,
                                part.link, 0, 1, 0))
        if part.name == eh_frame_hdr:
            frame_header = struct.pack("<IIQQQQQQ", 0x6474E550, 4, len(body), len(body), 0, size, size, 4)
        body += part.data
        name_at += len(part.name) + 1
    count = len(rows) + more_headers
    if count > 0xFEFF:
        rows[0] = struct.pack("<IIQQQQIIQQ", 0, 0, 0, 0, 0, count, 0, 0, 0, 0)
    body += bytes(-len(body) % 16)
    at = len(body)
    body += b"".join(rows) + bytes(64 * more_headers)
    body[:64] = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 3, 62, 1, 0, 64, at, 0, 64, 56, headers, 64,
                            count if count <= 0xFEFF else 0, len(everything))
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, len(body), len(body), 4096)
    body[64 : 64 + 56 * headers] = load + frame_header
    return bytes(body)


def uleb(value: int) -> bytes:
    """Return an unsigned LEB128 number."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes((*out, value))


def dwarf4_unit(entries: bytes) -> bytes:
    """Return a .debug_info with one unit of DWARF 4, for vaddrs from 1 on, that holds these entries behind its first one."""
    top = uleb(1) + struct.pack("<QQI", 1, 1 << 20, 0)
    body = struct.pack("<HIB", 4, 0, 8) + top + entries + b"\0"
    return struct.pack("<I", len(body)) + body


def abbreviations(*declarations: Declaration) -> bytes:
    """Return a .debug_abbrev with declarations (tag, whether it has children, (attribute, form) …), codes from 1."""
    out = bytearray()
    for code, (tag, children, attributes) in enumerate(declarations, 1):
        out += uleb(code) + uleb(tag) + bytes([children])
        out += b"".join(uleb(name) + uleb(form) for name, form in attributes) + b"\0\0"
    return bytes(out) + b"\0"


def line_program(program: bytes) -> bytes:
    """Return a .debug_line with one program of DWARF 4 that has these instructions and one file."""
    lengths = bytes([0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1])
    head = struct.pack("<BBBbBB", 1, 1, 1, -5, 14, 13) + lengths + b"\0" + b"a.c\0\0\0\0" + b"\0"
    body = struct.pack("<HI", 4, len(head)) + head + program
    return struct.pack("<I", len(body)) + body


def dwarf_of(entries: bytes, declarations: Sequence[Declaration], program: bytes = ONE_LINE) -> bytes:
    """Return an ELF file with one unit that holds these entries; their abbreviations have the codes from 2 on."""
    unit = (0x11, True, ((0x11, 0x01), (0x12, 0x07), (0x10, 0x17)))
    return elf_of([
        Part(".debug_info", dwarf4_unit(entries)),
        Part(".debug_abbrev", abbreviations(unit, *declarations)),
        Part(".debug_line", line_program(program)),
    ])


def bomb(size: int) -> bytes:
    """Return what a section with SHF_COMPRESSED holds that becomes `size` zeros, a multiple of 1 MB."""
    packer = zlib.compressobj(1)
    block = bytes(1 << 20)
    packed = b"".join(packer.compress(block) for _ in range(size >> 20)) + packer.flush()
    return COMPRESSION_HEADER.pack(1, 0, size, 1) + packed
