"""Comparing what leaktrace says of the kernel's memory with what the kernel says itself, site by site.

Two sources of the kernel are compared, and each counts something else than a trace does:

/proc/allocinfo gives what every annotated line of source holds, since boot. A line is that of the caller that is meant
to be charged: a helper that passes its caller's annotation on (kmemdup and the like) is not named, although it is in
the stack. The function is the one in the source, also where the compiler inlined it, so that the stack has only the
function around it. Objects count with their whole slot, and the pages that slabs consist of count once more, for the
allocator. Objects from KFENCE, and what was allocated while counting was off, are missing
(Documentation/mm/allocation-profiling.rst).

kmemleak gives the blocks to which nothing points, allocated at any time since boot, and at most 16 frames of each. A
block that is held but still pointed to is not among them, nor are pages from the page allocator, which it does not
follow. An object's size there is that of all objects of its cache (Documentation/dev-tools/kmemleak.rst, mm/slub.c).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

#: The function that is charged with the pages of slabs, whose objects are charged to their callers (mm/slub.c).
SLAB_PAGES = "alloc_slab_page"
#: A helper that passes its caller's annotation on is rarely more than two calls deep.
_NEAR = 3
#: Frames of kmemleak's that may belong to the allocator, before the caller's begin; and how such functions begin.
_ALLOCATOR_FRAMES = 8
_ALLOCATOR = re.compile(r"_*(kmemleak_|k[mvz]+alloc|kcalloc|krealloc|kmem_cache_alloc|slab_|v[mz]alloc|pcpu_alloc"
                        r"|alloc_percpu|do_kmalloc)")
#: What two readings may differ by besides what was allocated between them, as a share: sums over processors drift.
_NOISE = 0.02


class Tagged(Protocol):
    """A line of the kernel's account: what its allocations hold, in bytes and in number."""

    @property
    def file(self) -> str: ...
    @property
    def line(self) -> int: ...
    @property
    def function(self) -> str: ...
    @property
    def module(self) -> str | None: ...
    @property
    def bytes(self) -> int: ...
    @property
    def calls(self) -> int: ...
    @property
    def accurate(self) -> bool: ...


class Lost(Protocol):
    """A block to which nothing points: size in bytes, functions of its stack, innermost first, allocator included."""

    @property
    def size(self) -> int: ...
    @property
    def functions(self) -> tuple[str, ...]: ...


@dataclass(frozen=True, slots=True)
class Amount:
    """Bytes, and the number of blocks that they are in."""

    bytes: int = 0
    count: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.bytes + other.bytes, self.count + other.count)

    def __sub__(self, other: Amount) -> Amount:
        return Amount(self.bytes - other.bytes, self.count - other.count)


@dataclass(frozen=True, slots=True)
class TracedSite:
    """A site of the trace between its two moments.

    functions: of the frames outside the allocator from the innermost on, as the kernel's symbol table names them, so
    without inlined ones. held: what was allocated and not freed between the moments, in the bytes that were handed out,
    not those asked for; pages that the slab allocator takes for itself left out. allocated: all that was allocated
    between the moments, freed or not. charged: the function that the kernel's account charges, "" if it
    charges nobody, None where that is not known.
    """

    functions: tuple[str, ...]
    held: Amount
    allocated: Amount = Amount()
    charged: str | None = None


class Standing(StrEnum):
    """How the two sides of a row stand to each other."""

    AGREES = "agrees"
    DIFFERS = "differs"
    INACCURATE = "inaccurate"
    """The kernel says of its own figure that it is not exact."""


@dataclass(frozen=True, slots=True)
class Row:
    """One function that both sides know. places: the kernel's file:line of it, or nothing where it tells none."""

    function: str
    traced: Amount
    other: Amount
    standing: Standing
    places: tuple[str, ...] = ()

    @property
    def difference(self) -> Amount:
        """What the trace has more than the other side; negative if less."""
        return self.traced - self.other


