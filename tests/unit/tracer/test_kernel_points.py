"""What a kernel's types say of its tracepoints becomes points and constants, for kernels of different ages."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

import bpf
from tests.programs.made_btf import MadeKernel
from tracer.attach.btf import STRUCT, Btf
from tracer.attach.kernel_points import BULK_UNSEEN, NOT_GIVEN, Hooks, Points, find_points, possible_processors
from tracer.collect.kernel_records import POINTS
from tracer.errors import CannotTrace

LONG = "unsigned long"
#: Tracepoints as kernels have them: what each is given behind its own data.
V5_10 = {
    "kmalloc": (LONG, "void *", "size_t", "size_t", "gfp_t"),
    "kmalloc_node": (LONG, "void *", "size_t", "size_t", "gfp_t", "int"),
    "kmem_cache_alloc": (LONG, "void *", "size_t", "size_t", "gfp_t"),
    "kmem_cache_alloc_node": (LONG, "void *", "size_t", "size_t", "gfp_t", "int"),
    "kfree": (LONG, "void *"), "kmem_cache_free": (LONG, "void *"),
    "mm_page_alloc": ("struct page *", "int", "gfp_t", "int"), "mm_page_free": ("struct page *", "int"),
    "percpu_alloc_percpu": ("bool", "bool", "size_t", "size_t", "void *", "int", "void *"),
    "percpu_free_percpu": ("void *", "int", "void *"),
}
V6_12 = {
    "kmalloc": (LONG, "void *", "size_t", "size_t", "gfp_t", "int"),
    "kmem_cache_alloc": (LONG, "void *", "struct kmem_cache *", "gfp_t", "int"),
    "kfree": (LONG, "void *"), "kmem_cache_free": (LONG, "void *", "struct kmem_cache *"),
    "mm_page_alloc": ("struct page *", "int", "gfp_t", "int"), "mm_page_free": ("struct page *", "int"),
    "percpu_alloc_percpu": (LONG, "bool", "bool", "size_t", "size_t", "void *", "int", "void *", "size_t", "gfp_t"),
    "percpu_free_percpu": ("void *", "int", "void *"),
    "alloc_vmap_area": (LONG, LONG, LONG, LONG, LONG, "int"), "free_vmap_area_noflush": (LONG, LONG, LONG),
}
RANGE = ("size_t", LONG, LONG, LONG, "gfp_t", LONG, LONG, "int", "void *")
NODE = ("size_t", LONG, "gfp_t", "int", "void *")
Arguments = dict[str, tuple[str, ...]]
BULK: Arguments = {"kmem_cache_free_bulk": ("struct kmem_cache *", "size_t", "void *"),
                   "kvfree_call_rcu": ("struct callback_head *", "void *")}
AREAS: Arguments = {"alloc_vmap_area": (LONG, LONG, LONG, LONG, "int", "gfp_t"), "free_vmap_area_noflush": ("void *",)}
VMALLOC: Arguments = {"vfree": ("void *",), "__vmalloc_node_range_noprof": RANGE, "__vmalloc_node_noprof": NODE}


def only(traceable: Callable[[str], bool]) -> Hooks:
    """Programs can be attached by trampolines to the functions of which this is true."""
    return Hooks(traceable, lambda name: "entry" if traceable(name) else None)


NOTHING, ANYTHING = only(lambda _: False), only(lambda _: True)
#: A kernel that hands few arguments over, and has kprobes.
BY_KPROBES = Hooks(lambda _: True, lambda _: "kprobe")


def types(tracepoints: Arguments, functions: Arguments | None = None, *, cache: bool = True, page: int = 64) -> Btf:
    """Return the types of a kernel with these tracepoints and functions."""
    made = MadeKernel()
    for name, arguments in tracepoints.items():
        made.trace(name, *arguments)
    for name, arguments in (functions or {}).items():
        made.call(name, *arguments)
    number = made.integer("int", 4)
    if cache:
        made.composite(STRUCT, "kmem_cache", 200, [("size", number, 24 * 8), ("object_size", number, 28 * 8), ("name", number, 96 * 8)])
    made.composite(STRUCT, "vmap_area", 72, [("va_start", number, 16 * 8)])
    if page:
        made.struct("page", page)
    return Btf(made.data())


def names(found: Points) -> list[tuple[str, str, str]]:
    return [(point.program, point.target, point.kind) for point in found.points]


def test_slab_of_an_old_kernel() -> None:
    """Four tracepoints tell of slab objects, with sizes and without their cache; those without _node know no node."""
    found = find_points(types(V5_10), ["slab"], NOTHING)
    assert [point.target for point in found.points] == [
        "kmalloc", "kmalloc_node", "kmem_cache_alloc", "kmem_cache_alloc_node", "kfree", "kmem_cache_free"]
    for prefix, node in (("KMALLOC", NOT_GIVEN), ("KMALLOC_NODE", 5), ("KMEM_CACHE_ALLOC", NOT_GIVEN), ("KMEM_CACHE_ALLOC_NODE", 5)):
        assert {name: found.definitions[f"{prefix}_{name}"] for name in ("REQUESTED", "SIZE", "CACHE", "GFP", "NODE")} == {
            "REQUESTED": 2, "SIZE": 3, "CACHE": NOT_GIVEN, "GFP": 4, "NODE": node}


def test_slab_of_a_new_kernel() -> None:
    """Two tracepoints, of which one gives the cache in place of sizes: those are read from the cache."""
    made = find_points(types(V6_12), ["slab"], NOTHING).definitions
    assert {name: made[f"KMALLOC_{name}"] for name in ("REQUESTED", "SIZE", "CACHE", "GFP", "NODE")} == {
        "REQUESTED": 2, "SIZE": 3, "CACHE": NOT_GIVEN, "GFP": 4, "NODE": 5}
    assert {name: made[f"KMEM_CACHE_ALLOC_{name}"] for name in ("REQUESTED", "SIZE", "CACHE", "GFP", "NODE")} == {
        "REQUESTED": NOT_GIVEN, "SIZE": NOT_GIVEN, "CACHE": 2, "GFP": 3, "NODE": 4}
    assert {name: made[f"CACHE_{name}"] for name in ("NAME", "SIZE", "OBJECT_SIZE")} == {"NAME": 96, "SIZE": 24, "OBJECT_SIZE": 28}
    assert "KMALLOC_NODE_GFP" not in made


def test_the_call_site_is_no_size() -> None:
    """On kernels that spell size_t out, it has the type of the call site, which comes first."""
    old = {**V5_10, "kmalloc": ("long unsigned int", "void *", "long unsigned int", "long unsigned int", "gfp_t")}
    made = find_points(types(old), ["slab"], NOTHING).definitions
    assert (made["KMALLOC_REQUESTED"], made["KMALLOC_SIZE"]) == (2, 3)


def test_objects_without_any_size() -> None:
    """Where neither the tracepoint nor the cache's layout tells a size, there is no trace."""
    with pytest.raises(CannotTrace, match="how large an object of kmem_cache_alloc is"):
        find_points(types(V6_12, cache=False), ["slab"], NOTHING)


