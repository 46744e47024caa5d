"""Stacks of the kernel by names: without the frames of the tracing and the allocators, and who belongs together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from symbolizer.frame import Frame, Why
from symbolizer.kallsyms import Kallsyms
from tracer import kernel_names, records
from tracer.attach.slab_info import SlabCache
from tracer.collect.kernel_records import KERNEL_SITE, Source
from tracer.errors import CannotTrace
from tracer.kernel_names import KernelNames, NamedStack

DEPTH = 20
#: Functions by hundreds from here on.
TEXT = 0xFFFF_FFFF_8100_0000
GFP = ((0xCC0, "GFP_KERNEL"), (0x100, "__GFP_ZERO"), (0x400000, "__GFP_ACCOUNT"))
CACHES = (SlabCache(("dentry",), 192, 192), SlabCache(("kmalloc-192",), 192, 192), SlabCache(("kmalloc-cg-192",), 192, 192),
          SlabCache(("kmalloc-64",), 64, 64), *(SlabCache((f"made_{n}",), 48, 48) for n in range(5)), SlabCache(("filp", "also"), 232, 256))


class FakeKallsyms:
    """Gives functions by hundreds, in the order in which they are asked for."""

    def __init__(self) -> None:
        self._names: list[str | None] = []
        self.asked = 0

    def address(self, name: str | None, offset: int = 16) -> int:
        """Return a return address in a function of this name; None has no name."""
        if name not in self._names:
            self._names.append(name)
        return TEXT + 0x100 * self._names.index(name) + offset

    def frame(self, address: int, is_return_address: bool = False) -> Frame:
        assert is_return_address
        self.asked += 1
        name = self._names[(address - TEXT) >> 8]
        return Frame(address, name, (address - TEXT) & 0xFF, "[kernel]") if name else Frame(address, why=Why.NOT_COVERED)


@pytest.fixture
def kallsyms() -> FakeKallsyms:
    return FakeKallsyms()


@pytest.fixture
def names(kallsyms: FakeKallsyms, monkeypatch: pytest.MonkeyPatch) -> KernelNames:
    monkeypatch.setattr(kernel_names, "gfp_names", lambda: GFP)
    monkeypatch.setattr(kernel_names, "read_caches", lambda: CACHES)
    return KernelNames(cast(Kallsyms, kallsyms))


@pytest.fixture
def named(kallsyms: FakeKallsyms, names: KernelNames) -> Any:
    """Return a function that names a stack of these functions, innermost first."""
    def name(*functions: str | None, of: KernelNames = names, offset: int = 16) -> NamedStack:
        return of.stack(np.array([kallsyms.address(each, offset) for each in functions], np.uint64))

    return name


def functions(stack: NamedStack) -> list[str | None]:
    return [frame.function for frame in stack.frames]


# ---- what is left out ----


@pytest.mark.parametrize("inner", [
    # mm/slub.c and slab_common.c, from 5.10 to 7
    "kmalloc_noprof", "__kmalloc", "__kmalloc_noprof", "__kmalloc_node", "__kmalloc_node_noprof", "__kmalloc_cache_noprof",
    "__kmalloc_cache_node_noprof", "__kmalloc_track_caller", "__kmalloc_node_track_caller_noprof", "kmalloc_trace",
    "kmalloc_node_trace", "kmalloc_large", "kmalloc_large_node", "___kmalloc_large_node", "__kmalloc_large_node_noprof", "kmalloc_order",
    "kmalloc_order_trace", "kmalloc_array_noprof.constprop.0", "kzalloc_noprof.constprop.0", "kzalloc", "kvmalloc_node",
    "__kvmalloc_node_noprof", "krealloc", "krealloc_noprof", "krealloc_node_align_noprof", "__do_krealloc", "__do_kmalloc_node",
    "kmem_cache_alloc", "kmem_cache_alloc_noprof", "kmem_cache_alloc_node_noprof", "kmem_cache_alloc_lru_noprof",
    "kmem_cache_alloc_trace", "kmem_cache_alloc_bulk", "kmem_cache_alloc_bulk_noprof", "__kmem_cache_alloc_bulk",
    "__kmem_cache_alloc_node", "kmem_cache_alloc_from_sheaf_noprof", "slab_alloc_node", "___slab_alloc", "__slab_alloc.isra.0",
    "allocate_slab", "new_slab", "new_slab_objects", "alloc_slab_page", "alloc_single_from_new_slab", "kmalloc_nolock_noprof",
    # mm/page_alloc.c and mempolicy.c
    "__alloc_pages", "__alloc_pages_noprof", "__alloc_pages_nodemask", "__alloc_frozen_pages_noprof", "alloc_frozen_pages_noprof",
    "__alloc_pages_slowpath.constprop.0", "alloc_pages_mpol", "alloc_pages_noprof", "alloc_pages_current", "alloc_pages_vma",
    "alloc_pages_bulk_noprof", "__alloc_pages_bulk", "alloc_pages_bulk_mempolicy_noprof", "alloc_pages_exact_noprof",
    "alloc_page_interleave", "get_page_from_freelist", "__folio_alloc", "folio_alloc_noprof", "folio_alloc_mpol_noprof",
    "vma_alloc_folio_noprof", "__get_free_pages", "get_free_pages_noprof", "get_zeroed_page_noprof",
    # mm/vmalloc.c, mm/percpu.c
    "vmalloc", "vmalloc_noprof", "__vmalloc", "__vmalloc_node", "__vmalloc_node_range", "__vmalloc_node_range_noprof",
    "__vmalloc_area_node", "vm_area_alloc_pages", "vmalloc_user_noprof", "vmalloc_huge_node_noprof", "vzalloc", "vzalloc_noprof", "vzalloc_node_noprof",
    "__get_vm_area_node", "get_vm_area_caller", "alloc_vmap_area", "pcpu_alloc", "pcpu_alloc_noprof", "__alloc_percpu",
    "__alloc_percpu_gfp",
])
def test_allocators_own_functions_are_left_out(named: Any, inner: str) -> None:
    """A stack begins with who asked for the memory, with any of the allocators' functions below it."""
    assert functions(named(inner, "prepare_creds", "do_exit")) == ["prepare_creds", "do_exit"]