@dataclass(frozen=True, slots=True)
class CrossCheck:
    """The comparison. All three are ordered by bytes, the most first; what is 0 on both sides is left out.

    rows: what both know. only_traced, only_other: what one side knows only, as function and amount.
    """

    rows: tuple[Row, ...]
    only_traced: tuple[tuple[str, Amount], ...]
    only_other: tuple[tuple[str, Amount], ...]
    summary: str


def bare_name(function: str) -> str:
    """Return a function's name in the source, without what the compiler (.isra.0) and annotation (_noprof) append."""
    return function.partition(".")[0].removesuffix("_noprof")


def compare_account(traced: Sequence[TracedSite], before: Iterable[Tagged], after: Iterable[Tagged],
                    gap: float = 0.0) -> CrossCheck:
    """Compare a trace with the growth of the kernel's account between two readings.

    gap: the time between the readings and the trace's own moments, as a share (0 to 1) of that between the moments: so
    much of what a site allocates may be on one side only. A site goes to the function that is charged; where that is
    not known, to the innermost of its nearest functions whose account changed, else to the innermost that has one.
    """
    growth, places, inaccurate = _growth(before, after)

    def key(site: TracedSite) -> str | None:
        near = [bare_name(name) for name in (site.functions[:_NEAR] if site.charged is None else (site.charged,))]
        return next((name for name in near if growth.get(name, Amount()) != Amount()),
                    next((name for name in near if name in growth), None))

    ours, alone = _by_key(traced, key)
    rows = []
    for name, (held, allocated) in ours.items():
        standing = Standing.INACCURATE if name in inaccurate else _standing(held, growth[name], allocated, gap)
        rows.append(Row(name, held, growth[name], standing, places[name]))
    others = {name: amount for name, amount in growth.items() if name not in ours}
    return _result(rows, alone, others, "the kernel's account")


def compare_unreferenced(traced: Sequence[TracedSite], lost: Iterable[Lost]) -> CrossCheck:
    """Compare a trace with the blocks to which nothing points: those have to be among what the trace says is held.

    lost: those only that were allocated between the trace's moments, else it cannot have seen them. A row differs if
    the trace holds fewer blocks of a site; holding more is no contradiction, as they may be pointed to.
    """
    groups: dict[tuple[str, ...], Amount] = {}
    for block in lost:
        groups[block.functions] = groups.get(block.functions, Amount()) + Amount(block.size, 1)
    sites = [tuple(map(bare_name, site.functions)) for site in traced]
    by_first: dict[str, list[int]] = {}
    for index, names in enumerate(sites):
        by_first.setdefault(names[0] if names else "", []).append(index)
    found: dict[int, Amount] = {}
    others: dict[str, Amount] = {}
    for functions, amount in groups.items():
        stack = tuple(map(bare_name, functions))
        alike = {index: common_frames(sites[index], stack)
                 for name in stack[:_ALLOCATOR_FRAMES] for index in by_first.get(name, ())}
        best = max(alike, key=lambda index: (alike[index], -index), default=None)
        if best is not None and alike[best]:
            found[best] = found.get(best, Amount()) + amount
        else:
            name = _caller(stack)
            others[name] = others.get(name, Amount()) + amount
    rows = [Row(_first(traced[index]), traced[index].held, amount,
                Standing.AGREES if traced[index].held.count >= amount.count else Standing.DIFFERS)
            for index, amount in found.items()]
    alone: dict[str, Amount] = {}
    for index, site in enumerate(traced):
        if index not in found:
            alone[_first(site)] = alone.get(_first(site), Amount()) + site.held
    return _result(rows, alone, others, "the leak detector")