def test_functions_where_the_kernel_traces_them() -> None:
    """Bulk frees are seen through functions; where one of those cannot be traced, that is said."""
    seen = find_points(types(V6_12, BULK), ["slab"], ANYTHING)
    assert names(seen)[-2:] == [("cache_free_bulk", "kmem_cache_free_bulk", "entry"), ("kvfree_call_rcu", "kvfree_call_rcu", "entry")]
    assert (seen.definitions["FUNCTIONS"], seen.coverage) == (None, ())
    for hooks in (NOTHING, only(lambda name: name == "kmem_cache_free_bulk"), only(lambda name: name == "kvfree_call_rcu")):
        unseen = find_points(types(V6_12, BULK), ["slab"], hooks)
        assert "FUNCTIONS" not in unseen.definitions and unseen.coverage == (BULK_UNSEEN,)
        assert all(point.kind == "tracepoint" for point in unseen.points)


def test_kprobes_where_arguments_are_not_handed_over() -> None:
    """Entries of functions are seen through kprobes then, each by one program, which looks in the registers."""
    found = find_points(types(V5_10, BULK | VMALLOC), ["slab", "vmalloc"], BY_KPROBES)
    entries = {point.target: point.programs for point in found.points if point.kind == "kprobe"}
    assert entries == {"kmem_cache_free_bulk": ("cache_free_bulk",), "kvfree_call_rcu": ("kvfree_call_rcu",),
                       "vfree": ("vfree_enter",)}
    assert {found.definitions[f"{name}_BY_KPROBE"] for name in ("CACHE_FREE_BULK", "KFREE_RCU", "VFREE")} == {1}
    assert not any("until they are given out again" in each for each in found.coverage)


