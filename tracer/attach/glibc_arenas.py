"""Where glibc's malloc keeps its books, found from outside by what they hold, without symbols.

Layouts: malloc/malloc.c (struct malloc_state, malloc_chunk) and malloc/arena.c (heap_info) of glibc 2.26 to 2.42,
on 64-bit machines. The target runs on meanwhile, so nothing read here is trusted: every pointer is checked against
what is mapped, and every walk has an end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from symbolizer.mappings import Mapping

#: Reads memory of the target: (address, size) → bytes, fewer or none where it is not mapped.
Read = Callable[[int, int], bytes]
WORD = 8
BINS = 127
#: Words from the first bin to the fields behind the bins: a bitmap of 16 bytes, then next, next_free, threads, sizes.
_NEXT, _SYSTEM_MEM, _MAX_SYSTEM_MEM = 2 * BINS + 2, 2 * BINS + 5, 2 * BINS + 6
#: Words of a malloc_state from its first bin to its end.
STATE_WORDS = 2 * BINS + 7
#: Bytes from the start of malloc_state to its bins: since 2.27; 2.26; without fastbins.
_BIN_OFFSETS = (112, 104, 24)
#: A bin is addressed as if it were a chunk, whose links lie behind two words.
LINKS = 16
#: Every heap of an arena but the main one begins at a multiple of this.
HEAP_SIZE = 64 << 20
#: The lowest bits of a chunk's size are marks; the second says that it is a mapping of its own.
FLAGS, IS_MAPPED = 7, 2
#: Of all bins of an arena, so many are always empty: it would take chunks of that many sizes at once to fill them.
_EMPTY_BINS = 8
#: Bytes of writable data that are searched in each file; libc has 20 KB, a static program more.
_MOST_DATA = 8 << 20
MOST_ARENAS = 1024
_MOST_MAPPED = 4096


@dataclass(frozen=True, slots=True)
class Arena:
    """One arena. Addresses and sizes in bytes; heaps: [start, end) of the memory it has; bins: u64 (254,)."""

    bins_address: int
    system_bytes: int
    top: int
    bins: np.ndarray
    fastbins: tuple[int, ...]
    heaps: tuple[tuple[int, int], ...]
    is_main: bool = False


def find_arenas(read: Read, mappings: Sequence[Mapping]) -> tuple[Arena, ...]:
    """Return the arenas of a process, the main one first; none where glibc's malloc is not found or was never used."""
    spans = _spans(mappings)
    for mapping in _data_mappings(mappings):
        data = read(mapping.start, min(mapping.end - mapping.start, _MOST_DATA))
        for bins_address in candidates(data, mapping.start):
            arenas = _ring(read, bins_address, spans)
            if arenas:
                return (replace(arenas[0], heaps=_main_heaps(arenas[0], mappings), is_main=True), *arenas[1:])
    return ()


