"""Memory of a process that its malloc holds and nobody has: what stands there is of former times."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import numpy as np

from symbolizer.mappings import Mapping, parse_maps
from tracer.attach.glibc_arenas import WORD
from tracer.attach.glibc_free import read_glibc_heap

_NONE = np.zeros((0, 2), np.uint64)
#: A chunk's first word is the last one of the block before, and its own last one lies in the chunk behind it (struct
#: malloc_chunk in glibc's malloc.c). Behind the top there is none.
_FREED, _TOP = np.array([WORD, WORD], np.uint64), np.array([WORD, 0], np.uint64)


def free_memory(folder: Path, *, all_is_known: bool) -> np.ndarray:
    """Return the address ranges in which glibc's malloc keeps no block, u64 (k, 2); none for other allocators.

    Free chunks, as far as a short walk finds them, and malloc's own books: their links lead to where chunks begin,
    which lies in the last word of the block before. all_is_known: every block is on record, so that all else in its
    heaps is free.
    """
    try:
        mappings = tuple(parse_maps((folder / "maps").read_bytes()))
        file = os.open(folder / "mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return _NONE

    def read(address: int, size: int) -> bytes:
        # An address beyond what a file offset can be is none of user space.
        with suppress(OSError, OverflowError):
            return os.pread(file, size, address)
        return b""

    try:
        heap = read_glibc_heap(read, mappings, (), [each for each in mappings if _may_be_stack(each)])
    finally:
        os.close(file)
    if heap is None:
        return _NONE
    if all_is_known:
        return np.concatenate([heap.books, heap.heaps])
    return np.concatenate([heap.books, heap.tops + _TOP, heap.free + _FREED, heap.cached + _FREED])


def _may_be_stack(mapping: Mapping) -> bool:
    return mapping.readable and mapping.writable and mapping.private and not mapping.is_file and not mapping.path