def test_a_trace_can_do_without_functions() -> None:
    """What is lost with a function that the kernel refuses in the end is known; a tracepoint must be there."""
    points = find_points(types(V6_12, BULK), ["slab", "pages"], ANYTHING).points
    assert {point.without for point in points if point.kind != "tracepoint"} == {BULK_UNSEEN}
    assert {point.without for point in points if point.kind == "tracepoint"} == {None}


def test_what_is_freed_later_is_found_by_how_it_is_told() -> None:
    """Before Linux 6.4, kvfree_call_rcu is told how far into the object its head lies; since then, the object."""
    def is_offset(*arguments: str) -> bool:
        made = types(V6_12, BULK | {"kvfree_call_rcu": arguments})
        return "RCU_OFFSET" in find_points(made, ["slab"], ANYTHING).definitions

    assert is_offset("struct callback_head *", "rcu_callback_t")
    assert not is_offset("struct callback_head *", "void *")


def test_pages_need_the_size_of_struct_page() -> None:
    """A page's number is worked out from where its struct lies."""
    found = find_points(types(V6_12, page=56), ["pages"], NOTHING)
    assert names(found) == [("mm_page_alloc", "mm_page_alloc", "tracepoint"), ("mm_page_free", "mm_page_free", "tracepoint")]
    assert found.definitions == {"PAGE_STRUCT": 56}
    with pytest.raises(CannotTrace, match="struct page"):
        find_points(types(V6_12, page=0), ["pages"], NOTHING)


@pytest.mark.parametrize(("kernel", "expected"), [
    (V5_10, {"POINTER": 6, "REQUESTED": 2, "SIZE": NOT_GIVEN, "GFP": NOT_GIVEN}),
    (V6_12, {"POINTER": 7, "REQUESTED": 3, "SIZE": 8, "GFP": 9}),
])
def test_memory_per_processor(kernel: dict[str, tuple[str, ...]], expected: dict[str, int]) -> None:
    """The last pointer is what the caller gets, the first size what was asked for, the third what it takes."""
    made = find_points(types(kernel), ["percpu"], NOTHING).definitions
    assert {name: made[f"PERCPU_{name}"] for name in expected} == expected
    assert made["PROCESSORS"] == possible_processors()


def test_vmalloc_by_functions() -> None:
    """What a function returns stands behind its arguments."""
    found = find_points(types(V6_12, VMALLOC), ["vmalloc"], ANYTHING)
    assert names(found) == [("vmalloc_return", "__vmalloc_node_range_noprof", "return"), ("vfree_enter", "vfree", "entry"),
                            ("area_size", "alloc_vmap_area", "tracepoint")]
    assert found.definitions == {"VMALLOC_RETURN": 9, "VMALLOC_GFP": 4, "AREA_SIZES": None, "VFREE_BY_KPROBE": 0}
    assert "__vmalloc_node_range_noprof" in found.coverage[0] and "ioremap" in found.coverage[0]


def test_areas_by_functions_of_an_old_kernel() -> None:
    """A function with more arguments than trampolines hand over is none; those that make and free areas tell of all."""
    few = Hooks(lambda name: "range" not in name, lambda _: "kprobe")
    older = types(V5_10, VMALLOC | AREAS)
    found = find_points(older, ["vmalloc"], few)
    assert names(found) == [("area_returned", "alloc_vmap_area", "return"), ("area_freed", "free_vmap_area_noflush", "entry")]
    assert found.definitions == {"AREA_RETURN": 6, "AREA_GFP": 5, "AREA_START": 16} and "ioremap" in found.coverage[0]
    for left in AREAS:
        with pytest.raises(CannotTrace, match="neither"):
            find_points(older, ["vmalloc"], only({left, "vfree"}.__contains__))


def test_vmalloc_by_its_older_name() -> None:
    """Before allocations were profiled, the functions had no _noprof."""
    older = types(V5_10, {"vfree": ("void *",), "__vmalloc_node_range": RANGE})
    found = find_points(older, ["vmalloc"], ANYTHING)
    assert names(found) == [("vmalloc_return", "__vmalloc_node_range", "return"), ("vfree_enter", "vfree", "entry")]
    assert "AREA_SIZES" not in found.definitions, "it does not tell of areas either"