def common_frames(site: Sequence[str], stack: Sequence[str]) -> int:
    """Return how many frames a site shares with a stack, from its innermost one on; 0 if they go on differently.

    Either may be cut off at its outer end. The stack may begin with frames of the allocator.
    """
    if not site:
        return 0
    best = 0
    for start in range(min(len(stack), _ALLOCATOR_FRAMES)):
        length = min(len(site), len(stack) - start)
        if list(site[:length]) == list(stack[start : start + length]):
            best = max(best, length)
    return best


def _growth(before: Iterable[Tagged], after: Iterable[Tagged]
            ) -> tuple[dict[str, Amount], dict[str, tuple[str, ...]], set[str]]:
    """Return growth and places by function, and the functions with figures that are not exact."""
    growth: dict[str, Amount] = {}
    places: dict[str, dict[str, None]] = {}
    inaccurate = set()
    for sign, tags in ((-1, before), (1, after)):
        for tag in tags:
            name = bare_name(tag.function)
            if name == SLAB_PAGES:
                continue
            growth[name] = growth.get(name, Amount()) + Amount(sign * tag.bytes, sign * tag.calls)
            places.setdefault(name, {})[f"{tag.file}:{tag.line}" + (f" [{tag.module}]" if tag.module else "")] = None
            if not tag.accurate:
                inaccurate.add(name)
    return growth, {name: tuple(found) for name, found in places.items()}, inaccurate


def _by_key(traced: Iterable[TracedSite], key: Callable[[TracedSite], str | None]
            ) -> tuple[dict[str, tuple[Amount, Amount]], dict[str, Amount]]:
    """Return held and allocated by key, and held by innermost function for the sites that have none."""
    ours: dict[str, tuple[Amount, Amount]] = {}
    alone: dict[str, Amount] = {}
    for site in traced:
        name = key(site)
        if name is None:
            alone[_first(site)] = alone.get(_first(site), Amount()) + site.held
        else:
            held, allocated = ours.get(name, (Amount(), Amount()))
            ours[name] = held + site.held, allocated + site.allocated
    return ours, alone


def _standing(traced: Amount, other: Amount, allocated: Amount, gap: float) -> Standing:
    """Judge two figures of one moment, of which one may have been read a little later."""
    for ours, theirs, moved in ((traced.bytes, other.bytes, allocated.bytes),
                                (traced.count, other.count, allocated.count)):
        if abs(ours - theirs) > gap * moved + _NOISE * max(abs(ours), abs(theirs)):
            return Standing.DIFFERS
    return Standing.AGREES


def _first(site: TracedSite) -> str:
    return bare_name(site.functions[0]) if site.functions else "[unknown]"


def _caller(stack: Sequence[str]) -> str:
    """Return the innermost function that does not look like one of the allocator's."""
    return next((name for name in stack if name and not _ALLOCATOR.match(name)), "[unknown]")


def _result(rows: Sequence[Row], alone: dict[str, Amount], others: dict[str, Amount], who: str) -> CrossCheck:
    """Order the three lists, and say how they stand."""
    shown = sorted((row for row in rows if row.traced != Amount() or row.other != Amount()),
                   key=lambda row: (-max(abs(row.traced.bytes), abs(row.other.bytes)), row.function))
    only_traced, only_other = _ordered(alone), _ordered(others)
    agree = sum(row.standing is Standing.AGREES for row in shown)
    differ = sum(row.standing is Standing.DIFFERS for row in shown)
    inexact = len(shown) - agree - differ
    summary = (f"Of {len(shown)} functions that the trace and {who} both know, {agree} agree and {differ} differ"
               + (f", and {inexact} cannot be judged as the kernel's figure is not exact" if inexact else "")
               + f"; {len(only_traced)} are in the trace only, {len(only_other)} in {who} only.")
    return CrossCheck(tuple(shown), only_traced, only_other, summary)


def _ordered(amounts: dict[str, Amount]) -> tuple[tuple[str, Amount], ...]:
    return tuple(sorted(((name, amount) for name, amount in amounts.items() if amount != Amount()),
                        key=lambda each: (-abs(each[1].bytes), each[0])))
