"""BPF arrays as memory, on a memory file in place of a map."""

from __future__ import annotations

import mmap
import os

import numpy as np

from tracer.collect.memory import mapped_array


def test_values_lie_8_bytes_apart_or_multiples() -> None:
    """The kernel rounds each value up to 8 bytes: the third of 12 bytes begins at 32."""
    fd = os.memfd_create("array")
    os.ftruncate(fd, mmap.PAGESIZE)
    dtype = np.dtype([("number", "u4"), ("size", "u4"), ("more", "u4")])
    array = mapped_array(fd, 5, dtype)
    assert array.shape == (5,)
    os.pwrite(fd, bytes([1, 0, 0, 0, 2, 0, 0, 0, 3]), 32)
    assert array[2].tolist() == (1, 2, 3)
    array["size"][4] = 0x0A0B
    assert os.pread(fd, 2, 4 * 16 + 4) == b"\x0b\x0a"
    os.close(fd)


def test_whole_pages() -> None:
    """A map is as long as whole pages: also its last entry can be read and written."""
    fd = os.memfd_create("array")
    os.ftruncate(fd, 3 * mmap.PAGESIZE)
    array = mapped_array(fd, 1025, np.dtype([("value", "u8")]))
    array["value"][1024] = 7
    assert os.pread(fd, 1, 8192) == b"\x07"
    os.close(fd)