@pytest.mark.parametrize("outer", [
    "kmemdup", "kmemdup_noprof", "kmemdup_nul", "kstrdup", "kstrdup_const", "mempool_alloc_noprof", "mempool_alloc_slab",
    "mempool_kmalloc", "folio_alloc_buffers", "vm_area_alloc", "vm_area_dup", "sock_kmalloc", "bio_kmalloc", "devm_kmalloc",
    "bpf_map_kmalloc_node", "dma_alloc_pages", "bpf_map_alloc_percpu", "alloc_inode", "alloc_empty_file", "alloc_skb_with_frags",
    "filemap_alloc_folio", "shmem_alloc_folio", "alloc_pid", "alloc_buffer_head", "pte_alloc_one", "security_file_alloc", None,
])
def test_who_allocates_for_others_stays(named: Any, outer: str | None) -> None:
    """What only has such a name in its own, or copies for others, may be what a reader looks for."""
    assert functions(named("__kmalloc_noprof", outer, "do_exit")) == [outer, "do_exit"]


def test_a_layer_of_allocators_is_left_out_whole(named: Any) -> None:
    """All frames up to the last one of them in a row go; one further out, behind others, stays."""
    assert functions(named("___slab_alloc", "__slab_alloc.isra.0", "kmem_cache_alloc_noprof", "alloc_empty_file", "__kmalloc", "do_sys_open")) == [
        "alloc_empty_file", "__kmalloc", "do_sys_open"]


def test_something_is_left(named: Any) -> None:
    """A stack of allocators' functions only keeps its outermost one."""
    assert functions(named("___slab_alloc", "__kmalloc_noprof")) == ["__kmalloc_noprof"]
    assert functions(named()) == [] and named().serves is None


def test_the_tracing_is_left_out(named: Any) -> None:
    """Where the kernel's own walk began within the tracing, its frames go, a program without a name among them."""
    assert functions(named("bpf_prog_0123456789abcdef_kmalloc", "bpf_trace_run6", "__traceiter_kmalloc", "__kmalloc", "f")) == ["f"]
    assert functions(named(None, "bpf_trace_run6", "__kmalloc", "f")) == ["f"]


def test_what_other_programs_allocate_is_a_site(named: Any) -> None:
    """A program of somebody else that allocates, and its trampoline, hide nothing of the kernel's functions around it."""
    stack = named("__kmalloc_node_noprof", "bpf_local_storage_alloc", "bpf_task_storage_get", "bpf_prog_00112233aabbccdd_other",
                  "bpf_trace_run2", "f")
    assert [each for each in functions(stack) if not str(each).startswith("bpf_prog_") and each != "bpf_trace_run2"] == [
        "bpf_local_storage_alloc", "bpf_task_storage_get", "f"]
    assert functions(named("__kmalloc", "f", "bpf_trampoline_6442", "g")) == ["f", "g"]


