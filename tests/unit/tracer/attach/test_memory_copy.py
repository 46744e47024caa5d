"""Where copied ranges come to lie, and what becomes of pages that cannot be read."""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.attach.memory_copy import LARGEST_GAP, MOST_BYTES, MOST_RANGES, Buffer, Copier, batches, copy_rows, lay_out
from tracer.attach.resident_pages import PAGE

RANGES = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 20)), max_size=12).map(
    lambda pairs: np.cumsum(np.array(pairs, np.int64).reshape(-1)).reshape(-1, 2).astype(np.uint64) * np.uint64(PAGE))


@given(ranges=RANGES, pages=st.integers(1, 30))
def test_batches_hold_each_page_once(ranges: np.ndarray, pages: int) -> None:
    """However small the buffer, each page is in one batch, in order, and no batch is larger than the buffer."""
    wanted = [page for start, end in ranges.tolist() for page in range(start, end, PAGE)]
    found: list[int] = []
    for layout in batches(ranges, pages * PAGE):
        assert 0 < layout.size <= pages * PAGE
        assert layout.bytes <= layout.size
        for address, place, size in layout.rows.tolist():
            found += range(address, address + size, PAGE)
            assert [(piece[0] - piece[1]) for piece in layout.pieces.tolist() if piece[0] <= address < piece[0] + piece[2]] \
                == [address - place], "a row lies in its piece"
    assert found == wanted


def test_small_gaps_are_kept_and_large_ones_not() -> None:
    """Ranges that are close make one piece with the gap in it; one that is far begins another right behind."""
    far = 10 * PAGE + LARGEST_GAP
    layout = lay_out(np.array([[PAGE, 2 * PAGE], [4 * PAGE, 10 * PAGE], [far + PAGE, far + 2 * PAGE]], np.uint64))
    assert layout.pieces.tolist() == [[PAGE, 0, 9 * PAGE], [far + PAGE, 9 * PAGE, PAGE]]
    assert layout.rows.tolist() == [[PAGE, 0, PAGE], [4 * PAGE, 3 * PAGE, 6 * PAGE], [far + PAGE, 9 * PAGE, PAGE]]
    assert (layout.bytes, layout.size) == (8 * PAGE, 10 * PAGE)


def test_large_ranges_are_read_in_parts() -> None:
    """No call reads more than its share, and still the range is one piece."""
    layout = lay_out(np.array([[0, 2 * MOST_BYTES + PAGE]], np.uint64))
    assert layout.rows[:, 2].tolist() == [MOST_BYTES, MOST_BYTES, PAGE]
    assert len(layout.pieces) == 1


def own_memory(pages: int) -> tuple[mmap.mmap, int]:
    memory = mmap.mmap(-1, pages * PAGE)
    view = np.frombuffer(memory, np.uint64)
    view[:] = np.arange(1, len(view) + 1)
    return memory, view.ctypes.data


@pytest.mark.parametrize("huge", [True, False])
def test_copy_is_what_is_there(huge: bool) -> None:
    """More ranges than one call takes arrive as they are, by two threads, and gaps are zeros although others were there."""
    pages = 2 * MOST_RANGES + 10
    memory, start = own_memory(pages)
    starts = np.arange(start, start + pages * PAGE, 2 * PAGE).astype(np.uint64)
    layout = lay_out(np.column_stack((starts, starts + np.uint64(PAGE))))
    buffer = Buffer(layout.size, layout.size // 2, huge=huge)
    buffer.bytes[:] = 255
    copier = Copier(os.getpid())
    assert copier.start(layout, buffer)() == 0
    copier.close()
    expected = np.frombuffer(memory, np.uint64).reshape(pages, -1).copy()
    expected[1::2] = 0
    (address, place, size), = layout.pieces.tolist()
    assert address == start
    assert (buffer.words(place, size) == expected[:-1].reshape(-1)).all()


def refusing(bad: set[int]) -> Callable[..., int]:
    """Return what copies nothing, and stops at pages with these numbers, as the kernel does."""
    def read(_pid: int, _local: np.ndarray, remote: np.ndarray) -> int:
        done = 0
        for start, size in remote.tolist():
            for page in range(start // PAGE, (start + size) // PAGE):
                if page in bad:
                    return done
                done += PAGE
        return done
    return read


@given(bad=st.sets(st.integers(0, 40)))
def test_pages_that_cannot_be_read_are_zeros(bad: set[int]) -> None:
    """Each page that cannot be read is counted and filled with zeros, and nothing else is touched."""
    layout = lay_out(np.array([[PAGE, 7 * PAGE], [9 * PAGE, 10 * PAGE], [30 * PAGE, 36 * PAGE]], np.uint64))
    buffer = Buffer(layout.size, 0)
    buffer.bytes[:] = 255
    unreadable = copy_rows(1, layout.rows, buffer, refusing(bad))
    asked = [page for page in (*range(1, 7), 9, *range(30, 36)) if page in bad]
    assert unreadable == PAGE * len(asked)
    zeros = [address // PAGE for address, place, size in layout.rows.tolist() for address, at in
             zip(range(address, address + size, PAGE), range(place, place + size, PAGE), strict=True)
             if not buffer.bytes[at : at + PAGE].any()]
    assert zeros == asked


def test_a_process_that_is_gone_ends_the_copy() -> None:
    """The end of a process is an error, not memory that cannot be read."""
    def read(*_: object) -> int:
        raise OSError(errno.ESRCH, "gone")

    layout = lay_out(np.array([[PAGE, 2 * PAGE]], np.uint64))
    with pytest.raises(ProcessLookupError):
        copy_rows(1, layout.rows, Buffer(PAGE, 0), read)


def test_the_kernel_says_that_it_is_gone() -> None:
    """A number that no process has is told apart from memory that is not mapped."""
    layout = lay_out(np.array([[PAGE, 2 * PAGE]], np.uint64))
    buffer = Buffer(PAGE, 0)
    with pytest.raises(ProcessLookupError):
        copy_rows(1 << 30, layout.rows, buffer)
    assert copy_rows(os.getpid(), layout.rows, buffer) == PAGE
