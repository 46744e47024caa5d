"""The allocator functions that exist, as a table, and which of them a file defines."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum

from symbolizer.elf import Elf
from tracer.records import Action, Check
from tracer.settings import CustomFunction

#: In place of an argument's number (NO_ARGUMENT in bpf/probe.h).
NO_ARGUMENT = 15
FLAG_THROWS = 1
FLAG_NESTS = 2
FLAG_CLOSED = 4


class Family(IntEnum):
    """Which function may free what this one gave."""

    MALLOC = 1
    NEW = 2
    NEW_ARRAY = 3
    JEMALLOC_X = 4
    CUSTOM = 5
    #: One address is the function of several families, so that none can be told (--check-frees).
    SHARED = 6
    #: Of a misuse only: realloc was what freed.
    REALLOC = 7


class Allocator(StrEnum):
    """The implementations told apart, by what only they define."""

    GLIBC = "glibc"
    MUSL = "musl"
    JEMALLOC = "jemalloc"
    TCMALLOC = "tcmalloc"
    MIMALLOC = "mimalloc"
    OTHER = "malloc"
    CUSTOM = "custom"
    #: Operators new and delete only: of the C++ runtime, or of the program itself (--check-frees).
    RUNTIME = "C++ runtime"
    OPERATORS = "operators"


@dataclass(frozen=True, slots=True)
class EntryPoint:
    """One allocator function: which arguments (from 0) say what, and how it behaves."""

    name: str
    action: Action
    family: Family = Family.MALLOC
    size: int = NO_ARGUMENT
    count: int = NO_ARGUMENT
    pointer: int = NO_ARGUMENT
    result: int = NO_ARGUMENT
    throws: bool = False
    nests: bool = False
    #: Its file hands out and takes back blocks by functions of these tables only (PROBE_CLOSED in bpf/probe.h).
    closed: bool = False

    @property
    def arguments(self) -> frozenset[int]:
        """The argument registers the probe reads."""
        return frozenset({self.size, self.count, self.pointer, self.result} - {NO_ARGUMENT})

    @property
    def returns(self) -> bool:
        """Whether the probe needs the function's return."""
        return self.action is not Action.FREE

    def encode(self, slot: int) -> int:
        """Return the 64 bits of bpf/probe.h for the process in slot."""
        flags = FLAG_THROWS * self.throws | FLAG_NESTS * self.nests | FLAG_CLOSED * self.closed
        return (
            self.action | self.size << 8 | self.count << 12 | self.pointer << 16 | self.result << 20
            | self.family << 24 | flags << 32 | slot << 40
        )


def _allocate(name: str, size: int = 0, **more: int | bool | Family) -> EntryPoint:
    return EntryPoint(name, Action.ALLOCATE, size=size, **more)  # type: ignore[arg-type]  # the table's own words


def _free(name: str, family: Family = Family.MALLOC) -> EntryPoint:
    return EntryPoint(name, Action.FREE, family, pointer=0)


#: C's own. The memalign family and reallocarray may be built on one another.
C_FUNCTIONS = (
    _allocate("malloc"),
    _allocate("calloc", size=1, count=0),
    EntryPoint("realloc", Action.REALLOCATE, size=1, pointer=0),
    EntryPoint("reallocarray", Action.REALLOCATE, size=2, count=1, pointer=0, nests=True),
    _allocate("posix_memalign", size=2, result=0, nests=True),
    _allocate("aligned_alloc", size=1, nests=True),
    _allocate("memalign", size=1, nests=True),
    _allocate("valloc", nests=True),
    _allocate("pvalloc", nests=True),
    _free("free"),
    _free("cfree"),
    _free("free_sized"),
    _free("free_aligned_sized"),
)

#: jemalloc's extended interface (jemalloc(3), "Non-standard API").
JEMALLOC_FUNCTIONS = (
    _allocate("mallocx", family=Family.JEMALLOC_X),
    EntryPoint("rallocx", Action.REALLOCATE, Family.JEMALLOC_X, size=1, pointer=0),
    EntryPoint("xallocx", Action.RESIZE, Family.JEMALLOC_X, size=1, pointer=0),
    _free("dallocx", Family.JEMALLOC_X),
    _free("sdallocx", Family.JEMALLOC_X),
)

_NOTHROW = "RKSt9nothrow_t"
_ALIGNED = "St11align_val_t"