@pytest.mark.parametrize(("functions", "hooks"), [
    (VMALLOC, NOTHING), ({}, ANYTHING), (VMALLOC, only(lambda name: name != "vfree")), ({"vfree": ("void *",)}, ANYTHING),
])
def test_vmalloc_by_tracepoints(functions: Arguments, hooks: Hooks) -> None:
    """Without both functions, tracepoints tell of all areas; without those as well, there is none, and why is said."""
    found = find_points(types(V6_12, functions), ["vmalloc"], hooks)
    assert [point.target for point in found.points] == ["alloc_vmap_area", "free_vmap_area_noflush"]
    assert found.definitions == {"VMAP_TRACEPOINTS": None} and "ioremap" in found.coverage[0]
    with pytest.raises(CannotTrace, match="neither") as raised:
        find_points(types(V5_10, functions), ["vmalloc"], hooks)
    assert "--pages" in raised.value.remedy


@pytest.mark.parametrize(("source", "missing"), [
    ("slab", "kmalloc"), ("slab", "kmem_cache_alloc"), ("slab", "kfree"), ("slab", "kmem_cache_free"), ("pages", "mm_page_alloc"),
    ("pages", "mm_page_free"), ("percpu", "percpu_alloc_percpu"), ("percpu", "percpu_free_percpu"),
])
def test_a_missing_tracepoint_is_named(source: str, missing: str) -> None:
    """A trace without it would be wrong, so there is none, and the sentence names it."""
    tracepoints = {name: arguments for name, arguments in V6_12.items() if name != missing}
    with pytest.raises(CannotTrace, match=rf"no tracepoint {missing},"):
        find_points(types(tracepoints), [source], NOTHING)


def test_sources_are_put_together() -> None:
    """All points of all sources, each source's constants, and what each does not cover."""
    all_ = find_points(types(V6_12), ["slab", "pages", "percpu", "vmalloc"], NOTHING)
    apart = [find_points(types(V6_12), [source], NOTHING) for source in ("slab", "pages", "percpu", "vmalloc")]
    assert all_.points == sum((each.points for each in apart), ())
    assert all_.definitions == {name: value for each in apart for name, value in each.definitions.items()}
    assert all_.coverage == sum((each.coverage for each in apart), ()) and len(all_.coverage) == 2
    assert find_points(types({}), [], NOTHING) == Points((), {}, ())


def test_every_program_is_in_the_c() -> None:
    """Each point has its two programs in bpf/kernel.c, or its one, and each constant is looked at there."""
    text = bpf.source({}, bpf.KERNEL_PARTS)
    sources = ["slab", "pages", "percpu", "vmalloc"]
    by_areas = Hooks(lambda name: "range" not in name, lambda _: "kprobe")
    for found in (find_points(types(V6_12, BULK | VMALLOC), sources, ANYTHING), find_points(types(V5_10, BULK | AREAS), sources, by_areas), find_points(types(V5_10), sources[:3], NOTHING),
                  find_points(types(V6_12), sources, NOTHING)):
        for point in found.points:
            form = rf"(?:SLAB_)?PROGRAMS\({point.program}, " if point.is_twofold else rf"int {point.program}\("
            assert re.search(f"^{form}", text, re.MULTILINE), point
        pasted = {f"{prefix}_{name}" for prefix in re.findall(r"^SLAB_PROGRAMS\(\w+, \w+, (\w+)\)", text, re.MULTILINE)
                  for name in re.findall(r"NAME##_(\w+)", text)}
        assert {name for name in found.definitions if not re.search(rf"\b{name}\b", text)} <= pasted


def test_the_number_that_stands_for_none_is_beyond_the_arguments() -> None:
    """The C takes 0 for an argument whose number is that of none: one behind the last."""
    text = bpf.source({}, bpf.KERNEL_PARTS)
    assert re.search(rf"u64 at\[{NOT_GIVEN}\];", text) and re.search(rf"define GIVEN\(ctx, number\) \(\(number\) < {NOT_GIVEN} ", text)
    body = re.search(r"enum point \{(.*?)\};", text, re.DOTALL)
    assert body
    assert len(re.findall(r"POINT_\w+", body[1])) <= POINTS and f"POINTS = {POINTS}" in body[1]


@pytest.mark.parametrize(("text", "count"), [("0\n", 1), ("0-1\n", 2), ("0-127\n", 128), ("0,2-3\n", 4), ("0-1,8\n", 9)])
def test_processors(tmp_path: Path, text: str, count: int) -> None:
    """Memory per processor is there for every number up to the last possible one."""
    path = tmp_path / "possible"
    path.write_text(text)
    assert possible_processors(str(path)) == count


def test_processors_that_are_not_told(tmp_path: Path) -> None:
    """Without the file, or with something else in it, there is at least one."""
    assert possible_processors(str(tmp_path / "none")) >= 1
    (tmp_path / "other").write_text("none\n")
    assert possible_processors(str(tmp_path / "other")) >= 1
