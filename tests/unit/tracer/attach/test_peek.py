"""Single words of a process, many at a time, and which of them are vtables: of this process, which is at hand."""

from __future__ import annotations

import ctypes as ct
import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from symbolizer.mappings import parse_maps
from tracer.attach.peek import MOST_RANGES, VTABLE_WORDS, Peeker

PAGE = mmap.PAGESIZE
#: Where nothing can be read: below the first page, between user space and the kernel, and in the kernel.
NOWHERE = (16, 1 << 62, 0xFFFF_FFFF_8000_0000)
CODE = b"%x-%x r-xp 00000000 08:01 7 /lib/made.so\n"


def u64(*values: int) -> np.ndarray:
    return np.array(values, np.uint64)


def own(maps: bytes = b"") -> Peeker:
    """Return a reader of this process, with made-up mappings if there are any."""
    return Peeker(os.getpid(), tuple(parse_maps(maps or Path("/proc/self/maps").read_bytes())))


@pytest.mark.parametrize("count", [0, 1, MOST_RANGES, 2 * MOST_RANGES + 5])
def test_words(count: int) -> None:
    """Each address gets its own word, in any order, however many are asked for."""
    words = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x0101010101010101)
    order = np.random.default_rng(3).permutation(count)
    asked = np.uint64(words.ctypes.data) + np.uint64(8) * order.astype(np.uint64)
    assert own().words(asked).tolist() == words[order].tolist()


def test_what_cannot_be_read_is_0_and_hides_nothing() -> None:
    """Bad addresses at the beginning, in the middle, one after the other and last: the others are read all the same."""
    buffer = (ct.c_uint64 * 3)(5, 6, 7)
    good = ct.addressof(buffer)
    asked = u64(NOWHERE[0], good, NOWHERE[1], NOWHERE[2], good + 8, good + 16, NOWHERE[0])
    assert own().words(asked).tolist() == [0, 5, 0, 0, 6, 7, 0]
    many = np.tile(u64(good, NOWHERE[0], good + 8), MOST_RANGES)
    assert own().words(many).tolist() == [5, 0, 6] * MOST_RANGES


def test_a_word_of_which_a_part_cannot_be_read() -> None:
    """One that goes on into memory that is not there is 0 too, not its first half."""
    memory = mmap.mmap(-1, 2 * PAGE)
    memory[:PAGE] = b"\xff" * PAGE
    start = np.frombuffer(memory, np.uint8).ctypes.data
    assert ct.CDLL(None).mprotect(ct.c_void_p(start + PAGE), PAGE, 0) == 0
    assert own().words(u64(start + PAGE - 4, start)).tolist() == [0, (1 << 64) - 1]


def test_a_process_that_is_gone() -> None:
    """There is nothing in it."""
    gone = Peeker(1 << 30, ())
    assert gone.words(u64(16, 32)).tolist() == [0, 0]
    assert gone.are_vtables(u64(16, 32)).tolist() == [False, False]


def test_the_vtables_of_a_library() -> None:
    """What an object of the C++ runtime begins with is one; its code, the heap and bad addresses are none."""
    try:
        library = ct.CDLL("libstdc++.so.6")
    except OSError:
        pytest.skip("there is no libstdc++ here")
    # Before the first function stand an offset and the type (Itanium C++ ABI, 2.5.2).
    tables = [ct.addressof(ct.c_char.in_dll(library, name)) + 16 for name in ("_ZTVSt9exception", "_ZTVSt9bad_alloc")]
    code = ct.cast(library._Znwm, ct.c_void_p).value
    buffer = (ct.c_uint64 * 30)(*[code or 0] * 30)
    assert own().are_vtables(u64(*tables, code or 0, ct.addressof(buffer), *NOWHERE)).tolist() == [True, True] + [False] * 5


@pytest.mark.parametrize(("words", "is_one"), [
    ("cc", True), ("c0c", True), ("00cc", True), ("c", False), ("cxc", False), ("xcc", False), ("ccx", True),
    ("0" * (VTABLE_WORDS - 2) + "cc", True), ("0" * (VTABLE_WORDS - 1) + "cc", False), ("e0c", False), ("", False),
])  # fmt: skip
def test_what_a_vtable_is(words: str, is_one: bool, tmp_path: Path) -> None:
    """Two words that lead to code (c) among the first ones, with none (0) between, and nothing else (x; e: code's end)."""
    values = {"c": 0x10_0000, "0": 0, "x": 0x30_0000, "e": 0x10_1000}
    path = tmp_path / "constants"
    path.write_bytes(b"".join(values[letter].to_bytes(8, "little") for letter in words).ljust(2 * PAGE, b"\0"))
    with path.open("rb") as file:
        memory = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    start = np.frombuffer(memory, np.uint8).ctypes.data
    code = CODE % (0x10_0000, 0x10_1000)
    constants = b"%x-%x r--p 00000000 08:01 8 /lib/made.so\n" % (start, start + 2 * PAGE)
    assert own(code + constants).are_vtables(u64(start)).tolist() == [is_one]
    for kind in (constants.replace(b"r--p", b"rw-p"), constants.replace(b"08:01 8 /lib/made.so", b"00:00 0")):
        assert own(code + kind).are_vtables(u64(start)).tolist() == [False], "a vtable is a constant of a file"
