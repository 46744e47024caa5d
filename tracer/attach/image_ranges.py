"""What the parts of an address space are for: what a scan reads, where stacks are dead, what glibc's malloc holds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import TypeGuard

import numpy as np

from symbolizer.mappings import AddressSpace, Mapping
from tracer.attach.stopping import StoppedThread

#: Below the stack pointer, and in use all the same (System V ABI for AMD64, section 3.2.2).
RED_ZONE = 128
#: glibc's malloc/arena.c: HEAP_MAX_SIZE, to a multiple of which every part of an arena is aligned.
ARENA = 64 << 20
#: Struct heap_info at the start of such a part: its arena, the part before, its size, what was made accessible.
HEAP_INFO_WORDS = 4
#: The first part of an arena holds its struct malloc_state right behind heap_info; no version's is larger.
_LARGEST_HEAP_INFO = 128
#: Files that are memory and no device, although their path is one.
_MEMORY_FILES = ("/dev/shm/", "/dev/zero")


def to_scan(mappings: Sequence[Mapping]) -> tuple[np.ndarray, np.ndarray]:
    """Return the address ranges that can hold pointers to blocks, both u64 (n, 2), in order.

    The first: what the program can write, each page that holds anything. The second: what it could write before it was
    protected, such as tables that are filled at the start; of these, only pages that are no longer the file's.
    """
    writable = [(each.start, each.end) for each in mappings if each.readable and each.writable and not _is_device(each)]
    protected = [(each.start, each.end) for each in mappings
                 if each.readable and not each.writable and each.private and not _is_device(each)
                 and not each.path.startswith("[v")]
    return _ranges(writable), _ranges(protected)


def _is_device(mapping: Mapping) -> bool:
    """Return whether it shows a device: to read that may have effects, and no pointers to blocks are there."""
    return mapping.path.startswith("/dev/") and not mapping.path.startswith(_MEMORY_FILES)


def dead_stack(mappings: Sequence[Mapping], threads: Sequence[StoppedThread], *, all_stopped: bool) -> np.ndarray:
    """Return the parts of stacks that functions have left, u64 (k, 2): what is there is no longer in use.

    mappings: in order. Of the main stack it is what lies below the lowest stack pointer. Of another, only where nothing
    else can be in its mapping: this begins right above a guard, and has its thread's control block above the stack
    pointer, as C libraries lay them out (so it is no coroutine's), and nobody else's stack pointer. Without all_stopped
    nothing is dead: the other threads may be anywhere.
    """
    if not all_stopped:
        return _ranges([])
    space = AddressSpace.of(mappings)
    at = [(thread, mapping) for thread in threads if (mapping := space.locate(thread.sp)) is not None]
    holds = Counter(mapping.start for _, mapping in at)
    found: dict[int, int] = {}
    for thread, mapping in at:
        if mapping.path != "[stack]":
            alone = holds[mapping.start] == 1 and mapping.private and not mapping.is_file
            # A neighbour above with the same rights would be in the same mapping, so what is there does not matter.
            guarded = _is_closed(space.locate(mapping.start - 1))
            if not (alone and guarded and thread.sp < thread.fs_base < mapping.end):
                continue
        top = (thread.sp - RED_ZONE) & ~7
        found[mapping.start] = min(top, found.get(mapping.start, top))
    return _ranges([(start, top) for start, top in sorted(found.items()) if start < top])


def _is_closed(mapping: Mapping | None) -> TypeGuard[Mapping]:
    """Return whether there is a mapping, and nobody can access it: a guard, or a reserve."""
    return mapping is not None and not (
        mapping.readable or mapping.writable or mapping.executable or mapping.is_file)


def heap_ranges(mappings: Sequence[Mapping], words_at: Callable[[int, int], Sequence[int]]) -> np.ndarray:
    """Return the address ranges that belong to glibc's malloc, u64 (k, 2): [heap], and the parts of its arenas.

    mappings: in order. words_at(address, count) reads words, none where it cannot. [heap] is glibc's only in a
    program whose malloc is glibc's. Single large blocks have mappings of their own, and are not among these.
    """
    found = [(each.start, each.end) for each in mappings if each.path == "[heap]"]
    for mapping, following in zip(mappings, [*mappings[1:], None], strict=True):
        if (mapping.start % ARENA == 0 and mapping.readable and mapping.writable and mapping.private
                and not mapping.is_file):
            reserve_end = following.end if _is_closed(following) and following.start == mapping.end else mapping.end
            found.extend(_arena_parts(mapping, reserve_end, words_at))
    return _ranges(sorted(found))


def _arena_parts(mapping: Mapping, reserve_end: int,
                 words_at: Callable[[int, int], Sequence[int]]) -> Iterator[tuple[int, int]]:
    """Give the parts of arenas in a mapping: full ones of 64 MB, and a last one with its reserve behind it."""
    for start in range(mapping.start, mapping.end, ARENA):
        end = min(start + ARENA, mapping.end)
        if start + ARENA > max(mapping.end, reserve_end) or not is_arena(words_at(start, HEAP_INFO_WORDS), start, end):
            return
        yield start, end


def is_arena(words: Sequence[int], start: int, end: int) -> bool:
    """Return whether glibc's struct heap_info is at the start of [start, end): others align their memory as well.

    words: the first four there. A part that is not its arena's first has one before it.
    """
    if len(words) < HEAP_INFO_WORDS:
        return False
    arena, before, size, accessible = words[:HEAP_INFO_WORDS]
    is_first = before == 0
    belongs = start < arena <= start + _LARGEST_HEAP_INFO if is_first else 0 < arena % ARENA <= _LARGEST_HEAP_INFO
    return belongs and arena % 16 == 0 and before % ARENA == 0 and 0 < size <= accessible == end - start


def _ranges(pairs: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.array(pairs, np.uint64).reshape(-1, 2)
