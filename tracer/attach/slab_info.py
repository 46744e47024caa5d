"""The names of the kernel's slab caches, by the sizes that its events tell.

Source: Documentation/ABI/testing/sysfs-kernel-slab, slabinfo(5); the choice among the kmalloc caches is kmalloc_type()
in include/linux/slab.h.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tracer.errors import CannotTrace

SLAB = Path("/sys/kernel/slab")
SLABINFO = Path("/proc/slabinfo")

#: Kinds of kmalloc caches by the flag that leads to them: the first decides that is set and that the kernel has.
_KINDS = (("__GFP_DMA", "dma-kmalloc"), ("__GFP_RECLAIMABLE", "kmalloc-rcl"), ("__GFP_ACCOUNT", "kmalloc-cg"))
_PLAIN = "kmalloc"
#: Sizes that are no powers of two; and the largest and smallest one, for pages of 4 KiB, in bytes.
_BETWEEN, _LEAST, _MOST = (96, 192), 8, 8192
_SLABINFO_LINE = re.compile(rb"^(?P<name>\S+) +\d+ +\d+ +(?P<size>\d+) +\d+ +\d+ : tunables ", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class SlabCache:
    """One cache as the kernel keeps it. names: all that it goes by, sorted; several where the kernel merged caches.

    object_size: bytes an object may use (bytes_req of kmem:kmem_cache_alloc); of merged caches, the largest asked for.
    slot_size: bytes an object takes (bytes_alloc), with alignment and what debugging adds.
    """

    names: tuple[str, ...]
    object_size: int
    slot_size: int


def read_caches(slab: Path = SLAB, slabinfo: Path = SLABINFO) -> tuple[SlabCache, ...]:
    """Return the caches of this kernel, ordered by their first name.

    /proc/slabinfo, which is read where sysfs tells nothing, knows neither object sizes (they equal the slot sizes then)
    nor the names that were merged. Raises CannotTrace if neither can be read.
    """
    found = _in_sysfs(slab)
    if not found:
        try:
            found = list(parse_slabinfo(slabinfo.read_bytes()))
        except OSError as problem:
            raise CannotTrace(f"Neither {slab} nor {slabinfo} tells the kernel's slab caches ({problem.strerror}).",
                              "Run leaktrace with sudo, on a kernel built with CONFIG_SLUB_DEBUG.") from None
    return tuple(sorted(found, key=lambda cache: cache.names))


def parse_slabinfo(data: bytes) -> Iterator[SlabCache]:
    """Give the caches in the bytes of /proc/slabinfo; other lines are passed over."""
    for match in _SLABINFO_LINE.finditer(data):
        size = int(match["size"])
        yield SlabCache((match["name"].decode(errors="replace"),), size, size)


def caches_of_size(object_size: int, caches: Sequence[SlabCache], slot_size: int | None = None) -> tuple[str, ...]:
    """Return the names of the caches whose objects have a size, in bytes: several if it does not tell them apart.

    slot_size: narrows them to those whose objects take as much. kmalloc's own caches are not among them.
    """
    return tuple(sorted(
        name for cache in caches
        if cache.object_size == object_size and slot_size in (None, cache.slot_size)
        for name in cache.names if not _is_kmalloc(name)))


def kmalloc_cache(bytes_alloc: int, flags: int = 0, gfp: Sequence[tuple[int, str]] = (),
                  caches: Sequence[SlabCache] = ()) -> str | None:
    """Return the kmalloc cache that served an allocation, such as kmalloc-64 or kmalloc-cg-1k; None if pages did.

    bytes_alloc: as kmem:kmalloc tells it. flags, gfp: the gfp flags, and the kernel's table of them; plain without.
    caches: what this kernel has; without them, the sizes are those of 4 KiB pages and every kind is taken to exist.
    Caches that kmalloc chooses at random among equals (kmalloc-rnd-01-64), or that a subsystem has for itself
    (msg_msg-64), cannot be told from the plain one by what the event says, and go by its name.
    """
    bits = {name: mask for mask, name in gfp}
    kinds = [kind for name, kind in _KINDS if flags & bits.get(name, 0)]
    if not caches:
        size = _size_class(bytes_alloc)
        return f"{(*kinds, _PLAIN)[0]}-{_short(size)}" if size else None
    fitting = {name for cache in caches if cache.slot_size == bytes_alloc for name in cache.names}
    for kind in (*kinds, _PLAIN):
        for name in sorted(fitting):
            if re.fullmatch(rf"{kind}-\d+[kM]?", name):
                return name
    return None


def _in_sysfs(slab: Path) -> list[SlabCache]:
    """Return the caches below a folder with one folder for each, and links to it by other names; [] without it."""
    names: dict[str, list[str]] = {}
    try:
        entries = sorted(slab.iterdir())
    except OSError:
        return []
    for entry in entries:
        if entry.is_symlink():
            names.setdefault(entry.readlink().name, []).append(entry.name)
        else:
            names.setdefault(entry.name, [])
    found = []
    for folder, others in names.items():
        object_size, slot_size = _number(slab / folder / "object_size"), _number(slab / folder / "slab_size")
        # A cache may go while the folder is read. A name that begins with a colon was made for merged ones.
        own = [] if folder.startswith(":") and others else [folder]
        if object_size is not None and slot_size is not None:
            found.append(SlabCache(tuple(sorted(own + others)), object_size, slot_size))
    return found


def _number(path: Path) -> int | None:
    try:
        return int(path.read_bytes())
    except (OSError, ValueError):
        return None


def _is_kmalloc(name: str) -> bool:
    return re.fullmatch(r"(dma-)?kmalloc(-[a-z]+)?(-\d\d)?-\d+[kM]?", name) is not None


def _size_class(size: int) -> int | None:
    """Return the size of the smallest kmalloc cache that has room for size bytes."""
    powers = [1 << bit for bit in range(_LEAST.bit_length() - 1, _MOST.bit_length())]
    return min((each for each in (*powers, *_BETWEEN) if each >= size), default=None)


def _short(size: int) -> str:
    return f"{size >> 10}k" if size >= 1024 else str(size)
