"""Names the stacks of a kernel trace: functions by kallsyms, caches, flags; and what belongs together by them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from symbolizer.frame import Frame
from symbolizer.kallsyms import Kallsyms
from tracer.attach.gfp_flags import gfp_names, gfp_words
from tracer.attach.slab_info import SlabCache, caches_of_size, kmalloc_cache, read_caches
from tracer.collect.kernel_records import Source
from tracer.collect.kernel_rules import Role, own_frames, role_of
from tracer.errors import CannotTrace

#: The allocators' own functions, which stand on every stack: mm/slub.c, page_alloc.c, mempolicy.c, vmalloc.c, percpu.c.
#: What allocates for others (kmemdup, kstrdup, mempool_alloc) stays: it may be what a reader looks for.
_INTERNAL = re.compile(
    r"_*k[vmz]*alloc(?:_array|_large|_node|_order|_trace|_cache|_track_caller|_buf)?\w*|"
    r"_*kvmalloc\w*|_*do_kmalloc\w*|_*do_krealloc\w*|krealloc\w*|_*kmem_cache_alloc\w*|_*slab_alloc\w*|"
    r"(?:allocate|new|alloc)_slab\w*|alloc_single_from_\w+|_*refill_objects\w*|_*pcs_refill\w*|alloc_from_pcs\w*|"
    r"_*alloc_(?:frozen_)?pages\w*|alloc_slab_page|get_page_from_freelist|_*folio_alloc(?!_buffers)\w*|"
    r"vma_alloc_(?:folio|zeroed)\w*|_*get_free_pages?\w*|get_zeroed_page\w*|alloc_page_interleave|_*alloc_bulk_pages\w*|"
    r"vm_area_alloc_pages|_*vmalloc\w*|_*vzalloc\w*|_*get_vm_area\w*|alloc_vmap_area|_*vmap_area\w*|pcpu_alloc\w*|_*alloc_percpu\w*")
_VARIANT = re.compile(r"\.(?:isra|constprop|part|cold|llvm)\b.*")
_FOR_SLAB = re.compile(r"(?:allocate|new|alloc)_slab|___slab_alloc|_*kmalloc_large|_*kmalloc_order")
_FOR_VMALLOC = re.compile(r"_*vmalloc|vm_area_alloc_pages")


@dataclass(frozen=True, slots=True)
class NamedStack:
    """One stack: its frames, without those of the allocators and of the tracing; serves: what pages were taken for."""

    frames: tuple[Frame, ...]
    serves: str | None
    key: int


class KernelNames:
    """The names of one trace."""

    def __init__(self, kallsyms: Kallsyms, *, raw: bool = False) -> None:
        """raw: stacks are left as they were recorded."""
        self._kallsyms = kallsyms
        self._raw = raw
        self._frames: dict[int, Frame] = {}
        self._stacks: dict[bytes, NamedStack] = {}
        #: What each site belongs to, by its id, which the kernel side makes of all that is asked here.
        self._groups: dict[int, int] = {}
        self._caches: tuple[SlabCache, ...] | None = None
        self._gfp: tuple[tuple[int, str], ...] = ()
        # Without tracefs, flags are numbers.
        with suppress(CannotTrace):
            self._gfp = gfp_names()

    def function(self, address: int) -> str | None:
        """Return the name of the function that a return address leads back to."""
        return self._frame(address).function

    def _frame(self, address: int) -> Frame:
        if address not in self._frames:
            self._frames[address] = self._kallsyms.frame(address, is_return_address=True)
        return self._frames[address]

    def stack(self, addresses: np.ndarray) -> NamedStack:
        """Return the stack of return addresses, u64 (n,), innermost first."""
        known = self._stacks.get(key := addresses.tobytes())
        if known is None:
            known = self._stacks[key] = self._name(addresses.tolist())
        return known

    def _name(self, addresses: Sequence[int]) -> NamedStack:
        frames = [self._frame(address) for address in addresses]
        roles = [role_of(frame.function) for frame in frames]
        if Role.END in roles:
            frames = frames[: roles.index(Role.END) + 1]
        # Those further out are trampolines of programs that are attached to functions.
        frames = [frame for frame, role in zip(frames[own_frames(roles) :], roles[own_frames(roles) :], strict=False)
                  if role is not Role.TRACING]
        inner = 0
        while inner < len(frames) - 1 and _is_internal(frames[inner].function):
            inner += 1
        serves = _serves([frame.function or "" for frame in frames[:inner]])
        shown = tuple(frames if self._raw else frames[inner:])
        # A call site is where the innermost function calls; further out, functions are enough.
        names = tuple(_plain(frame.function) if frame.function else frame.address for frame in shown)
        return NamedStack(shown, serves, hash((names, shown[0].offset if shown else 0, serves)))

    def cache(self, about: np.void) -> str | None:
        """Return the name of the cache that a site's objects are from; None for what is no slab object."""
        if int(about["source"]) != Source.SLAB:
            return None
        if about["name"]:
            return bytes(about["name"]).decode("utf-8", "backslashreplace")
        if self._caches is None:
            self._caches = read_caches()
        size, flags = int(about["order"]), int(about["gfp"])
        named = caches_of_size(size, self._caches) if int(about["point"]) > 1 else ()
        if named:
            return named[0] if len(named) == 1 else f"one of {', '.join(named[:4])}{' …' if len(named) > 4 else ''}"
        return kmalloc_cache(size, flags, self._gfp, self._caches)

    def gfp(self, flags: int) -> tuple[str, ...]:
        """Return gfp flags in words, as far as this kernel says them."""
        return gfp_words(flags, self._gfp) if self._gfp else (f"{flags:#x}",) if flags else ()

    def groups(self, stacks: np.ndarray, about: np.ndarray) -> np.ndarray:
        """Return what each site belongs to, u64 (n,): stack by names, source, cache, flags, order, node."""
        made = np.zeros(len(stacks), np.uint64)
        for row, number in enumerate(stacks["id"].tolist()):
            group = self._groups.get(number)
            if group is None:
                group = self._groups[number] = self._group(stacks[row], about[row])
            made[row] = group
        return made

    def _group(self, stack: np.void, site: np.void) -> int:
        named = self.stack(stack["addresses"][: int(stack["depth"])])
        order = int(site["order"]) if int(site["source"]) != Source.SLAB else 0
        key = (named.key, int(site["source"]), self.cache(site), int(site["gfp"]), order, int(site["node"]))
        return hash(key) & (1 << 64) - 1


def _is_internal(function: str | None) -> bool:
    return function is not None and _INTERNAL.fullmatch(_plain(function)) is not None


def _plain(function: str) -> str:
    """Return a name without what the compiler added to it."""
    return _VARIANT.sub("", function)


def _serves(inner: Sequence[str]) -> str | None:
    for name in inner:
        if _FOR_SLAB.match(name):
            return "slab"
        if _FOR_VMALLOC.match(name):
            return "vmalloc"
    return None
