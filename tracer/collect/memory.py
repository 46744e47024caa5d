"""BPF arrays as memory: the kernel's own pages, mapped, so that reading and writing them costs no system call."""

from __future__ import annotations

import mmap

import numpy as np


def mapped_array(fd: int, entries: int, dtype: np.dtype[np.void]) -> np.ndarray:
    """Return the array map behind fd as a writable numpy array, shape (entries,).

    The kernel rounds values up to 8 bytes (array_map_alloc) and the whole up to pages; the map must have been made
    with BPF_F_MMAPABLE. Raises OSError where the kernel refuses.
    """
    padded = -dtype.itemsize % 8
    size = entries * (dtype.itemsize + padded)
    length = -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
    memory = mmap.mmap(fd, length, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    stride = dtype.itemsize + padded
    return np.ndarray((entries,), dtype, memory, strides=(stride,))