def candidates(data: bytes, address: int) -> list[int]:
    """Return where in data, which lies at address, the bins of a malloc_state could be: most are empty there.

    An empty bin's two links point to the bin itself, which no other data does over and over.
    """
    words = np.frombuffer(data, np.uint64, len(data) // WORD)
    if len(words) < STATE_WORDS:
        return []
    own = np.arange(len(words), dtype=np.uint64) * np.uint64(WORD) + np.uint64(address - LINKS)
    empty = np.zeros(len(words), np.int64)
    empty[:-1] = (words[:-1] == own[:-1]) & (words[1:] == own[:-1])
    found = []
    for parity in (0, 1):
        # How many of the 127 bins that would begin at each word are empty, by a running sum over every second word.
        summed = np.concatenate([[0], np.cumsum(empty[parity::2])])
        counts = summed[BINS:] - summed[:-BINS]
        for place in np.flatnonzero(counts >= _EMPTY_BINS):
            start = parity + 2 * int(place)
            if 2 <= start <= len(words) - STATE_WORDS and _is_sane(words[start - 2 : start + STATE_WORDS]):
                found.append(address + start * WORD)
    return found


def mapped_blocks(read: Read, mappings: Iterable[Mapping]) -> list[tuple[int, int]]:
    """Return [start, end) of the blocks so large that malloc gave each a mapping of its own.

    mappings are the anonymous ones that may hold such; neighbours that the kernel joined are told apart by their
    headers, up to the first that is none.
    """
    found: list[tuple[int, int]] = []
    for mapping in mappings:
        start = mapping.start
        while start < mapping.end and len(found) < _MOST_MAPPED:
            before, size = words_at(read, start, 2)
            length = size & ~FLAGS
            if before or size & FLAGS != IS_MAPPED or length % 4096 or not 0 < length <= mapping.end - start:
                break
            found.append((start, start + length))
            start += length
    return found


def words_at(read: Read, address: int, count: int) -> tuple[int, ...]:
    """Return so many words of memory; zeros where they cannot be read."""
    data = read(address, count * WORD)
    if len(data) != count * WORD:
        return (0,) * count
    return tuple(int.from_bytes(data[at : at + WORD], "little") for at in range(0, len(data), WORD))


def _data_mappings(mappings: Sequence[Mapping]) -> list[Mapping]:
    """Return where the main arena can be: libc's writable data, or in a static program its own."""
    writable = [mapping for mapping in mappings if mapping.is_file and mapping.writable and mapping.private]
    libc = [mapping for mapping in writable if mapping.path.rpartition("/")[2].startswith(("libc.so", "libc-2."))]
    return libc or writable[:4]


def _spans(mappings: Iterable[Mapping]) -> np.ndarray:
    """Return [start, end) of what can be read and written, u64 (n, 2), in order."""
    return np.array([(each.start, each.end) for each in mappings if each.readable and each.writable],
                    np.uint64).reshape(-1, 2)


def _is_mapped(spans: np.ndarray, address: int) -> bool:
    place = int(np.searchsorted(spans[:, 0], np.uint64(address), "right")) - 1
    return place >= 0 and address < int(spans[place, 1])


def _is_sane(words: np.ndarray) -> bool:
    """Whether two words and all from the first bin on can be those of a malloc_state: top, remainder, bins, sizes."""
    top, system, most = int(words[0]), int(words[2 + _SYSTEM_MEM]), int(words[2 + _MAX_SYSTEM_MEM])
    return 0 < system <= most < 1 << 47 and top % 16 == 0 and top < 1 << 47 and 0 < int(words[2 + _NEXT]) < 1 << 47


def _ring(read: Read, bins_address: int, spans: np.ndarray) -> list[Arena]:
    """Follow the ring of arenas from one whose bins are there; return none if it does not come back to it."""
    for offset in _BIN_OFFSETS:
        start = bins_address - offset
        arenas: list[Arena] = []
        address = start
        while len(arenas) < MOST_ARENAS:
            found = _arena(read, address, offset, spans)
            if found is None:
                break
            arena, following = found
            arenas.append(arena)
            if following == start:
                return arenas
            address = following
    return []


def _arena(read: Read, address: int, offset: int, spans: np.ndarray) -> tuple[Arena, int] | None:
    """Return the arena whose malloc_state is at an address, and the next one's address; None if it is none."""
    if address <= 0 or address % WORD or not _is_mapped(spans, address):
        return None
    size = offset + STATE_WORDS * WORD
    data = read(address, size)
    if len(data) != size:
        return None
    words = np.frombuffer(data, np.uint64)
    first = offset // WORD
    state = words[first - 2 :]
    top = int(state[0])
    if not _is_sane(state) or not _is_mapped(spans, top):
        return None
    fastbins = tuple(int(word) for word in words[first - 12 : first - 2]) if first >= 13 else ()
    arena = Arena(address + offset, int(state[2 + _SYSTEM_MEM]), top, state[2 : 2 + 2 * BINS], fastbins,
                  _heaps(read, top, address))
    return arena, int(state[2 + _NEXT])


def _heaps(read: Read, top: int, address: int) -> tuple[tuple[int, int], ...]:
    """Return the heaps of an arena that is not the main one: its top lies in the newest, each knows the one before."""
    found: list[tuple[int, int]] = []
    heap = top - top % HEAP_SIZE
    while heap and len(found) < MOST_ARENAS:
        owner, before, size = words_at(read, heap, 3)
        if owner != address or not 0 < size <= HEAP_SIZE:
            break
        found.append((heap, heap + size))
        heap = before if before % HEAP_SIZE == 0 else 0
    return tuple(found)


def _main_heaps(arena: Arena, mappings: Sequence[Mapping]) -> tuple[tuple[int, int], ...]:
    """Return what of the mappings the main arena has: [heap], and where its top is if that lies elsewhere."""
    return tuple((each.start, each.end) for each in mappings
                 if each.path == "[heap]" or each.start <= arena.top < each.end)
