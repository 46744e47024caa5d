"""Names of slab caches by the sizes in the kernel's events."""

from __future__ import annotations

from pathlib import Path

import pytest

from tracer.attach.slab_info import SlabCache, caches_of_size, kmalloc_cache, parse_slabinfo, read_caches
from tracer.errors import CannotTrace

SLABINFO = b"""slabinfo - version: 2.1
# name            <active_objs> <num_objs> <objsize> <objperslab> <pagesperslab> : tunables <limit> <batchcount> <sharedfactor> : slabdata <active_slabs> <num_slabs> <sharedavail>
made_inode            12     30   1128   14    4 : tunables    0    0    0 : slabdata      3      3      0
kmalloc-64          100    128     64   64    1 : tunables    0    0    0 : slabdata      2      2      0
"""
DMA, RECLAIMABLE, ACCOUNT = 1, 0x10, 0x400000
GFP = ((0x400CC0, "GFP_KERNEL_ACCOUNT"), (0xCC0, "GFP_KERNEL"), (DMA, "GFP_DMA"), (DMA, "__GFP_DMA"),
       (RECLAIMABLE, "__GFP_RECLAIMABLE"), (ACCOUNT, "__GFP_ACCOUNT"))


def add(slab: Path, name: str, object_size: int, slot_size: int) -> None:
    (slab / name).mkdir(parents=True)
    (slab / name / "object_size").write_text(f"{object_size}\n")
    (slab / name / "slab_size").write_text(f"{slot_size}\n")


@pytest.fixture
def slab(tmp_path: Path) -> Path:
    root = tmp_path / "slab"
    add(root, "made_inode", 1120, 1128)
    add(root, ":0000048", 48, 48)
    add(root, "kmalloc-64", 64, 64)
    add(root, "kmalloc-cg-64", 64, 64)
    add(root, "kmalloc-rnd-07-64", 64, 64)
    add(root, "msg_msg-64", 64, 64)
    add(root, "made_node", 64, 64)
    (root / "vma").symlink_to(":0000048")
    (root / "anon").symlink_to(":0000048")
    return root


def test_merged_caches_have_several_names(slab: Path) -> None:
    """A cache that was merged goes by the names that link to it, and not by the one that the kernel made up."""
    caches = read_caches(slab)
    assert SlabCache(("anon", "vma"), 48, 48) in caches
    assert caches_of_size(48, caches) == ("anon", "vma")
    assert SlabCache(("made_inode",), 1120, 1128) in caches


def test_caches_are_found_by_size(slab: Path) -> None:
    """The size of an object finds its caches, that of its slot tells them apart, and kmalloc's own are left out."""
    caches = read_caches(slab)
    assert caches_of_size(1120, caches) == ("made_inode",)
    assert caches_of_size(1120, caches, slot_size=1152) == ()
    assert caches_of_size(64, caches) == ("made_node", "msg_msg-64")
    assert caches_of_size(1, caches) == ()


def test_a_cache_that_goes_is_passed_over(slab: Path) -> None:
    """A folder without sizes, as of a cache that is being removed, is no error."""
    (slab / "going").mkdir()
    (slab / "made_node" / "slab_size").write_text("")
    names = {name for cache in read_caches(slab) for name in cache.names}
    assert not names & {"going", "made_node"} and "made_inode" in names


def test_slabinfo_is_read_where_sysfs_tells_nothing(tmp_path: Path) -> None:
    """Without the folder, names and slot sizes come from slabinfo; without both there is an error that names them."""
    table = tmp_path / "slabinfo"
    table.write_bytes(SLABINFO)
    assert read_caches(tmp_path / "slab", table) == (
        SlabCache(("kmalloc-64",), 64, 64), SlabCache(("made_inode",), 1128, 1128))
    with pytest.raises(CannotTrace, match="slabinfo"):
        read_caches(tmp_path / "slab", tmp_path / "absent")


@pytest.mark.parametrize("data", [b"", b"\x00" * 100, b"name 1 2 3\n", SLABINFO.splitlines()[1]])
def test_other_text_has_no_caches(data: bytes) -> None:
    """What is no line of slabinfo gives no cache."""
    assert list(parse_slabinfo(data)) == []


@pytest.mark.parametrize(("size", "flags", "name"), [
    (8, 0, "kmalloc-8"), (64, 0, "kmalloc-64"), (96, 0, "kmalloc-96"), (192, 0, "kmalloc-192"), (1024, 0, "kmalloc-1k"),
    (8192, 0, "kmalloc-8k"), (16384, 0, None), (65, 0, "kmalloc-96"), (129, 0, "kmalloc-192"), (193, 0, "kmalloc-256"),
    (64, ACCOUNT, "kmalloc-cg-64"), (64, RECLAIMABLE, "kmalloc-rcl-64"), (64, DMA, "dma-kmalloc-64"),
    (64, ACCOUNT | RECLAIMABLE, "kmalloc-rcl-64"), (64, ACCOUNT | RECLAIMABLE | DMA, "dma-kmalloc-64"),
])
def test_kmalloc_caches_follow_size_and_flags(size: int, flags: int, name: str | None) -> None:
    """The size class and, in the kernel's order, the flag that decides make the name; what is larger comes as pages."""
    assert kmalloc_cache(size, flags, GFP) == name


def test_without_the_table_of_flags_the_plain_name_is_given() -> None:
    """Bits are not guessed: where the kernel does not say what they mean, the cache goes by its plain name."""
    assert kmalloc_cache(64, ACCOUNT) == "kmalloc-64"


def test_only_caches_that_exist_are_named(slab: Path) -> None:
    """A kind that this kernel does not have is the plain one, slots widened by debugging keep their name, and pages have none."""
    caches = read_caches(slab)
    assert kmalloc_cache(64, ACCOUNT, GFP, caches) == "kmalloc-cg-64"
    assert kmalloc_cache(64, RECLAIMABLE, GFP, caches) == "kmalloc-64"
    assert kmalloc_cache(64, DMA | ACCOUNT, GFP, caches) == "kmalloc-cg-64"
    assert kmalloc_cache(4096, 0, GFP, caches) is None
    add(slab, "kmalloc-128", 128, 232)
    assert kmalloc_cache(232, 0, GFP, read_caches(slab)) == "kmalloc-128"
