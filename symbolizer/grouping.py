"""Makes few sites out of many stacks: frames that say nothing go, recursion becomes one turn, and the rest is a key.

Stacks are tuples of frames, innermost first. Each function is of use without the others.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from dataclasses import dataclass, replace
from functools import lru_cache
from operator import attrgetter
from typing import Final

from symbolizer.choices import GroupBy
from symbolizer.demangle import demangle
from symbolizer.frame import Frame, Why

Frames = tuple[Frame, ...]

#: Calls in the longest cycle that is recognized as recursion.
LONGEST_CYCLE: Final = 8


@dataclass(frozen=True, slots=True)
class AllocatorNames:
    """Functions that are the allocator or only hand a request on to it; the pattern fits the whole name."""

    pattern: str
    reason: str


#: What a reader would look for stays: containers (std::string::_M_create, Box::new),
#: what libc and libraries allocate for their callers (strdup, g_malloc, PyMem_Malloc) and a program's own xmalloc.
#: Spelled as Style.FULL and Style.SHORT write them; linker names are demangled first.
ALLOCATOR_NAMES: Final = (
    AllocatorNames(
        r"(?:(?:__GI_)?__libc_|__|tc_|je_|_rjem_|_rjem_je_|__interceptor_|___interceptor_)?"
        r"(?:malloc|calloc|realloc|reallocarray|posix_memalign|memalign|aligned_alloc|valloc|pvalloc)",
        "the functions of C, also under the names that allocators, glibc's own calls and sanitizers give them",
    ),
    AllocatorNames(
        r"_int_(?:malloc|realloc|memalign)|_mid_memalign|sysmalloc(?:_mmap)?|tcache_init|malloc_hook_ini",
        "glibc behind malloc; not every __libc_ name, as __libc_start_main begins every program",
    ),
    AllocatorNames(
        r"__libc_malloc_impl|default_malloc|__simple_malloc|alloc_(?:slot|group|meta)|__malloc_\w+",
        "musl behind malloc",
    ),
    AllocatorNames(
        r"operator new(?:\[\])?(?:\(.*\))?",
        "operator new calls malloc; a class's own (Thing::operator new) is the program's and stays",
    ),
    AllocatorNames(
        r"(?:std::(?:__new_allocator|allocator|allocator_traits|pmr::polymorphic_allocator)|"
        r"__gnu_cxx::(?:new_allocator|malloc_allocator|__alloc_traits))<.*>::(?:_S_)?allocate(?:_at_least)?(?:\(.*\).*)?",
        "the standard library's allocators call operator new and do nothing else",
    ),
    AllocatorNames(
        r"(?:.* )?std::(?:__libcpp_(?:allocate|operator_new)|__allocate_at_least|__allocate_guarded(?:_obj)?)"
        r"(?:<.*>)?(?:\(.*\))?",
        "the same as function templates, which are written with their return type",
    ),
    AllocatorNames(
        r"(?:.* )?std::(?:__detail::)?_\w+<.*>::(?:_M_allocate(?:_node|_buckets|_map)?|_M_get_node)"
        r"(?:<.*>)?(?:\(.*\))?",
        "how libstdc++'s containers call their allocator; the container's own function is the next frame",
    ),
    AllocatorNames(r"std::pmr::memory_resource::allocate(?:\(.*\))?", "hands the request on to the resource in use"),
    AllocatorNames(
        r"mallocx|rallocx|je_\w+|_rjem_\w+|(?:imalloc|ialloc|arena_\w*alloc|tcache_alloc|large_\w*alloc|do_rallocx)\w*",
        "jemalloc, and its inner functions, which have no prefix",
    ),
    AllocatorNames(
        r"(?:void\* )?(?:tcmalloc::.*|"
        r"(?:\(anonymous namespace\)::)?do_(?:malloc|memalign|calloc|realloc)\w*(?:<.*>)?(?:\(.*\))?)|"
        r"(?:tc_new|tc_newarray|TCMallocInternal)\w*",
        "tcmalloc",
    ),
    AllocatorNames(
        r"_?mi_\w*(?:alloc|page|segment|arena)\w*|mi_(?:heap_)?new\w*",
        "mimalloc; not every mi_ name, as MyISAM's begin like that",
    ),
    AllocatorNames(
        r"(?:__rustc::)?__(?:rust|rdl|rg|rustc)_(?:alloc|alloc_zeroed|realloc)",
        "the symbols through which Rust reaches its global allocator",
    ),
    AllocatorNames(
        r"<?alloc::alloc::.*|<?std::alloc::(?:System|__default_lib_allocator).*|<.* as core::alloc::.*Alloc.*>::\w+",
        "Rust's allocation functions, and whatever global allocator the program chose",
    ),
    AllocatorNames(
        r"<?alloc::raw_vec::.*",
        "the buffer behind Vec, String and VecDeque: it computes a size and allocates; their own functions stay",
    ),
    AllocatorNames(
        r"_*(?:kmalloc|kvmalloc|kzalloc|vmalloc|kmem_cache_alloc|slab_alloc|alloc_pages|get_free_pages)(?:_\w+)?",
        "the kernel's slab, page and vmalloc allocators",
    ),
)
_ALLOCATOR = re.compile(
    rf"(?:{'|'.join(f'(?:{names.pattern})' for names in ALLOCATOR_NAMES)})(?: \[[.\w]+\])?(?:@plt)?", re.DOTALL
)
# Inline namespaces and tags, in which the versions of one library differ.
_ABI = re.compile(r"(?<=\bstd::)(?:__cxx11|__1)::|\[abi:\w+\]")
#: Longer names are not compared, so that no name takes long. In characters.
_LONGEST_TRIED: Final = 4096

#: The smallest cycle that is repeated; each frame is one character.
_REPEATED = re.compile(rf"(.{{1,{LONGEST_CYCLE}}}?)\1", re.DOTALL)


@lru_cache(maxsize=16384)
def _is_allocator(function: str) -> bool:
    text = demangle(function) if function.startswith(("_Z", "_R")) else function
    text = _ABI.sub("", text)
    return len(text) <= _LONGEST_TRIED and _ALLOCATOR.fullmatch(text) is not None


def drop_allocator_frames(frames: Frames) -> Frames:
    """Return the frames without the innermost ones that are the allocator or only lead to it.

    A stack that would be left without any call is returned whole.
    """
    for first, frame in enumerate(frames):
        if frame.function is None or not _is_allocator(frame.function):
            # The mark of a stack that could not be followed is no call.
            return frames if frame.why is Why.UNWIND_STOPPED else frames[first:]
    return frames


_line: Callable[[Frame], Hashable] = attrgetter("module", "function", "file", "line", "inlined")
_function: Callable[[Frame], Hashable] = attrgetter("module", "function")
_address: Callable[[Frame], Hashable] = attrgetter("module", "address", "function", "inlined")
_NAMED: Final = {GroupBy.FUNCTION: _function, GroupBy.LINE: _line, GroupBy.ADDRESS: _address}


def _parts(frames: Frames, by: GroupBy) -> list[Hashable]:
    """Return for each frame what must agree."""
    part = _NAMED[by]
    return [part(frame) if frame.function is not None else _unnamed(frame, by) for frame in frames]


def _unnamed(frame: Frame, by: GroupBy) -> Hashable:
    if frame.why is Why.UNWIND_STOPPED and by is not GroupBy.ADDRESS:
        # Its address is that of the frame before it, which has said what there is to say.
        return frame.why
    return (frame.module, frame.address, frame.why is Why.UNWIND_STOPPED)


def key(frames: Frames, by: GroupBy = GroupBy.LINE) -> tuple[Hashable, ...]:
    """Return what is equal for two stacks exactly if they are one site.

    Frames without a function count by their address. How often recursion was repeated counts only for ADDRESS.
    """
    parts = _parts(frames, by)
    if by is GroupBy.ADDRESS:
        return tuple(zip(parts, [frame.repeats for frame in frames], strict=True))
    return tuple(parts)


def fold_recursion(frames: Frames, by: GroupBy = GroupBy.LINE) -> Frames:
    """Return the frames with each repeated cycle of up to LONGEST_CYCLE calls once; its last frame says how often.

    The calls that are kept are the innermost ones. Frames are the same call if they agree in what `by` names. Of the
    cycles that begin at a frame, the one that covers most frames is folded.
    """
    numbers: dict[Hashable, int] = {}
    # One character a frame lets the regular expression engine do the search.
    calls = [numbers.setdefault(part, len(numbers)) for part in _parts(frames, by)]
    if len(numbers) == len(calls):
        return frames
    text = "".join(map(chr, calls))
    kept: list[Frame] = []
    at = 0
    while found := _REPEATED.search(text, at):
        start = found.start()
        length, repeats = _widest_cycle(text, start, len(found[1]))
        kept += frames[at : start + length]
        # Where the stack was folded before, its last turn says how often that one was repeated.
        kept[-1] = replace(kept[-1], repeats=kept[-1].repeats * repeats)
        at = start + length * repeats
    return (*kept, *frames[at:]) if kept else frames


def _widest_cycle(text: str, start: int, shortest: int) -> tuple[int, int]:
    """Return length and number of repeats of the cycle at start that covers most; of equal ones the shortest."""
    best = (shortest, 1)
    for length in range(shortest, LONGEST_CYCLE + 1):
        cycle = text[start : start + length]
        repeats = 1
        while text.startswith(cycle, start + length * repeats) and cycle:
            repeats += 1
        if repeats > 1 and length * repeats > best[0] * best[1]:
            best = (length, repeats)
    return best
