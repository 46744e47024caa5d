"""--check-frees: which functions are probed for it beyond the rest, and what may be said of frees where they are.

No block may be accused wrongly, so what leaves doubt is not said: a program's own operator new may be inlined where
it is used, and then its blocks are malloc's to the probes, though operator delete frees them rightly.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from symbolizer.elf import Elf
from tracer.attach.allocators import (
    C_FUNCTIONS,
    CXX_FUNCTIONS,
    JEMALLOC_FUNCTIONS,
    OWN_PREFIXES,
    Allocator,
    Family,
    FoundAllocator,
    FoundFunction,
)
from tracer.records import Check

#: Files that hold the C++ runtime's operators.
RUNTIMES = ("libstdc++.so", "libc++.so", "libc++abi.so", "libsupc++.so")
#: Where a program has them in itself: names of the source or object that operator new is from (libstdc++, libc++abi),
#: which stand in a symbol table that was not stripped. The linker does not take it where the program has its own. The
#: other operators leave no such name; nobody replaces them and not this one.
RUNTIME_SOURCES = (b"new_op.cc", b"new_op.o", b"stdlib_new_delete.cpp", b"stdlib_new_delete.cpp.o")
#: Every function of these that gives or takes blocks is in the tables; mimalloc's heaps, for one, are not.
CLOSED = (Allocator.GLIBC, Allocator.MUSL, Allocator.JEMALLOC, Allocator.TCMALLOC, Allocator.RUNTIME)
#: What nobody of these gave was given by nobody. Others keep freed blocks to themselves, or have more ways to give.
ONLY_GIVERS = (Allocator.GLIBC, Allocator.MUSL, Allocator.RUNTIME)
ALL = Check.FAMILIES | Check.DOUBLE | Check.UNKNOWN


def operators_in(elf: Elf, path: str) -> FoundAllocator | None:
    """Return the operators new and delete of a file that is no allocator itself, None if it has none."""
    addresses = elf.symbols().defined([entry.name for entry in CXX_FUNCTIONS])
    functions: dict[int, FoundFunction] = {}
    for entry in CXX_FUNCTIONS:
        vaddr = addresses.get(entry.name)
        if vaddr is not None and vaddr not in functions:
            functions[vaddr] = FoundFunction(entry, entry.name, vaddr)
    if not functions:
        return None
    runtime = path.rpartition("/")[2].startswith(RUNTIMES) or has_runtime_operators(elf)
    kind = Allocator.RUNTIME if runtime else Allocator.OPERATORS
    return FoundAllocator(kind, tuple(functions.values()))


def has_runtime_operators(elf: Elf) -> bool:
    """Return whether the operators of a file are those that a C++ runtime brings."""
    return bool(elf.symbols().defined(["_Znwm"])) and any(
        elf.data.find(b"\0" + name + b"\0") >= 0 for name in RUNTIME_SOURCES)


def with_families(elf: Elf, found: FoundAllocator) -> FoundAllocator:
    """Return the functions of a file as --check-frees needs them: families that are told apart for sure."""
    families = _families(elf)
    known = found.kind in CLOSED and (found.kind is not Allocator.GLIBC or not _has_own_operators(elf, found))
    functions = []
    for function in found.functions:
        entry = function.entry
        if len(families.get(function.vaddr, ())) > 1:
            entry = replace(entry, family=Family.SHARED)
        cxx = entry.name.startswith("_Z")
        closed = found.kind in CLOSED and (known or not cxx)
        # Where operators are probed too, nothing but them tells whether they build on malloc.
        functions.append(replace(function, entry=replace(entry, closed=closed, nests=entry.nests or cxx)))
    return FoundAllocator(found.kind, tuple(functions))


def checks_with(elf: Elf, found: FoundAllocator, skipped: Iterable[tuple[str, str]]) -> Check:
    """Return what may be said of frees in a process that has this allocator; skipped: functions without a probe."""
    skipped = tuple(skipped)
    if any(not symbol.startswith("_Z") for symbol, _ in skipped):
        return Check.NOTHING
    checks = ALL if found.kind in ONLY_GIVERS else Check.FAMILIES | Check.DOUBLE
    if skipped or found.kind is Allocator.OPERATORS or _has_own_operators(elf, found):
        checks &= Check.DOUBLE
    return checks


def _has_own_operators(elf: Elf, found: FoundAllocator) -> bool:
    """Return whether a program with the C library in it has operators that no C++ runtime brought."""
    operators = any(function.entry.name.startswith("_Z") for function in found.functions)
    return operators and found.kind in (Allocator.GLIBC, Allocator.MUSL, Allocator.OTHER) and not (
        has_runtime_operators(elf))


def _families(elf: Elf) -> dict[int, set[Family]]:
    """Return which families have a function at an address, whatever the names."""
    table = C_FUNCTIONS + JEMALLOC_FUNCTIONS + CXX_FUNCTIONS
    addresses = elf.symbols().defined([own + entry.name for entry in table for own in OWN_PREFIXES])
    families: dict[int, set[Family]] = {}
    for entry in table:
        family = Family.MALLOC if entry.family is Family.JEMALLOC_X else entry.family
        for own in OWN_PREFIXES:
            vaddr = addresses.get(own + entry.name)
            if vaddr is not None:
                families.setdefault(vaddr, set()).add(family)
    return families
