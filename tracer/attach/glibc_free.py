"""What of glibc's heap nobody uses: the top of each arena, the lists of free chunks, the threads' caches.

Sources: malloc/malloc.c of glibc 2.26 to 2.42 (malloc_chunk, tcache_perthread_struct, PROTECT_PTR).
"""

from __future__ import annotations

import struct
import time
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from symbolizer.mappings import Mapping
from tracer.attach.glibc_arenas import (
    BINS,
    FLAGS,
    LINKS,
    STATE_WORDS,
    WORD,
    Arena,
    Read,
    find_arenas,
    mapped_blocks,
    words_at,
)

#: A walk over the free chunks ends after so many, or so many seconds.
MOST_CHUNKS = 20_000
MOST_SECONDS = 0.02
#: Chunks of one cache list; the tunable glibc.malloc.tcache_count allows more, seldom used.
_MOST_CACHED = 128
#: Size of the chunk a thread's cache is in → offset and number of its lists: 2.26, since 2.30, since 2.42.
_CACHES = {0x250: (64, 64), 0x290: (128, 64), 0x300: (152, 76)}
#: Behind the size of the chunk before: this one's, and in a free one the link to the next.
_NODE = struct.Struct("<QQ")
#: Bytes at the end of a thread's stack that hold its descriptor, and below that its variables, libc's among them.
_THREAD_TOP = 16384

#: Bytes of struct malloc_state before its bins (mutex to last_remainder), and from them on (to max_system_mem).
_BEFORE_BINS, _FROM_BINS = 112, 254 * 8 + 56


@dataclass(frozen=True, slots=True)
class GlibcHeap:
    """What glibc's malloc holds. Spans are [start, end), u64 (n, 2), in bytes.

    system_bytes: what its arenas have from the system. heaps: where. mapped: blocks in mappings of their own.
    tops: the unused end of each arena. free: chunks in its lists. cached: those a thread keeps for itself. books: where
    the lists begin (struct malloc_state).
    complete: all lists were walked to their ends, so free and cached are not only "at least".
    """

    system_bytes: int
    heaps: np.ndarray
    mapped: np.ndarray
    tops: np.ndarray
    free: np.ndarray
    cached: np.ndarray
    complete: bool
    arenas: int
    books: np.ndarray

    @property
    def spans(self) -> np.ndarray:
        """All memory it has, u64 (n, 2): the heaps and the mappings of single blocks."""
        return np.concatenate([self.heaps, self.mapped])

    @property
    def held_bytes(self) -> int:
        """All the allocator has from the system, resident or not."""
        return self.system_bytes + length(self.mapped)


def length(spans: np.ndarray) -> int:
    """Return the bytes in spans, shape (n, 2)."""
    return int((spans[:, 1] - spans[:, 0]).sum()) if len(spans) else 0


def read_glibc_heap(read: Read, mappings: Sequence[Mapping], anonymous: Iterable[Mapping], stacks: Iterable[Mapping],
                    clock: Callable[[], float] = time.monotonic) -> GlibcHeap | None:
    """Return what glibc's malloc of a process holds and what of it is free, None where it is not found.

    read reads its memory; anonymous are mappings that may hold large blocks, stacks those that end with a thread's
    descriptor. It runs on meanwhile: figures are those of no one moment, and lists that change are left where they
    stop making sense.
    """
    arenas = find_arenas(read, mappings)
    if not arenas:
        return None
    heaps = [heap for arena in arenas for heap in arena.heaps]
    ours = {start for start, _ in heaps}
    walk = _Walk(read, _Regions(heaps), clock() + MOST_SECONDS, clock)
    tops = [(arena.top, arena.top + size) for arena in arenas if (size := walk.size_at(arena.top))]
    for chunk, size in _caches(read, arenas, stacks, walk):
        walk.cache(chunk, size)
    walk.lists(arenas)
    return GlibcHeap(
        sum(arena.system_bytes for arena in arenas), _array(heaps),
        _array(mapped_blocks(read, (each for each in anonymous if each.start not in ours))),
        _array(tops), _array(walk.free), _array(walk.cached), walk.complete, len(arenas),
        _array([(arena.bins_address - _BEFORE_BINS, arena.bins_address + _FROM_BINS) for arena in arenas]),
    )


class _Regions:
    """Whether an address lies in one of the heaps."""

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        ordered = sorted(spans)
        self._starts = [start for start, _ in ordered]
        self._ends = [end for _, end in ordered]

    def left(self, address: int) -> int:
        """Return the bytes from an address to the end of its heap, 0 if it is in none."""
        place = bisect_right(self._starts, address) - 1
        return max(self._ends[place] - address, 0) if place >= 0 else 0


