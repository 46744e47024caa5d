"""Which pages hold something: from written entries of pagemap, and from memory of this process."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from tracer.attach.resident_pages import LONGEST, PAGE, ResidentPages, contents, joined, runs, sizes

PRESENT, SWAPPED, FILE, GUARD = 1 << 63, 1 << 62, 1 << 61, 1 << 58


@pytest.mark.parametrize(("entries", "anonymous", "expected"), [
    ([], False, []),
    ([0, 0], False, []),
    ([PRESENT, PRESENT, 0, SWAPPED], False, [[10, 12], [13, 14]]),
    ([0, PRESENT | FILE, PRESENT], False, [[11, 13]]),
    ([0, PRESENT | FILE, PRESENT], True, [[12, 13]]),
    ([SWAPPED | GUARD, PRESENT | 5], False, [[11, 12]]),
])
def test_runs(entries: list[int], anonymous: bool, expected: list[list[int]]) -> None:
    """Neighbours in memory or in swap become one range; guards, and if asked a file's pages, are left out."""
    found = runs(np.array(entries, np.uint64), 10, anonymous=anonymous)
    assert (found // PAGE).tolist() == expected


def test_joined() -> None:
    """Ranges come in order, and those that touch as one."""
    assert joined(np.array([[8, 16], [0, 4], [4, 6], [16, 20]], np.uint64)).tolist() == [[0, 6], [8, 20]]


def test_contents_of_smaps() -> None:
    """Of each mapping, what is in memory and in swap counts; shares and the rest do not."""
    text = (b"1000-9000 rw-p 00000000 00:00 0\nSize: 32 kB\nRss:       8 kB\nPss: 3 kB\nSwap:   4 kB\nSwapPss: 1 kB\n"
            b"abc000-abd000 r--p 00000000 08:01 7 /x Rss: 5 kB\nRss:  0 kB\nrubbish\n")
    assert contents(text) == [(0x1000, 12 * 1024), (0xABC000, 0)]
    assert contents(b"Rss: 7 kB\n") == []


@pytest.fixture
def sparse() -> tuple[mmap.mmap, int]:
    """16 GB, of which the pages 3, 4 and 1000 are in use."""
    memory = mmap.mmap(-1, 16 << 30, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)
    memory.madvise(mmap.MADV_NOHUGEPAGE)
    for page in (3, 4, 1000):
        memory[page * PAGE] = 1
    return memory, np.frombuffer(memory, np.uint8).ctypes.data


@pytest.mark.parametrize("scan", [True, False])
def test_only_what_is_in_use_is_found(sparse: tuple[mmap.mmap, int], scan: bool) -> None:
    """Both ways find the pages that are in use in a large mapping, and nothing else."""
    memory, start = sparse
    with ResidentPages(os.getpid(), scan=scan) as pages:
        found = pages.find(np.array([[start, start + len(memory)]], np.uint64))
        assert ((found.astype(np.int64) - start) // PAGE).tolist() == [[3, 5], [1000, 1001]]
        assert pages.left_out == 0


@pytest.mark.parametrize("scan", [True, False])
def test_file_pages_are_told_apart(scan: bool, tmp_path: Path) -> None:
    """Of a file's private mapping only the page that was written to is the process's own."""
    path = tmp_path / "file"
    path.write_bytes(bytes(4 * PAGE))
    with open(path, "rb") as file:
        memory = mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE)
    assert memory[0] + memory[PAGE] + memory[2 * PAGE] == 0
    memory[PAGE] = 1
    start = np.frombuffer(memory, np.uint8).ctypes.data
    span = np.array([[start, start + 4 * PAGE]], np.uint64)
    with ResidentPages(os.getpid(), scan=scan) as pages:
        assert sizes(pages.find(span)) >= 3 * PAGE
        assert pages.find(span, anonymous=True).tolist() == [[start + PAGE, start + 2 * PAGE]]


def test_too_much_to_read_is_said(sparse: tuple[mmap.mmap, int]) -> None:
    """Where the slower way has no time left, it stops, and says how many bytes in use it did not come to."""
    memory, start = sparse
    times = iter([0.0, 0.0, *[LONGEST + 1] * 99])
    with ResidentPages(os.getpid(), scan=False, clock=lambda: next(times)) as pages:
        far = start + (8 << 30)
        memory[8 << 30] = 1
        pages.find(np.array([[start, start + len(memory)]], np.uint64))
        assert pages.left_out == PAGE, hex(far)


def test_no_process() -> None:
    """A process that is gone is an error, and not an empty one."""
    with pytest.raises(FileNotFoundError):
        ResidentPages(1 << 30)