def _operators(letter: str, family: Family) -> tuple[EntryPoint, ...]:
    """Every form of operator new or new[] (n, w or a) and delete ([expr.new], [expr.delete] of C++20)."""
    new, delete = f"_Zn{letter}m", f"_Zd{'l' if letter == 'w' else letter}Pv"
    return (
        _allocate(new, family=family, throws=True),
        _allocate(new + _NOTHROW, family=family),
        _allocate(new + _ALIGNED, family=family, throws=True),
        _allocate(new + _ALIGNED + _NOTHROW, family=family),
        *(_free(delete + form, family) for form in ("", "m", _NOTHROW, _ALIGNED, "m" + _ALIGNED, _ALIGNED + _NOTHROW)),
    )


CXX_FUNCTIONS = _operators("w", Family.NEW) + _operators("a", Family.NEW_ARRAY)

#: Only this allocator defines it. A file may hold several (a program with jemalloc in it still maps libc).
MARKS = {
    "gnu_get_libc_version": Allocator.GLIBC,
    "__dls3": Allocator.MUSL,
    "__libc_malloc_impl": Allocator.MUSL,
    "__malloc_arena_thread_freeres": Allocator.GLIBC,
    "mallctl": Allocator.JEMALLOC,
    "tc_malloc": Allocator.TCMALLOC,
    "MallocExtension_ReleaseFreeMemory": Allocator.TCMALLOC,
    "mi_malloc": Allocator.MIMALLOC,
}
#: Names under which the same functions are offered once more.
OWN_PREFIXES = ("", "je_", "tc_", "mi_", "__libc_")
#: What an allocator has at the least; a wrapper that only counts has one, but no free of its own kind.
REQUIRED = ("malloc", "free")


@dataclass(frozen=True, slots=True)
class FoundFunction:
    """An entry point that a file defines, at a virtual address of that file."""

    entry: EntryPoint
    symbol: str
    vaddr: int


@dataclass(frozen=True, slots=True)
class FoundAllocator:
    """All of one file's entry points."""

    kind: Allocator
    functions: tuple[FoundFunction, ...]
    #: What may be said of frees where it is.
    checks: Check = Check.NOTHING


def find_allocator(elf: Elf, prefix: str = "", *, required: bool = True) -> FoundAllocator | None:
    """Return the allocator that elf defines under names that begin with prefix, or None.

    required=False takes any entry point, for a file the user names.
    """
    table = C_FUNCTIONS + JEMALLOC_FUNCTIONS + CXX_FUNCTIONS
    prefixes = (prefix,) if prefix else OWN_PREFIXES
    names = [own + entry.name for entry in table for own in prefixes]
    addresses = elf.symbols().defined([*names, *MARKS, *(prefix + mark for mark in MARKS)])
    if required and not any(all(own + name in addresses for name in REQUIRED) for own in prefixes):
        return None
    kind = next((kind for mark, kind in MARKS.items() if mark in addresses or prefix + mark in addresses),
                Allocator.OTHER)
    functions: dict[int, FoundFunction] = {}
    for own in prefixes:
        for entry in table:
            vaddr = addresses.get(own + entry.name)
            # Aliases share their address: the first name, the plain one, stands for all.
            if vaddr is not None and vaddr not in functions:
                entry_here = replace(entry, nests=True) if _builds_on_malloc(kind, entry) else entry
                functions[vaddr] = FoundFunction(entry_here, own + entry.name, vaddr)
    return FoundAllocator(kind, tuple(functions.values())) if functions else None


def _builds_on_malloc(kind: Allocator, entry: EntryPoint) -> bool:
    """Whether the function may call a probed one; unknown allocators and musl do, the others are known not to."""
    return kind in (Allocator.MUSL, Allocator.OTHER) and entry.action is Action.ALLOCATE and entry.name != "malloc"


def custom_entries(allocate: Iterable[CustomFunction], free: Iterable[CustomFunction]) -> tuple[EntryPoint, ...]:
    """Return the entry points of --alloc-fn and --free-fn."""
    return tuple(
        [
            EntryPoint(function.name, Action.ALLOCATE, Family.CUSTOM, size=_or_none(function.size),
                       result=_or_none(function.result), throws=function.name.startswith("_Z"), nests=True)
            for function in allocate
        ]
        + [EntryPoint(function.name, Action.FREE, Family.CUSTOM, pointer=_or_none(function.pointer))
           for function in free]
    )


def _or_none(number: int | None) -> int:
    return NO_ARGUMENT if number is None else number


def find_custom(elf: Elf, entries: Iterable[EntryPoint]) -> FoundAllocator | None:
    """Return those of the user's own functions that elf defines, or None."""
    entries = tuple(entries)
    addresses = elf.symbols().defined([entry.name for entry in entries])
    found = tuple(FoundFunction(entry, entry.name, addresses[entry.name]) for entry in entries
                  if entry.name in addresses)
    return FoundAllocator(Allocator.CUSTOM, found) if found else None
