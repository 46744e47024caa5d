"""Reads single words of a process's memory, many at a time (process_vm_readv(2))."""

from __future__ import annotations

import ctypes as ct
from collections.abc import Sequence

import numpy as np

from symbolizer.mappings import Mapping

_libc = ct.CDLL(None, use_errno=True)
_libc.process_vm_readv.argtypes = (ct.c_int, ct.c_void_p, ct.c_ulong, ct.c_void_p, ct.c_ulong, ct.c_ulong)
_libc.process_vm_readv.restype = ct.c_ssize_t

#: The kernel takes no more ranges in one call (UIO_MAXIOV, linux/uio.h).
MOST_RANGES = 1024
_WORD = 8
#: Words of a vtable that are looked at, and how many must lead to functions.
VTABLE_WORDS, VTABLE_FUNCTIONS = 21, 2


class Peeker:
    """The memory of one process, whose mappings are known and in order."""

    def __init__(self, pid: int, mappings: Sequence[Mapping]) -> None:
        self._pid = pid
        self._code = _bounds([each for each in mappings if each.executable and each.is_file])
        self._constants = _bounds([each for each in mappings if each.is_file and not each.writable])

    def words(self, addresses: np.ndarray) -> np.ndarray:
        """Return the words at addresses, u64 (k,), 0 where nothing can be read."""
        found = np.zeros(len(addresses), np.uint64)
        ranges = np.zeros((len(addresses), 2), np.uint64)
        ranges[:, 0], ranges[:, 1] = addresses, _WORD
        at = 0
        while at < len(addresses):
            many = min(MOST_RANGES, len(addresses) - at)
            local = np.array([[found.ctypes.data + _WORD * at, _WORD * many]], np.uint64)
            read = _libc.process_vm_readv(self._pid, local.ctypes.data, 1, ranges[at:].ctypes.data, many, 0)
            # It ends at the first word that cannot be read.
            whole = max(read, 0) // _WORD
            if whole < many:
                # Of this one perhaps a part was read.
                found[at + whole] = 0
            at += whole + (whole < many)
        return found

    def are_vtables(self, addresses: np.ndarray) -> np.ndarray:
        """Return whether a C++ vtable begins at each address, by valgrind's rule (mc_leakcheck.c).

        In constants of a file, and within the first words two lead to code, and none before the second elsewhere.
        """
        constant = np.flatnonzero(_is_in(self._constants, addresses))
        found = np.zeros(len(addresses), bool)
        functions, open_ = np.zeros(len(constant), np.int64), np.ones(len(constant), bool)
        for place in range(VTABLE_WORDS):
            words = self.words(addresses[constant] + np.uint64(_WORD * place))
            leads = _is_in(self._code, words)
            functions += leads & open_
            open_ &= leads | (words == 0)
        found[constant] = functions >= VTABLE_FUNCTIONS
        return found


def _bounds(mappings: Sequence[Mapping]) -> np.ndarray:
    return np.array([(each.start, each.end) for each in mappings], np.uint64).reshape(-1)


def _is_in(bounds: np.ndarray, addresses: np.ndarray) -> np.ndarray:
    return np.asarray(np.searchsorted(bounds, addresses, side="right") & 1 == 1)
