"""Which pointers into the inside of a block are the ones by which a program keeps it.

The four cases are those of Memcheck's option --leak-check-heuristics, with the conditions that its manual and valgrind
3.19's behaviour give, for 8-byte words.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
Bools = npt.NDArray[np.bool_]
#: The words at addresses that are multiples of 8, 0 where nothing can be read: (k,) to (k,).
Peek = Callable[[U64], U64]
#: Whether something is at each address: (k,) to (k,).
Test = Callable[[U64], Bools]

_WORD = np.uint64(8)
_ALIGNED = np.uint64(7)
_FIRST_PAGE = np.uint64(4096)
#: length, capacity and reference count, before the characters of a std::string as it was before C++11
_STRING_HEAD = np.uint64(24)


def counts_as_start(blocks: U64, sizes: U64, offsets: U64, peek: Peek | None, is_vtable: Test | None) -> Bools:
    """Return whether pointers to these offsets in these blocks count as if they pointed to the start; all (k,).

    blocks, sizes and offsets are in bytes, 0 < offset < size. Without peek none does.
    """
    counts = np.zeros(len(blocks), np.bool_)
    if peek is None:
        return counts
    readable = (blocks & _ALIGNED == 0) & (sizes >= _WORD)
    for offset, test in ((_WORD, _is_counted), (_STRING_HEAD, _is_string)):
        some = (readable & (offsets == offset)).nonzero()[0]
        if len(some):
            counts[some] = test(blocks[some], sizes[some], peek)
    if is_vtable is not None:
        some = (readable & ~counts & (offsets & _ALIGNED == 0) & (offsets + _WORD <= sizes)).nonzero()[0]
        if len(some):
            counts[some] = _has_second_base(blocks[some], offsets[some], peek, is_vtable)
    return counts


def _is_counted(blocks: U64, sizes: U64, peek: Peek) -> Bools:
    """Whether the first word is the length of what follows (length64), or a number of elements in it (newarray)."""
    count = peek(blocks)
    # A length is also a number of elements of one byte.
    fits: Bools = (count > 0) & ((sizes - _WORD) % np.maximum(count, np.uint64(1)) == 0)
    return fits


def _is_string(blocks: U64, sizes: U64, peek: Peek) -> Bools:
    """Whether the block is a std::string's buffer: as large as its capacity says, and not fuller (stdstring)."""
    length, capacity = peek(blocks), peek(blocks + _WORD)
    fits: Bools = (capacity == sizes - _STRING_HEAD - np.uint64(1)) & (length <= capacity)
    return fits


def _has_second_base(blocks: U64, offsets: U64, peek: Peek, is_vtable: Test) -> Bools:
    """Whether a vtable's address stands at the block's start and where the pointer points (multipleinheritance)."""
    tables = np.stack([peek(blocks + offsets), peek(blocks)])
    likely = ((tables & _ALIGNED == 0) & (tables >= _FIRST_PAGE)).all(axis=0).nonzero()[0]
    result = np.zeros(len(blocks), np.bool_)
    if len(likely):
        result[likely] = is_vtable(tables[0, likely]) & is_vtable(tables[1, likely])
    return result
