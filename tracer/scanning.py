"""Looks for pointers in a copy of a process's memory with two processors, where it is large."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import tempfile
from collections.abc import Sequence

import numpy as np

from tracer.judge.pointers import FOUND, PointerScan

#: A piece of memory: its address, and its words.
Piece = tuple[int, np.ndarray]
#: Words below which a second process costs more than it saves (it takes some 30 ms to make, and to hand its work over).
WORTH_A_PROCESS = 16 << 20
PR_SET_PDEATHSIG = 1


def scan_together(scan: PointerScan, pieces: Sequence[Piece]) -> None:
    """Add all pieces to a scan; the second half of many in a process of its own: threads would wait for each other."""
    words = sum(len(piece) for _, piece in pieces)
    if words < WORTH_A_PROCESS or len(os.sched_getaffinity(0)) < 2:
        _add(scan, pieces)
        return
    mine, others = halves(pieces, words // 2)
    with tempfile.TemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as result:
        pid = os.fork()
        if not pid:
            _work(scan.part(), others, result.fileno())
        _add(scan, mine)
        _, status = os.waitpid(pid, 0)
        if status:
            # It was killed, perhaps for want of memory.
            _add(scan, others)
            return
        scan.take(read_arrays(result.fileno()))


def halves(pieces: Sequence[Piece], first: int) -> tuple[list[Piece], list[Piece]]:
    """Return the pieces up to so many words, and the rest; one of them is cut."""
    mine: list[Piece] = []
    others: list[Piece] = []
    for start, words in pieces:
        taken = min(max(first, 0), len(words))
        first -= taken
        if taken:
            mine.append((start, words[:taken]))
        if taken < len(words):
            others.append((start + 8 * taken, words[taken:]))
    return mine, others


def _add(scan: PointerScan, pieces: Sequence[Piece]) -> None:
    for start, words in pieces:
        scan.add(start, words)


def _work(scan: PointerScan, pieces: Sequence[Piece], result: int) -> None:
    """Do the other process's part, and end."""
    status = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        _add(scan, pieces)
        write_arrays(scan.found(), result)
        status = 0
    finally:
        # Nothing of what this process inherited is its own to close.
        os._exit(status)


def write_arrays(arrays: Sequence[np.ndarray], file: int) -> None:
    """Write what PointerScan.found() gives to an empty file: their lengths, then each, from a multiple of 8 on."""
    with open(file, "wb", closefd=False) as out:
        out.write(np.array([array.size for array in arrays], np.int64).tobytes())
        for array in arrays:
            out.write(np.ascontiguousarray(array).data)
            out.write(bytes(-array.nbytes % 8))


def read_arrays(file: int) -> list[np.ndarray]:
    """Return what was written, mapped and not read: each of its bytes is used once."""
    memory = mmap.mmap(file, 0, prot=mmap.PROT_READ)
    at, arrays = 8 * len(FOUND), []
    for length, dtype in zip(np.frombuffer(memory, np.int64, len(FOUND)).tolist(), FOUND, strict=True):
        arrays.append(np.frombuffer(memory, dtype, length, at))
        at += -(-length * np.dtype(dtype).itemsize // 8) * 8
    return arrays
