"""glibc's books found and walked in memory made up for it, whole, torn and tangled."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbolizer.mappings import parse_maps
from tracer.attach.glibc_arenas import BINS, HEAP_SIZE, candidates, find_arenas, mapped_blocks
from tracer.attach.glibc_free import GlibcHeap, length, read_glibc_heap

DATA, HEAP, OTHER, LARGE = 0x7F0010000000, 0x500000, 0x7F0020000000, 0x7F0031000000
MAPS = parse_maps(b"""\
500000-540000 rw-p 00000000 00:00 0 [heap]
7f0010000000-7f0010004000 rw-p 00000000 fe:00 7 /lib/libc.so.6
7f0020000000-7f0020021000 rw-p 00000000 00:00 0
7f0031000000-7f0031110000 rw-p 00000000 00:00 0
""")


class Memory:
    """Memory of a made-up process, written word by word."""

    def __init__(self, offset: int) -> None:
        """Make a main arena in libc's data, offset bytes of malloc_state before its bins, all bins empty."""
        self.words = {each.start: np.zeros((each.end - each.start) // 8, np.uint64) for each in MAPS}
        self.offset = offset
        self.main = DATA + 0x800
        self.arena(self.main, top=HEAP + 0x30000, system=0x40000, following=self.main)
        self.chunk(HEAP + 0x30000, 0x10000)

    def put(self, address: int, *values: int) -> None:
        start = max(each for each in self.words if each <= address)
        for place, value in enumerate(values):
            self.words[start][(address - start) // 8 + place] = value

    def read(self, address: int, size: int) -> bytes:
        for start, words in self.words.items():
            if start <= address < start + 8 * len(words):
                return words.tobytes()[address - start :][:size]
        return b""

    def bins(self, state: int) -> int:
        return state + self.offset

    def arena(self, state: int, top: int, system: int, following: int) -> None:
        bins = self.bins(state)
        self.put(bins - 16, top, 0)
        for number in range(BINS):
            self.put(bins + 16 * number, bins + 16 * number - 16, bins + 16 * number - 16)
        self.put(bins + 16 * BINS + 16, following, 0, 1, system, system)

    def chunk(self, address: int, size: int, link: int = 0) -> None:
        self.put(address + 8, size | 1, link)

    def bin(self, number: int, *chunks: tuple[int, int], end: int | None = None) -> None:
        """Put chunks into a bin of the main arena; end is what the last links to, the bin itself if not given."""
        head = self.bins(self.main) + 16 * number - 16
        addresses = [address for address, _ in chunks]
        self.put(head + 16, addresses[0], addresses[-1])
        for (address, size), link in zip(chunks, [*addresses[1:], head if end is None else end], strict=True):
            self.chunk(address, size, link)

    def heap(self, clock: float = 0.0) -> GlibcHeap | None:
        times = iter([0.0])
        return read_glibc_heap(self.read, MAPS, MAPS[2:], (), lambda: next(times, clock))


@pytest.fixture(params=[112, 104, 24], ids=["2.27", "2.26", "no fastbins"])
def memory(request: pytest.FixtureRequest) -> Memory:
    return Memory(request.param)


def test_the_main_arena_is_found_by_its_bins(memory: Memory) -> None:
    """In each of the layouts, the arena is found by what is in it, with its size, its top and its heap."""
    (arena,) = find_arenas(memory.read, MAPS)
    assert (arena.bins_address, arena.system_bytes, arena.top) == (memory.bins(memory.main), 0x40000, HEAP + 0x30000)
    assert arena.heaps == ((HEAP, HEAP + 0x40000),)


def test_free_chunks_are_added_up(memory: Memory) -> None:
    """Chunks in bins and the top are free; a bin that leads back to itself is walked to its end."""
    memory.bin(3, (HEAP + 0x1000, 0x50), (HEAP + 0x2000, 0x50))
    memory.bin(90, (HEAP + 0x4000, 0x2000))
    found = memory.heap()
    assert found is not None and found.complete
    assert (length(found.free), length(found.tops), found.held_bytes) == (0x20A0, 0x10000, 0x40000)


def test_other_arenas_are_followed(memory: Memory) -> None:
    """The ring leads to the arena in a heap of its own, and what both hold is added."""
    assert OTHER % HEAP_SIZE == 0
    state = OTHER + 0x30
    memory.put(OTHER, state, 0, 0x21000)
    memory.arena(state, top=OTHER + 0x11000, system=0x21000, following=memory.main)
    memory.chunk(OTHER + 0x11000, 0x10000)
    memory.put(memory.bins(memory.main) + 16 * BINS + 16, state)
    found = memory.heap()
    assert found is not None and (found.arenas, found.system_bytes, length(found.tops)) == (2, 0x61000, 0x20000)
    assert found.heaps.tolist() == [[HEAP, HEAP + 0x40000], [OTHER, OTHER + 0x21000]]


def test_a_heap_of_another_arena_is_not_taken(memory: Memory) -> None:
    """A heap that says it belongs to another arena, or to none, is not counted."""
    state = OTHER + 0x30
    memory.put(OTHER, state + 8, 0, 0x21000)
    memory.arena(state, top=OTHER + 0x11000, system=0x21000, following=memory.main)
    memory.put(memory.bins(memory.main) + 16 * BINS + 16, state)
    found = memory.heap()
    assert found is not None and found.heaps.tolist() == [[HEAP, HEAP + 0x40000]]


def test_a_chunk_larger_than_its_heap_is_none(memory: Memory) -> None:
    """A size that reaches beyond the heap is torn, and is not added."""
    memory.bin(3, (HEAP + 0x1000, 0x50), (HEAP + 0x2000, 0x100000))
    found = memory.heap()
    assert found is not None and not found.complete and length(found.free) == 0x50


def test_a_ring_that_does_not_close_is_none(memory: Memory) -> None:
    """An arena whose ring leads nowhere is not believed."""
    memory.put(memory.bins(memory.main) + 16 * BINS + 16, OTHER + 0x30)
    assert memory.heap() is None


@pytest.mark.parametrize("end", [HEAP + 0x1000, 0xDEAD0, HEAP + 0x2008, 0x7FFFFFFFFFFFFFF0])
def test_a_torn_list_ends(end: int) -> None:
    """A list that runs in a circle, out of the heap or to no chunk ends, and is not called complete."""
    memory = Memory(112)
    memory.bin(3, (HEAP + 0x1000, 0x50), (HEAP + 0x2000, 0x50), end=end)
    found = memory.heap()
    assert found is not None and not found.complete and length(found.free) >= 0xA0


def test_a_walk_ends_with_its_time() -> None:
    """When time is up a walk stops, with the large chunks counted first."""
    memory = Memory(112)
    memory.bin(90, (HEAP + 0x20000, 0x2000))
    memory.bin(3, *((HEAP + 0x1000 + 0x50 * place, 0x50) for place in range(200)))
    found = memory.heap(clock=9.0)
    assert found is not None and not found.complete
    assert found.free[0].tolist() == [HEAP + 0x20000, HEAP + 0x22000] and len(found.free) < 80


@pytest.mark.parametrize("hidden", [True, False], ids=["2.32", "before"])
def test_fastbins_and_caches_are_walked(hidden: bool) -> None:
    """Lists with one link, hidden by their own address or not, are followed; a thread's cache by its chunk's size."""
    memory = Memory(112)

    def link(place: int, target: int) -> int:
        return (place >> 12) ^ target if hidden else target

    first, second = HEAP + 0x5000, HEAP + 0x6010
    memory.put(memory.main + 16, first)
    memory.chunk(first, 0x20, link(first + 16, second))
    memory.chunk(second, 0x20, link(second + 16, 0))
    memory.chunk(HEAP, 0x290)
    memory.put(HEAP + 16 + 128 + 8, HEAP + 0x7010)
    memory.chunk(HEAP + 0x7000, 0x30, link(HEAP + 0x7010, HEAP + 0x8010))
    memory.chunk(HEAP + 0x8000, 0x30, link(HEAP + 0x8010, 0))
    found = memory.heap()
    assert found is not None and found.complete
    assert (length(found.free), length(found.cached)) == (0x40, 0x60)


def test_large_blocks_are_told_by_their_headers() -> None:
    """Blocks in mappings of their own are found, also where the kernel joined two; anything else there is not."""
    memory = Memory(112)
    memory.put(LARGE, 0, 0x101000 | 2)
    memory.put(LARGE + 0x101000, 0, 0x3000 | 2)
    assert mapped_blocks(memory.read, MAPS[3:]) == [(LARGE, LARGE + 0x101000), (LARGE + 0x101000, LARGE + 0x104000)]
    memory.put(LARGE, 0, 0x111000 | 2)
    assert mapped_blocks(memory.read, MAPS[3:]) == []


def test_other_data_is_no_arena() -> None:
    """Zeros, and pointers to themselves in another pattern such as empty lists of a kernel style, are no bins."""
    assert candidates(bytes(8192), DATA) == [] and candidates(b"", DATA) == []
    lists = np.arange(DATA, DATA + 8192, 8, dtype=np.uint64)
    assert candidates(lists.tobytes(), DATA) == []


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 0x7FF), st.integers(0, 2**64 - 1)), max_size=30),
       st.lists(st.tuples(st.integers(0, 0x7FFF), st.integers(0, 2**64 - 1)), max_size=30))
def test_torn_memory_is_no_error(data: list[tuple[int, int]], heap: list[tuple[int, int]]) -> None:
    """Whatever words are torn meanwhile, in the books or in the heap, reading ends without an error."""
    memory = Memory(112)
    memory.bin(3, (HEAP + 0x1000, 0x50), (HEAP + 0x2000, 0x50))
    for place, value in data:
        memory.put(DATA + 8 * place, value)
    for place, value in heap:
        memory.put(HEAP + 8 * place, value)
    found = memory.heap()
    assert found is None or length(found.free) >= 0
