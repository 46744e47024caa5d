import lzma
import random
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from symbolizer.elf import Elf
from symbolizer.minidebuginfo import minidebuginfo

Build = Callable[..., Path]


def embed(program: Path, content: bytes) -> Elf:
    """Return the program, stripped, with that content in .gnu_debugdata."""
    data, out = program.with_suffix(".xz"), program.with_suffix(".embedded")
    data.write_bytes(content)
    subprocess.run(["strip", "-o", str(out), str(program)], check=True)
    subprocess.run(["objcopy", f"--add-section=.gnu_debugdata={data}", str(out)], check=True)
    return Elf.parse(out.read_bytes())


def symbols_only(program: Path) -> bytes:
    """Return what distributions embed: the program without code and DWARF, with its symbols."""
    out = program.with_suffix(".mini")
    subprocess.run(["objcopy", "-S", "--only-keep-debug", str(program), str(out)], check=True)
    subprocess.run(["objcopy", "--only-keep-debug", "--strip-debug", str(program), str(out)], check=True)
    return out.read_bytes()


@pytest.mark.parametrize("form", [lzma.FORMAT_XZ, lzma.FORMAT_ALONE])
def test_the_embedded_symbols_name_what_the_stripped_program_does_not(
    build: Build, nested_inlines: str, form: int
) -> None:
    program = build(nested_inlines, "-O2")
    whole = Elf.parse(program.read_bytes()).symbols()
    elf = embed(program, lzma.compress(symbols_only(program), form))
    assert "quiet" not in elf.symbols().defined(["quiet"])
    inner = minidebuginfo(elf)
    assert inner is not None
    assert inner.symbols().defined(["quiet", "outer"]) == whole.defined(["quiet", "outer"])
    assert inner.symbols().find(whole.defined(["quiet"])["quiet"] + 2) == ("quiet", 2)


def test_a_file_without_the_section_has_none(build: Build, nested_inlines: str) -> None:
    assert minidebuginfo(Elf.parse(build(nested_inlines).read_bytes())) is None


@pytest.mark.parametrize("damage", ["empty", "cut", "garbage", "no ELF", "flipped", "no symbols", "of another"])
def test_damaged_content_is_none(build: Build, nested_inlines: str, damage: str) -> None:
    program = build(nested_inlines, "-O2")
    good = lzma.compress(symbols_only(program))
    stripped = program.with_suffix(".stripped")
    subprocess.run(["strip", "-o", str(stripped), str(program)], check=True)
    other = build(nested_inlines, "-O1", name="other")
    content = {
        "empty": b"",
        "cut": good[: len(good) // 2],
        "garbage": random.Random(1).randbytes(1000),
        "no ELF": lzma.compress(b"no ELF file"),
        "flipped": good[:500] + bytes([good[500] ^ 0x55]) + good[501:],
        "no symbols": lzma.compress(stripped.read_bytes()),
        "of another": lzma.compress(symbols_only(other)),
    }[damage]
    assert minidebuginfo(embed(program, content)) is None


def test_a_bomb_ends_soon(build: Build, nested_inlines: str) -> None:
    program = build(nested_inlines, "-O2")
    bomb = embed(program, lzma.compress(symbols_only(program) + bytes(100 << 20), preset=0))
    start = time.monotonic()
    assert minidebuginfo(bomb) is None
    assert time.monotonic() - start < 2


def test_a_dictionary_that_needs_much_memory_is_refused(build: Build, nested_inlines: str) -> None:
    program = build(nested_inlines, "-O2")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 512 << 20}]
    content = lzma.compress(symbols_only(program), filters=filters)
    assert minidebuginfo(embed(program, content)) is None
