"""What the module holds is what the report says, to the byte, at the function that allocated it.

All sources are traced at once, so that each also shows that the others do not disturb it. Tests after which the kernel
may not say all that was freed use sizes of their own.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.kernels.conftest import Held, KernelTrace, Leaky, reported, sites_of

PAGE = os.sysconf("SC_PAGESIZE")

#: Commands of the module, the kind that it counts them as, the function that allocates, and the source that sees it.
WAYS = [
    pytest.param("kmalloc 1000 192", "kmalloc", "leaky_kmalloc", "slab", id="kmalloc"),
    pytest.param("kmalloc 1000 100", "kmalloc", "leaky_kmalloc", "slab", id="kmalloc-rounded-up"),
    pytest.param("kmalloc 20 20000", "kmalloc", "leaky_kmalloc", "slab", id="kmalloc-beyond-caches"),
    pytest.param("kmalloc_atomic 500 64", "kmalloc_atomic", "leaky_kmalloc_atomic", "slab", id="atomic"),
    pytest.param("kzalloc_node 500 1000", "kzalloc_node", "leaky_kzalloc_node", "slab", id="node"),
    pytest.param("krealloc 100 100 1000", "krealloc_moved", "leaky_krealloc", "slab", id="krealloc-moves"),
    pytest.param("kvmalloc 100 500", "kvmalloc", "leaky_kvmalloc", "slab", id="kvmalloc-small"),
    pytest.param("kvmalloc 3 10000000", "kvmalloc", "leaky_kvmalloc", "vmalloc", id="kvmalloc-large"),
    pytest.param("cache 1000", "cache", "leaky_cache_alloc", "slab", id="cache"),
    pytest.param("pages 100 0", "pages", "leaky_pages", "pages", id="page"),
    pytest.param("pages 50 3", "pages", "leaky_pages", "pages", id="pages"),
    pytest.param("get_free_pages 50 1", "get_free_pages", "leaky_get_free_pages", "pages", id="get-free-pages"),
    pytest.param("vmalloc 20 100000", "vmalloc", "leaky_vmalloc", "vmalloc", id="vmalloc"),
    pytest.param("vzalloc 20 5000", "vzalloc", "leaky_vzalloc", "vmalloc", id="vzalloc"),
]



def same(found: Held, truth: Held, source: str) -> bool:
    """Whether a report is exact. Of an area, some kernels tell the size in whole pages only."""
    return found == truth or (source == "vmalloc" and found == Held(truth.count, truth.taken, truth.taken))


@pytest.mark.parametrize(("command", "kind", "function", "source"), WAYS)
def test_what_is_held_is_reported_to_the_byte(
    leaky: Leaky, trace: KernelTrace, command: str, kind: str, function: str, source: str
) -> None:
    """Whatever a function of the kernel allocates and keeps is reported there: blocks, bytes taken, bytes asked for."""
    leaky.do(command)
    # Some of them are freed again, so that it is not only births that are counted.
    leaky.do(f"free {kind} {leaky.held(kind).count // 3}")
    truth = leaky.held(kind)
    report = trace.report()
    found = reported(report, function, source, truth)
    assert truth.count > 0 and same(found, truth, source), (found, truth)
    # Large blocks of the slab allocator are told twice by newer kernels: that is no free that was not seen.
    assert not any(site["kernel"]["unseen_frees"] for site in sites_of(report, function, source, truth))


def test_memory_per_processor_is_reported_for_all_processors(leaky: Leaky, trace: KernelTrace) -> None:
    """Memory per processor counts once for each; newer kernels add to what it takes the accounts of its owners."""
    leaky.do("percpu 100 128")
    leaky.do("free percpu 30")
    truth = leaky.held("percpu")
    report = trace.report()
    found = reported(report, "leaky_percpu", "percpu", truth)
    assert (found.count, found.requested) == (truth.count, truth.requested)
    # pcpu_obj_full_size() in mm/percpu-internal.h: one pointer for every 4 bytes of one processor's part.
    assert found.taken in (truth.taken, truth.taken + truth.count * 128 // 4 * 8)


def test_all_sources_at_once_keep_apart(leaky: Leaky, trace: KernelTrace) -> None:
    """Traced together, each source tells its own memory, and the pages below an area or a cache are not its sites."""
    for command in ("kmalloc 300 192", "cache 300", "pages 20 2", "percpu 20 64", "vmalloc 10 50000"):
        leaky.do(command)
    truth = {kind: leaky.held(kind) for kind in ("kmalloc", "cache", "pages", "percpu", "vmalloc")}
    report = trace.report()
    where = {"kmalloc": ("leaky_kmalloc", "slab"), "cache": ("leaky_cache_alloc", "slab"),
             "pages": ("leaky_pages", "pages"), "vmalloc": ("leaky_vmalloc", "vmalloc")}  # fmt: skip
    for kind, (function, source) in where.items():
        found = reported(report, function, source, truth[kind])
        assert same(found, truth[kind], source), (kind, found, truth[kind])
    assert reported(report, "leaky_percpu", "percpu", truth["percpu"]).count == truth["percpu"].count


@pytest.mark.parametrize("context", ["softirq", "hardirq"])
@pytest.mark.parametrize(("command", "kind", "function", "source"), [
    pytest.param("kmalloc 600 192", "kmalloc", "leaky_kmalloc", "slab", id="kmalloc"),
    pytest.param("cache 600", "cache", "leaky_cache_alloc", "slab", id="cache"),
    pytest.param("pages 60 1", "pages", "leaky_pages", "pages", id="pages"),
    pytest.param("percpu 60 64", "percpu", "leaky_percpu", "percpu", id="percpu"),
])  # fmt: skip
def test_what_interrupts_free_is_seen(
    leaky: Leaky, trace: KernelTrace, command: str, kind: str, function: str, source: str, context: str
) -> None:
    """A block that a soft or a hard interrupt frees is gone from the site of the process that allocated it."""
    before = leaky.freed_in(context)
    leaky.do(command)
    freed = leaky.held(kind).count - 20
    leaky.do(f"free {kind} {freed} {context}")
    truth = leaky.held(kind)
    report = trace.report()
    assert leaky.freed_in(context) - before == freed
    assert reported(report, function, source, truth).count == truth.count == 20


def test_krealloc_that_moves_is_one_death_and_one_birth(leaky: Leaky, trace: KernelTrace) -> None:
    """A block that krealloc moved is no longer the first function's, and its old memory is not counted."""
    leaky.do("krealloc 200 100 1000")
    truth = leaky.held("krealloc_moved")
    assert truth.count == 200
    report = trace.report()
    assert reported(report, "leaky_before_krealloc", "slab", Held(1, 128, 100)) == Held()
    assert reported(report, "leaky_krealloc", "slab", truth) == truth