def test_a_stack_ends_where_its_work_began(named: Any) -> None:
    """What an interrupt interrupted has no part in what it allocates; the entry itself stays."""
    assert functions(named("__alloc_skb", "handle_softirqs", "irq_exit_rcu", "sysvec_apic_timer_interrupt", "f")) == [
        "__alloc_skb", "handle_softirqs"]
    assert functions(named("f", "do_syscall_64", "entry_SYSCALL_64_after_hwframe")) == ["f", "do_syscall_64", "entry_SYSCALL_64_after_hwframe"]


def test_raw_stacks_are_left_alone(kallsyms: FakeKallsyms, named: Any) -> None:
    """--raw-stacks shows the allocators' frames, and still says what pages were taken for."""
    raw = KernelNames(cast(Kallsyms, kallsyms), raw=True)
    stack = named("__alloc_pages_noprof", "new_slab", "__kmalloc", "f", of=raw)
    assert functions(stack) == ["__alloc_pages_noprof", "new_slab", "__kmalloc", "f"] and stack.serves == "slab"


# ---- what pages serve ----


@pytest.mark.parametrize(("inner", "serves"), [
    (("__alloc_pages_noprof", "alloc_slab_page", "allocate_slab", "___slab_alloc", "__kmalloc"), "slab"),
    (("__alloc_pages", "new_slab", "___slab_alloc", "kmem_cache_alloc"), "slab"),
    (("alloc_pages_mpol", "___slab_alloc"), "slab"),
    (("__alloc_pages_noprof", "___kmalloc_large_node", "__kmalloc_large_noprof"), "slab"),
    (("__alloc_pages", "kmalloc_order", "kmalloc_order_trace"), "slab"),
    (("alloc_pages_bulk_noprof", "__vmalloc_node_range_noprof", "__vmalloc_node_noprof"), "vmalloc"),
    (("__alloc_pages", "__vmalloc_area_node", "__vmalloc_node_range", "vzalloc"), "vmalloc"),
    (("__alloc_pages_noprof", "alloc_pages_noprof"), None),
    (("__alloc_pages_noprof", "get_zeroed_page_noprof"), None),
    ((), None),
])
def test_what_pages_were_taken_for(named: Any, inner: tuple[str, ...], serves: str | None) -> None:
    """Pages that slabs and vmalloc take for themselves are told apart from those that somebody asked for."""
    assert named(*inner, "f", "g").serves == serves


def test_only_the_allocators_frames_say_it(named: Any) -> None:
    """A function further out that has such a name does not."""
    assert named("__alloc_pages_noprof", "f", "___slab_alloc").serves is None


# ---- who belongs together ----


def site(source: Source = Source.SLAB, **fields: Any) -> np.void:
    """Return what is said of one site."""
    made: np.void = np.zeros(1, KERNEL_SITE)[0]
    made["source"] = source
    for name, value in fields.items():
        made[name] = value
    return made


IDS = count(1)


def groups(names: KernelNames, kallsyms: FakeKallsyms, *rows: tuple[Sequence[tuple[str | None, int]], np.void]) -> list[int]:
    """Return what each site belongs to: stacks of functions with offsets, and what is said of them."""
    stacks = np.zeros(len(rows), records.stack_dtype(DEPTH))
    for at, (frames, _) in enumerate(rows):
        # The kernel side gives what differs in anything an id of its own.
        stacks["id"][at] = next(IDS)
        stacks["depth"][at] = len(frames)
        stacks["addresses"][at, : len(frames)] = [kallsyms.address(name, offset) for name, offset in frames]
        stacks["addresses"][at, len(frames) :] = 77 + at
    made = names.groups(stacks, np.array([row[1] for row in rows], KERNEL_SITE))
    assert made.dtype == np.uint64 and made.shape == (len(rows),)
    return [int(each) for each in made]


CALLS = (("__kmalloc", 9), ("f", 16), ("g", 16))


def test_the_same_site(names: KernelNames, kallsyms: FakeKallsyms) -> None:
    """Where functions further out call does not matter, nor does which of the allocators' functions served."""
    one, other = groups(names, kallsyms, (CALLS, site()), ((("__do_kmalloc_node", 5), ("__kmalloc_noprof", 11), ("f", 16), ("g", 64)), site()))
    assert one == other


