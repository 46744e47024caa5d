"""Where a kernel tells of its memory, and which argument means what there: found in its own types, never by version."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tracer.attach.btf import Btf
from tracer.errors import CannotTrace

#: What the second program of a point is called behind the first's name (PROGRAMS() in bpf/kernel.c).
AGAIN = "_again"
#: In place of an argument's number: this kernel does not give it.
NOT_GIVEN = 12
#: What is not covered where no program can be attached to functions.
BULK_UNSEEN = ("slab: objects that are freed many at a time (kmem_cache_free_bulk, kfree_rcu) count as outstanding "
               "until they are given out again")
AREAS_TOO = "vmalloc: areas of addresses, so those of vmap and ioremap too"
_SIZES = ("size_t", "long unsigned int", "unsigned long")


@dataclass(frozen=True, slots=True)
class Point:
    """One place: the name of its program in bpf/kernel.c, and the tracepoint or function that it is attached to."""

    program: str
    target: str
    kind: str = "tracepoint"
    """tracepoint; entry or return of a function, by a trampoline; kprobe: entry of a function, by a breakpoint."""
    without: str | None = None
    """What is not covered if the kernel refuses it; None if the trace cannot do without it."""
    is_twofold: bool = True
    """Whether it has a second program, for what interrupts the first one."""

    @property
    def programs(self) -> tuple[str, ...]:
        """The programs in bpf/kernel.c, the first one first."""
        # Of kprobes the kernel skips the second one, too.
        twofold = self.is_twofold and self.kind != "kprobe"
        return (self.program, f"{self.program}{AGAIN}") if twofold else (self.program,)


@dataclass(frozen=True, slots=True)
class Points:
    """What a trace is made of: points by source, what became of the C side's constants, and what is not covered."""

    points: tuple[Point, ...]
    definitions: dict[str, int | None]
    coverage: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Hooks:
    """What programs can be attached to, of a kernel's functions by name: returns; and how entries: a Point's kind."""

    returns: Callable[[str], bool]
    entries: Callable[[str], str | None]

    def entry(self, program: str, target: str, without: str | None = None) -> Point | None:
        """Return the point at the entry of a function, None where there can be none."""
        kind = self.entries(target)
        return Point(program, target, kind, without) if kind is not None else None


#: No program can be attached to any function.
NO_HOOKS = Hooks(lambda _: False, lambda _: None)


def find_points(btf: Btf, sources: Sequence[str], hooks: Hooks) -> Points:
    """Return the points of sources ("slab", "pages", "percpu", "vmalloc").

    Raises CannotTrace naming what is missing.
    """
    points: list[Point] = []
    definitions: dict[str, int | None] = {}
    coverage: list[str] = []
    for source in sources:
        found, defined, covered = _FINDERS[source](btf, hooks)
        points += found
        definitions |= defined
        coverage += covered
    return Points(tuple(points), definitions, tuple(coverage))


_Found = tuple[list[Point], dict[str, int | None], list[str]]


def _require(btf: Btf, name: str, source: str) -> tuple[str, ...]:
    arguments = btf.tracepoint(name)
    if arguments is None:
        raise CannotTrace(f"This kernel has no tracepoint {name}, which tells of {source}.",
                          "Use a kernel built with CONFIG_TRACEPOINTS and CONFIG_BPF_EVENTS, or leave that source out.")
    return arguments


def _slab(btf: Btf, hooks: Hooks) -> _Found:
    points, definitions = [], _cache_layout(btf)
    for name in ("kmalloc", "kmalloc_node", "kmem_cache_alloc", "kmem_cache_alloc_node"):
        arguments = btf.tracepoint(name)
        if arguments is None:
            # Since 6.1 the one without _node tells of both.
            if not name.endswith("_node"):
                _require(btf, name, "slab objects")
            continue
        sizes = [at for at, kind in enumerate(arguments) if kind in _SIZES and at > 1]
        cache = _first(arguments, "struct kmem_cache *")
        if not sizes and "CACHE_SIZE" not in definitions:
            raise CannotTrace(f"The kernel's types do not say how large an object of {name} is.",
                              "Use a kernel built with CONFIG_DEBUG_INFO_BTF.")
        prefix = name.upper()
        definitions |= {f"{prefix}_REQUESTED": sizes[0] if sizes else NOT_GIVEN,
                        f"{prefix}_SIZE": sizes[1] if len(sizes) > 1 else NOT_GIVEN,
                        f"{prefix}_CACHE": cache, f"{prefix}_GFP": _first(arguments, "gfp_t"),
                        f"{prefix}_NODE": _first(arguments, "int")}
        points.append(Point(name, name))
    for name in ("kfree", "kmem_cache_free"):
        _require(btf, name, "slab objects")
        points.append(Point(name, name))
    bulk = hooks.entry("cache_free_bulk", "kmem_cache_free_bulk", BULK_UNSEEN)
    rcu = hooks.entry("kvfree_call_rcu", "kvfree_call_rcu", BULK_UNSEEN)
    if bulk is None or rcu is None:
        return points, definitions, [BULK_UNSEEN]
    if (btf.function("kvfree_call_rcu") or ("", ""))[1] != "void *":
        definitions["RCU_OFFSET"] = None
    definitions |= {"FUNCTIONS": None, "CACHE_FREE_BULK_BY_KPROBE": int(bulk.kind == "kprobe"),
                    "KFREE_RCU_BY_KPROBE": int(rcu.kind == "kprobe")}
    return [*points, bulk, rcu], definitions, []