@pytest.mark.parametrize(("before", "after"), [(100, 120), (1000, 600)], ids=["grows", "shrinks"])
def test_krealloc_in_place_changes_nothing(leaky: Leaky, trace: KernelTrace, before: int, after: int) -> None:
    """A block that krealloc left where it was stays with the function that allocated it: it takes what it took."""
    leaky.do(f"krealloc 200 {before} {after}")
    truth = leaky.held("krealloc_stayed")
    assert truth.count == 200
    report = trace.report()
    assert reported(report, "leaky_before_krealloc", "slab", truth) == Held(truth.count, truth.taken, 200 * before)
    assert reported(report, "leaky_krealloc", "slab", truth) == Held()


def test_a_block_of_pages_that_is_freed_in_parts_shrinks(leaky: Leaky, trace: KernelTrace) -> None:
    """Of blocks of pages that were split, and freed page by page, the pages that stay are reported, and no more."""
    leaky.do("split 30 3 2")
    truth = leaky.held("split")
    report = trace.report()
    assert truth.taken == 30 * 2 * PAGE
    assert reported(report, "leaky_split_pages", "pages", truth) == truth


def test_a_block_of_pages_that_is_freed_in_parts_is_gone_with_the_last(leaky: Leaky, trace: KernelTrace) -> None:
    """Once the last of its pages is freed, nothing is left of a block that was split."""
    leaky.do("split 30 3 5")
    leaky.do("free split")
    report = trace.report()
    assert not any(frame["function"] == "leaky_split_pages" for site in report["sites"] for frame in site["frames"])


def test_pages_given_many_at_a_time(leaky: Leaky, trace: KernelTrace) -> None:
    """Pages that the kernel gave many at a time and that are freed one by one are right, or not counted at all."""
    leaky.do("pages_bulk 200")
    leaky.do("free pages_bulk 50")
    truth = leaky.held("pages_bulk")
    report = trace.report()
    # They pass no tracepoint (alloc_pages_bulk in mm/page_alloc.c), but for those that it cannot give so, one by one.
    found = reported(report, "leaky_pages_bulk", "pages", truth)
    assert found.taken == found.requested == found.count * PAGE and found.count <= truth.count


