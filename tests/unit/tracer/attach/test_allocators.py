"""The table of allocator functions: complete, encoded as the C reads it, and found in real allocators."""

from __future__ import annotations

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from symbolizer.elf import Elf
from tracer.attach.allocators import (
    C_FUNCTIONS,
    CXX_FUNCTIONS,
    FLAG_NESTS,
    FLAG_THROWS,
    JEMALLOC_FUNCTIONS,
    NO_ARGUMENT,
    Allocator,
    EntryPoint,
    Family,
    FoundAllocator,
    find_allocator,
)
from tracer.records import Action

PROBE_H = (Path(__file__).parents[4] / "bpf" / "probe.h").read_text()
LIBRARIES = Path("/usr/lib/x86_64-linux-gnu")
#: Debian's package of each allocator, and its file; scripts/test installs them.
FILES = {
    Allocator.GLIBC: ("libc6", LIBRARIES / "libc.so.6"),
    Allocator.MUSL: ("musl", Path("/usr/lib/x86_64-linux-musl/libc.so")),
    Allocator.JEMALLOC: ("libjemalloc2", LIBRARIES / "libjemalloc.so.2"),
    Allocator.TCMALLOC: ("libtcmalloc-minimal4", LIBRARIES / "libtcmalloc_minimal.so.4"),
    Allocator.MIMALLOC: ("libmimalloc2.0", LIBRARIES / "libmimalloc.so.2.0"),
}


def opened(path: Path, package: str) -> Elf:
    if not path.exists():
        assert "CI" not in os.environ, f"{package} is not installed"
        pytest.skip(f"{package} is not installed")
    return Elf.parse(path.read_bytes())


def found_in(kind: Allocator) -> FoundAllocator:
    package, path = FILES[kind]
    found = find_allocator(opened(path, package))
    assert found is not None
    return found


def field(name: str, probe: int) -> int:
    """Read a field as the macro of bpf/probe.h does."""
    macro = re.search(rf"#define {name}\(probe\) (?:\(\(u32\)\(\(?probe\)(?: >> (\d+)\))? |"
                      rf"\(\(u32\)\(probe\) )& (0x[0-9a-f]+)\)", PROBE_H)
    assert macro, name
    return probe >> int(macro[1] or 0) & int(macro[2], 16)


def test_encoding_is_what_the_header_decodes() -> None:
    """Each field, distinct from all others, comes out of its macro of bpf/probe.h."""
    entry = EntryPoint("f", Action.RESIZE, Family.JEMALLOC_X, size=1, count=2, pointer=4, result=5, throws=True, nests=True)
    probe = entry.encode(0xABCD)
    values = {name: field(f"PROBE_{name}", probe)
              for name in ("ACTION", "SIZE", "COUNT", "POINTER", "RESULT", "FAMILY", "FLAGS", "SLOT")}
    assert values == {"ACTION": 3, "SIZE": 1, "COUNT": 2, "POINTER": 4, "RESULT": 5, "FAMILY": 4,
                      "FLAGS": FLAG_THROWS | FLAG_NESTS, "SLOT": 0xABCD}
    assert probe < 1 << 64


def test_what_is_left_out_is_no_argument() -> None:
    """A field that an entry point does not have is NO_ARGUMENT of bpf/probe.h, and its flags are 0."""
    probe = EntryPoint("free", Action.FREE).encode(0)
    assert f"#define NO_ARGUMENT {NO_ARGUMENT}\n" in PROBE_H
    assert {field(f"PROBE_{name}", probe) for name in ("SIZE", "COUNT", "POINTER", "RESULT")} == {NO_ARGUMENT}
    assert field("PROBE_FLAGS", probe) == field("PROBE_SLOT", probe) == 0


def test_flags_are_those_of_the_header() -> None:
    """Both sides give the flags the same bits."""
    assert f"#define PROBE_THROWS {FLAG_THROWS}\n" in PROBE_H
    assert f"#define PROBE_NESTS {FLAG_NESTS}\n" in PROBE_H


def test_the_c_functions() -> None:
    """Every function of C, POSIX and glibc that gives or takes memory, with its arguments as its manual page has them."""
    table = {entry.name: (entry.action, entry.size, entry.count, entry.pointer, entry.result) for entry in C_FUNCTIONS}
    n = NO_ARGUMENT
    assert table == {
        "malloc": (Action.ALLOCATE, 0, n, n, n),
        "calloc": (Action.ALLOCATE, 1, 0, n, n),
        "realloc": (Action.REALLOCATE, 1, n, 0, n),
        "reallocarray": (Action.REALLOCATE, 2, 1, 0, n),
        "posix_memalign": (Action.ALLOCATE, 2, n, n, 0),
        "aligned_alloc": (Action.ALLOCATE, 1, n, n, n),
        "memalign": (Action.ALLOCATE, 1, n, n, n),
        "valloc": (Action.ALLOCATE, 0, n, n, n),
        "pvalloc": (Action.ALLOCATE, 0, n, n, n),
        **{name: (Action.FREE, n, n, 0, n) for name in ("free", "cfree", "free_sized", "free_aligned_sized")},
    }
    assert not any(entry.throws for entry in C_FUNCTIONS + JEMALLOC_FUNCTIONS)