def tag_layout(btf: Btf) -> dict[str, int | None]:
    """Return where a task says who is charged for its allocations, and where that has the name of its function.

    Empty where the kernel keeps no account of its memory by line of source.
    """
    task, tag = btf.member_offset("task_struct", "alloc_tag"), btf.member_offset("alloc_tag", "ct")
    function = btf.member_offset("codetag", "function")
    if task is None or tag is None or function is None:
        return {}
    return {"ALLOC_TAG": task, "TAG_FUNCTION": tag + function}


def _cache_layout(btf: Btf) -> dict[str, int | None]:
    found = {f"CACHE_{member.upper()}": btf.member_offset("kmem_cache", member)
             for member in ("name", "size", "object_size")}
    return {name: at for name, at in found.items() if at is not None}


def _pages(btf: Btf, _hooks: Hooks) -> _Found:
    for name in ("mm_page_alloc", "mm_page_free"):
        _require(btf, name, "pages")
    size = btf.struct_size("page")
    if not size:
        raise CannotTrace("The kernel's types do not say how large a struct page is.",
                          "Use a kernel built with CONFIG_DEBUG_INFO_BTF.")
    # mm_page_free_batched names pages that mm_page_free has named before (free_pages_prepare() in mm/page_alloc.c).
    return [Point("mm_page_alloc", "mm_page_alloc"), Point("mm_page_free", "mm_page_free")], {"PAGE_STRUCT": size}, []


def _percpu(btf: Btf, _hooks: Hooks) -> _Found:
    arguments = _require(btf, "percpu_alloc_percpu", "memory per processor")
    _require(btf, "percpu_free_percpu", "memory per processor")
    sizes = [at for at, kind in enumerate(arguments) if kind == "size_t"]
    pointers = [at for at, kind in enumerate(arguments) if kind == "void *"]
    # base_addr and ptr; size and align, and since 5.19 bytes_alloc behind them.
    definitions: dict[str, int | None] = {
        "PERCPU_POINTER": pointers[-1], "PERCPU_REQUESTED": sizes[0],
        "PERCPU_SIZE": sizes[2] if len(sizes) > 2 else NOT_GIVEN, "PERCPU_GFP": _first(arguments, "gfp_t"),
        "PROCESSORS": possible_processors()}
    return [Point(name, name) for name in ("percpu_alloc_percpu", "percpu_free_percpu")], definitions, []


def _vmalloc(btf: Btf, hooks: Hooks) -> _Found:
    found = _vmalloc_calls(btf, hooks)
    if found is not None:
        return found
    if btf.tracepoint("alloc_vmap_area") and btf.tracepoint("free_vmap_area_noflush"):
        points = [Point(name, name) for name in ("alloc_vmap_area", "free_vmap_area_noflush")]
        return points, {"VMAP_TRACEPOINTS": None}, [AREAS_TOO]
    made, start = btf.function("alloc_vmap_area"), btf.member_offset("vmap_area", "va_start")
    if made is None or start is None or not all(map(hooks.returns, ("alloc_vmap_area", "free_vmap_area_noflush"))):
        raise CannotTrace("This kernel tells of vmalloc neither by tracepoints (Linux 6.2) nor by its functions.",
                          "Leave --vmalloc out; --pages has the pages behind it.")
    points = [Point("area_returned", "alloc_vmap_area", "return"),
              Point("area_freed", "free_vmap_area_noflush", "entry")]
    return points, {"AREA_RETURN": len(made), "AREA_GFP": _first(made, "gfp_t"), "AREA_START": start}, [AREAS_TOO]


def _vmalloc_calls(btf: Btf, hooks: Hooks) -> _Found | None:
    """Return how all kinds of vmalloc() are seen where they come together; functions further out may be inlined."""
    freed = hooks.entry("vfree_enter", "vfree")
    for inner in ("__vmalloc_node_range_noprof", "__vmalloc_node_range"):
        arguments = btf.function(inner)
        if arguments is None or freed is None or not hooks.returns(inner):
            continue
        points = [Point("vmalloc_return", inner, "return"), freed]
        definitions: dict[str, int | None] = {"VMALLOC_RETURN": len(arguments),
                                              "VMALLOC_GFP": _first(arguments, "gfp_t"),
                                              "VFREE_BY_KPROBE": int(freed.kind == "kprobe")}
        if btf.tracepoint("alloc_vmap_area"):
            points.append(Point("area_size", "alloc_vmap_area", is_twofold=False))
            definitions["AREA_SIZES"] = None
        return points, definitions, [f"vmalloc: calls that lead to {inner}, until vfree; not vmap and ioremap, which "
                                     "map memory that is there"]
    return None


_FINDERS = {"slab": _slab, "pages": _pages, "percpu": _percpu, "vmalloc": _vmalloc}


def _first(arguments: Sequence[str], kind: str) -> int:
    return next((at for at, each in enumerate(arguments) if each == kind), NOT_GIVEN)


def possible_processors(path: str = "/sys/devices/system/cpu/possible") -> int:
    """Return how many processors the kernel has memory for (cpu numbers 0 to the last one)."""
    try:
        with open(path, encoding="ascii") as file:
            return int(file.read().strip().replace(",", "-").rpartition("-")[2]) + 1
    except (OSError, ValueError):
        return os.cpu_count() or 1