@pytest.mark.parametrize(("calls", "about"), [
    ((("__kmalloc", 9), ("f", 32), ("g", 16)), {}), ((("__kmalloc", 9), ("f", 16)), {}), ((("__kmalloc", 9), ("f", 16), ("h", 16)), {}),
    (CALLS, {"gfp": 0x100}), (CALLS, {"node": 1}), (CALLS, {"source": Source.PERCPU}), (CALLS, {"name": b"dentry"}),
    ((("__kmalloc", 9), ("f", 16), (None, 16)), {}),
])
def test_other_sites(names: KernelNames, kallsyms: FakeKallsyms, calls: Any, about: dict[str, Any]) -> None:
    """Another place of the call, caller, cache, node, source or flags is another site."""
    one, other = groups(names, kallsyms, (CALLS, site()), (calls, site(**about)))
    assert one != other


def test_pages_are_told_apart_by_order(names: KernelNames, kallsyms: FakeKallsyms) -> None:
    """Order is one of pages; of slab objects the field is a size, which their cache stands for."""
    calls = (("__alloc_pages_noprof", 9), ("f", 16))
    one, other = groups(names, kallsyms, (calls, site(Source.PAGES, order=0)), (calls, site(Source.PAGES, order=3)))
    assert one != other
    same, again = groups(names, kallsyms, (CALLS, site(order=48, name=b"a")), (CALLS, site(order=64, name=b"a")))
    assert same == again


def test_pages_for_slabs_are_apart(names: KernelNames, kallsyms: FakeKallsyms) -> None:
    """What was taken for a slab is not what the same function took for itself."""
    one, other = groups(names, kallsyms, ((("__alloc_pages", 9), ("___slab_alloc", 9), ("f", 16)), site(Source.PAGES)),
                        ((("__alloc_pages", 9), ("f", 16)), site(Source.PAGES)))
    assert one != other


def test_a_compilers_addition_makes_no_other_site(names: KernelNames, kallsyms: FakeKallsyms) -> None:
    """A part of a function that the compiler moved away is that function."""
    one, other = groups(names, kallsyms, (CALLS, site()), ((("__kmalloc", 9), ("f", 16), ("g.cold", 5)), site()))
    assert one == other


def test_names_are_looked_up_once(names: KernelNames, kallsyms: FakeKallsyms) -> None:
    """An address leads to its function once in a trace."""
    groups(names, kallsyms, (CALLS, site()), (CALLS, site(gfp=1)))
    assert kallsyms.asked == 3
    assert names.function(kallsyms.address("f", 16)) == "f" and kallsyms.asked == 3


# ---- caches and flags ----


@pytest.mark.parametrize(("about", "cache"), [
    (site(Source.PAGES), None), (site(Source.VMALLOC, name=b"x"), None),
    (site(name=b"dentry"), "dentry"), (site(name=b"a\xff"), "a\\xff"),
    # kmalloc and kmalloc_node tell sizes, and flags say which kind.
    (site(order=192), "kmalloc-192"), (site(order=192, point=1), "kmalloc-192"), (site(order=192, gfp=0x400CC0), "kmalloc-cg-192"),
    (site(order=64, gfp=0x400CC0), "kmalloc-64"), (site(order=8192), None),
    # Before 6.1 the other two do not say the cache either: it is one of that size.
    (site(order=192, point=2), "dentry"), (site(order=48, point=3), "one of made_0, made_1, made_2, made_3 …"),
    (site(order=232, point=2), "one of also, filp"),
])
def test_caches(names: KernelNames, about: np.void, cache: str | None) -> None:
    """By the name that the kernel said, else by size and flags; several that cannot be told apart are all named."""
    assert names.cache(about) == cache


def test_flags_in_words(names: KernelNames) -> None:
    """As the kernel names them."""
    assert names.gfp(0xDC0) == ("GFP_KERNEL", "__GFP_ZERO") and names.gfp(0) == ()


def test_flags_without_tracefs(kallsyms: FakeKallsyms, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where nothing says what they mean, flags are one number; no flags are none."""
    def missing() -> None:
        raise CannotTrace("There is no tracefs.", "Mount it.")

    monkeypatch.setattr(kernel_names, "gfp_names", missing)
    names = KernelNames(cast(Kallsyms, kallsyms))
    assert names.gfp(0xCC0) == ("0xcc0",) and names.gfp(0) == ()


def test_caches_are_read_where_they_are_needed(names: KernelNames, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once, and only where the kernel did not say the name."""
    read = SimpleNamespace(count=0)

    def read_caches() -> tuple[SlabCache, ...]:
        read.count += 1
        return CACHES

    monkeypatch.setattr(kernel_names, "read_caches", read_caches)
    names.cache(site(name=b"dentry"))
    assert read.count == 0
    names.cache(site(order=64))
    names.cache(site(order=192))
    assert read.count == 1
