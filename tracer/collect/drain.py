"""Hash maps into numpy arrays, in batches: one system call for many entries."""

from __future__ import annotations

import ctypes as ct
import errno
import os

import numpy as np

from tracer.attach.bpf_syscall import delete_batch, lookup_batch
from tracer.errors import CannotTrace

#: Entries asked for at once; a bucket with more is retried with twice as many.
CHUNK = 1 << 16


def drain_hash(fd: int, value: np.dtype[np.void], expected: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return every entry of the hash map behind fd: keys u64, shape (n,), and values, shape (n,).

    Entries that come or go meanwhile may be seen or not, none twice from one bucket. expected is how many there are
    thought to be, to get room at once. Raises CannotTrace where the kernel has no batch look-up (before 5.6).
    """
    keys = np.empty(max(CHUNK, expected + expected // 8), np.uint64)
    values = np.empty(len(keys), value)
    cursor_in, cursor_out = ct.c_uint32(0), ct.c_uint32(0)
    filled, first = 0, True
    chunk = CHUNK
    while True:
        if len(keys) - filled < chunk:
            keys = np.concatenate([keys, np.empty(max(chunk, len(keys)), np.uint64)])
            values = np.concatenate([values, np.empty(len(keys) - len(values), value)])
        count, problem = lookup_batch(
            fd,
            0 if first else ct.addressof(cursor_in),
            ct.addressof(cursor_out),
            keys.ctypes.data + filled * 8,
            values.ctypes.data + filled * value.itemsize,
            chunk,
        )
        if problem == errno.ENOSPC:
            chunk *= 2
            continue
        if problem not in (0, errno.ENOENT):
            raise CannotTrace(f"The table of blocks could not be read: {os.strerror(problem)}.",
                              "Batch look-ups need Linux 5.6 or newer.")
        filled += count
        if problem == errno.ENOENT:
            return keys[:filled], values[:filled]
        cursor_in.value, first = cursor_out.value, False


def delete_keys(fd: int, keys: np.ndarray) -> None:
    """Remove keys, shape (n,), of the map's own size, from the hash map behind fd; those that are gone are fine."""
    keys, at = np.ascontiguousarray(keys), 0
    while at < len(keys):
        count, problem = delete_batch(fd, keys.ctypes.data + at * keys.itemsize, len(keys) - at)
        # It stops at one that is not there.
        at += count + (problem == errno.ENOENT)
        if problem not in (0, errno.ENOENT):
            raise CannotTrace(f"Entries of a table could not be removed: {os.strerror(problem)}.",
                              "Batches need Linux 5.6 or newer.")