@pytest.mark.parametrize(("letters", "family"), [(("nw", "dl"), Family.NEW), (("na", "da"), Family.NEW_ARRAY)])
def test_the_operators(letters: tuple[str, str], family: Family) -> None:
    """All four forms of operator new and six of delete; those without nothrow may throw."""
    new, delete = letters
    nothrow, aligned = "RKSt9nothrow_t", "St11align_val_t"
    mine = {entry.name: entry for entry in CXX_FUNCTIONS if entry.family is family}
    throwing = {f"_Z{new}m", f"_Z{new}m{aligned}"}
    forms = throwing | {name + nothrow for name in throwing}
    frees = {f"_Z{delete}Pv{form}" for form in ("", "m", nothrow, aligned, "m" + aligned, aligned + nothrow)}
    assert set(mine) == forms | frees
    assert {name for name, entry in mine.items() if entry.throws} == throwing
    assert all(entry.action is Action.ALLOCATE and entry.arguments == {0} and entry.returns
               for name, entry in mine.items() if name in forms)
    assert all(entry.action is Action.FREE and entry.pointer == 0 and not entry.returns
               for name, entry in mine.items() if name in frees)


def test_no_name_is_listed_twice() -> None:
    """Each function has one row."""
    names = Counter(entry.name for entry in C_FUNCTIONS + JEMALLOC_FUNCTIONS + CXX_FUNCTIONS)
    assert max(names.values()) == 1


def test_arguments_are_the_registers_that_are_read() -> None:
    """What a probe reads must still be there where it sits."""
    assert EntryPoint("f", Action.ALLOCATE, size=2, count=1, result=0).arguments == {0, 1, 2}
    assert EntryPoint("f", Action.ALLOCATE, size=1).arguments == {1}


@pytest.mark.parametrize("kind", FILES)
def test_each_allocator_is_known(kind: Allocator) -> None:
    """A real allocator is told by name, with malloc, calloc, realloc, posix_memalign and free at their own addresses."""
    found = found_in(kind)
    package, path = FILES[kind]
    assert found.kind is kind
    addresses = {function.symbol: function.vaddr for function in found.functions}
    names = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "free"]
    assert {name: addresses[name] for name in names} == opened(path, package).symbols().defined(names)


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind is not Allocator.MUSL])
def test_aliases_count_once(kind: Allocator) -> None:
    """Two names of one address get one probe, or each call would count twice."""
    vaddrs = [function.vaddr for function in found_in(kind).functions]
    assert len(vaddrs) == len(set(vaddrs))


def test_the_plain_name_stands_for_its_aliases() -> None:
    """tcmalloc's malloc is also tc_malloc, and its free also operator delete: both go by C's name."""
    symbols = {function.symbol for function in found_in(Allocator.TCMALLOC).functions}
    assert {"malloc", "free", "_Znwm"} <= symbols
    assert not symbols & {"tc_malloc", "tc_free", "_ZdlPv", "memalign"}


def test_jemalloc_has_its_own_interface() -> None:
    """mallocx and its kin are found where jemalloc is."""
    assert {entry.name for entry in JEMALLOC_FUNCTIONS} <= {
        function.symbol for function in found_in(Allocator.JEMALLOC).functions}


def test_nesting_of_unknown_and_musl_allocators() -> None:
    """musl's calloc calls malloc, so a call that is not sampled must still be noted; glibc's does not."""
    nests = {kind: {function.symbol: function.entry.nests for function in found_in(kind).functions}
             for kind in (Allocator.MUSL, Allocator.GLIBC)}
    assert nests[Allocator.MUSL]["calloc"] and not nests[Allocator.MUSL]["malloc"]
    assert not nests[Allocator.GLIBC]["calloc"] and nests[Allocator.GLIBC]["posix_memalign"]


def test_libstdcxx_is_no_allocator() -> None:
    """It defines operator new on top of somebody's malloc: only a user who names it gets it."""
    elf = opened(LIBRARIES / "libstdc++.so.6", "libstdc++6")
    assert find_allocator(elf) is None
    named = find_allocator(elf, required=False)
    assert named is not None and named.kind is Allocator.OTHER
    assert {function.symbol for function in named.functions} == {entry.name for entry in CXX_FUNCTIONS}