@dataclass(slots=True)
class _Walk:
    """Follows lists of chunks, as long as there is time."""

    read: Read
    regions: _Regions
    until: float
    clock: Callable[[], float]
    free: list[tuple[int, int]] = field(default_factory=list)
    cached: list[tuple[int, int]] = field(default_factory=list)
    complete: bool = True
    _steps: int = 0

    def size_at(self, chunk: int) -> int:
        """Return the size of a chunk, 0 if there is none."""
        return self._node(chunk)[0]

    def lists(self, arenas: Sequence[Arena]) -> None:
        """Follow the bins of all arenas, large chunks first so that what time is left out for is little; fastbins."""
        for number in (*range(BINS - 1, 0, -1), 0):
            for arena in arenas:
                self._bin(arena.bins_address + number * 2 * WORD - LINKS, int(arena.bins[2 * number]))
        for arena in arenas:
            for chunk in arena.fastbins:
                self._chain(chunk, self.free, MOST_CHUNKS)

    def _bin(self, head: int, chunk: int) -> None:
        """Follow the ring of a bin from its first chunk until it comes back to the bin."""
        while chunk not in (head, 0) and (node := self._step(chunk)):
            self.free.append((chunk, chunk + node[0]))
            chunk = node[1]

    def cache(self, lists: int, count: int) -> None:
        """Follow the lists of a thread's cache, whose first pointers lie there; they point behind the header."""
        for pointer in words_at(self.read, lists, count):
            self._chain(pointer - LINKS if pointer else 0, self.cached, _MOST_CACHED, LINKS)

    def _chain(self, chunk: int, into: list[tuple[int, int]], most: int, behind: int = 0) -> None:
        """Follow a list with one link a chunk, whose links point so far behind the chunk they mean."""
        for _ in range(most):
            node = self._step(chunk) if chunk else None
            if node is None:
                return
            into.append((chunk, chunk + node[0]))
            pointer = self._revealed(node[1], chunk + LINKS)
            chunk = pointer - behind if pointer else 0

    def _revealed(self, raw: int, place: int) -> int:
        """Return the pointer that was read at a place: since 2.32 it is hidden by the place's own address."""
        for pointer in (raw ^ (place >> 12), raw):
            if not pointer or (pointer % 16 == 0 and self.regions.left(pointer)):
                return pointer
        self.complete = False
        return 0

    def _node(self, chunk: int) -> tuple[int, int]:
        """Return the size of a chunk and the link in it, as it stands there; (0, 0) where no chunk can be."""
        # Reading more at once, for what lies close by, was not faster, and would touch pages that were never used.
        data = self.read(chunk + WORD, _NODE.size)
        if len(data) != _NODE.size:
            return 0, 0
        size, link = _NODE.unpack(data)
        size &= ~FLAGS
        return (size, link) if size % 16 == 0 and 32 <= size <= self.regions.left(chunk) else (0, 0)

    def _step(self, chunk: int) -> tuple[int, int] | None:
        """Return size and link of the next chunk of a list, None where the walk has to end there."""
        self._steps += 1
        if self._steps % 64 == 0 and self.clock() >= self.until:
            self._steps = MOST_CHUNKS
        node = self._node(chunk) if self._steps < MOST_CHUNKS else (0, 0)
        if not node[0]:
            self.complete = False
            return None
        return node


def _caches(read: Read, arenas: Sequence[Arena], stacks: Iterable[Mapping], walk: _Walk) -> Iterator[tuple[int, int]]:
    """Give address and number of the lists of each thread's cache.

    It is the first chunk its thread allocated. Of the thread that began an arena, that is the heap's first chunk; of
    others, libc's variable points to it, which lies below the thread's descriptor at the end of its stack.
    """
    seen: set[int] = set()
    firsts = [_first_chunk(arena) + LINKS for arena in arenas]
    for pointer in [*firsts, *(each for stack in stacks for each in _thread_pointers(read, stack, walk.regions))]:
        lists = _CACHES.get(walk.size_at(pointer - LINKS)) if pointer not in seen else None
        seen.add(pointer)
        if lists is not None:
            yield pointer + lists[0], lists[1]


def _first_chunk(arena: Arena) -> int:
    """Return where the first chunk of an arena is: in the main one at the heap's start, else behind malloc_state."""
    if arena.is_main:
        return arena.heaps[0][0] if arena.heaps else 0
    behind = arena.bins_address + STATE_WORDS * WORD
    return -(-behind // 16) * 16


def _thread_pointers(read: Read, stack: Mapping, regions: _Regions) -> list[int]:
    """Return the pointers into heaps among the thread's variables, found by its descriptor, which points to itself."""
    start = max(stack.start, stack.end - _THREAD_TOP)
    data = read(start, stack.end - start)
    words = np.frombuffer(data, np.uint64, len(data) // WORD)
    if len(words) < 3:
        return []
    own = np.arange(len(words), dtype=np.uint64) * np.uint64(WORD) + np.uint64(start)
    # tcbhead_t: tcb and self are both the descriptor's address (sysdeps/x86_64/nptl/tls.h).
    places = np.flatnonzero((words[:-2] == own[:-2]) & (words[2:] == own[:-2]))
    if not len(places):
        return []
    below = words[: int(places[-1])]
    return [pointer for word in below[below % np.uint64(16) == 0] if (pointer := int(word)) and regions.left(pointer)]


def _array(spans: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.array(spans, np.uint64).reshape(-1, 2)