def test_objects_given_many_at_a_time(leaky: Leaky, trace: KernelTrace) -> None:
    """Objects that a cache gave many at a time are right, or not counted at all, and freeing them harms no figure."""
    leaky.do("cache_bulk 300")
    leaky.do("free cache_bulk 100")
    truth = leaky.held("cache_bulk")
    report = trace.report()
    assert reported(report, "leaky_cache_bulk", "slab", truth) in (truth, Held())


@pytest.mark.parametrize(("command", "kind", "function"), [
    pytest.param("cache 300", "cache", "leaky_cache_alloc", id="cache"),
    pytest.param("kmalloc 300 90", "kmalloc", "leaky_kmalloc", id="kmalloc"),
])  # fmt: skip
def test_objects_freed_many_at_a_time_are_seen_or_said(
    leaky: Leaky, trace: KernelTrace, command: str, kind: str, function: str
) -> None:
    """Objects that are freed many at a time are gone, or the report's losses say that such frees were not all seen."""
    leaky.do(command)
    leaky.do(f"free {kind} 200 bulk")
    truth = leaky.held(kind)
    report = trace.report()
    found = reported(report, function, "slab", truth)
    said = report["losses"].get("bulk")
    assert found == truth or (truth.count < found.count <= 300 and said), (found, report["losses"])


def test_what_is_freed_after_readers_is_no_leak(leaky: Leaky, trace: KernelTrace) -> None:
    """A block that was given to kfree_rcu is gone, wherever in it the head for that lies."""
    leaky.do("kmalloc 300 50")
    leaky.do("free kmalloc 250 rcu")
    truth = leaky.held("kmalloc")
    report = trace.report()
    assert reported(report, "leaky_kmalloc", "slab", truth) == truth


def test_blocks_from_before_are_never_negative(leaky: Leaky, start_trace: Callable[[], KernelTrace]) -> None:
    """Blocks that were allocated before the trace and are freed during it change no figure of any site."""
    for kind in ("kmalloc 500 192", "cache 500", "pages 50 2", "percpu 50 64", "vmalloc 10 100000", "split 10 3 4"):
        leaky.do(kind)
    trace = start_trace()
    leaky.do("free all")
    leaky.do("kmalloc 10 192")
    truth = leaky.held("kmalloc")
    report = trace.stop()
    assert reported(report, "leaky_kmalloc", "slab", truth) == truth
    allocators = {"leaky_cache_alloc", "leaky_pages", "leaky_percpu", "leaky_vmalloc", "leaky_split_pages"}
    assert not any(frame["function"] in allocators for site in report["sites"] for frame in site["frames"])
    assert all(site["bytes"] >= 0 and site["count"] >= 0 for site in report["sites"])
    assert report["totals"]["live_bytes"] >= 0 and report["totals"]["live_count"] >= 0


def only_site(report: dict[str, Any], function: str, source: str, block: Held) -> dict[str, Any]:
    """Return what is said of the kernel at the one site of a function of the module."""
    sites = sites_of(report, function, source, block)
    assert len(sites) == 1
    found: dict[str, Any] = sites[0]["kernel"]
    return found


def test_a_site_says_what_it_is(leaky: Leaky, trace: KernelTrace) -> None:
    """A site names its flags, its order of pages, and the process that holds it, with all its bytes."""
    leaky.do("kmalloc 50 192")
    leaky.do("kmalloc_atomic 50 192")
    leaky.do("pages 10 2")
    held = leaky.held("kmalloc")
    report = trace.report()
    slab = only_site(report, "leaky_kmalloc", "slab", held)
    assert slab["gfp"] == ["GFP_KERNEL"] and slab["order"] is None
    assert only_site(report, "leaky_kmalloc_atomic", "slab", held)["gfp"] == ["GFP_ATOMIC"]
    pages = only_site(report, "leaky_pages", "pages", Held(1, PAGE << 2, PAGE << 2))
    assert pages["gfp"] == ["GFP_KERNEL"] and pages["order"] == 2 and pages["cache"] is None
    assert slab["processes"] == [{"pid": os.getpid(), "comm": Path("/proc/self/comm").read_text().strip(),
                                  "bytes": held.taken, "count": held.count}]  # fmt: skip


def test_a_cache_is_named_where_the_kernel_says_it(leaky: Leaky, trace: KernelTrace) -> None:
    """A site's cache has the name that the kernel knows it by, wherever the kernel tells of the cache."""
    leaky.do("cache 50")
    held = leaky.held("cache")
    report = trace.report()
    assert only_site(report, "leaky_cache_alloc", "slab", held)["cache"] in ("leaky_cache", None)
