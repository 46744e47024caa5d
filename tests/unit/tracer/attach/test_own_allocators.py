"""Allocators under other names: with a prefix, incomplete ones, and the user's own functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from symbolizer.elf import Elf
from tracer.attach.allocators import (
    NO_ARGUMENT,
    Allocator,
    EntryPoint,
    Family,
    FoundAllocator,
    custom_entries,
    find_allocator,
    find_custom,
)
from tracer.records import Action
from tracer.settings import CustomFunction

Compiler = Callable[..., Path]


def functions(*names: str) -> str:
    """Return a C text that defines these functions, each with a body of its own."""
    return "".join(f"volatile long seen_{n}; void {name}(void) {{ seen_{n}++; }}\n" for n, name in enumerate(names))


def symbols(found: FoundAllocator | None) -> set[str]:
    assert found is not None
    return {function.symbol for function in found.functions}


def elf_of(path: Path) -> Elf:
    return Elf.parse(path.read_bytes())


def test_an_unknown_allocator(compile_shared: Compiler) -> None:
    """malloc and free make an allocator, whoever wrote it; what it builds on malloc may nest."""
    found = find_allocator(elf_of(compile_shared(functions("malloc", "calloc", "free"))))
    assert found is not None and found.kind is Allocator.OTHER
    assert {function.symbol: function.entry.nests for function in found.functions} == {
        "malloc": False, "calloc": True, "free": False}


def test_a_wrapper_is_no_allocator(compile_shared: Compiler) -> None:
    """A file with malloc but no free is no allocator, unless the user names it."""
    elf = elf_of(compile_shared(functions("malloc", "something")))
    assert find_allocator(elf) is None
    assert symbols(find_allocator(elf, required=False)) == {"malloc"}


def test_a_malloc_of_one_name_and_a_free_of_another(compile_shared: Compiler) -> None:
    """malloc and free must belong together: je_malloc with mi_free is no allocator."""
    assert find_allocator(elf_of(compile_shared(functions("je_malloc", "mi_free")))) is None
    assert symbols(find_allocator(elf_of(compile_shared(functions("je_malloc", "je_free"))))) == {"je_malloc", "je_free"}


def test_a_file_without_any(compile_shared: Compiler) -> None:
    """Where there is no entry point there is nothing, whatever the user says."""
    elf = elf_of(compile_shared(functions("something")))
    assert find_allocator(elf, required=False) is None
    assert find_allocator(elf, "my_", required=False) is None


def test_prefix(compile_shared: Compiler) -> None:
    """With a prefix, only names that begin with it count, and the mark of an allocator may have it too."""
    names = ("my_malloc", "my_free", "my_calloc", "my_mallctl", "malloc", "free", "realloc")
    found = find_allocator(elf_of(compile_shared(functions(*names))), "my_")
    assert symbols(found) == {"my_malloc", "my_free", "my_calloc"}
    assert found is not None and found.kind is Allocator.JEMALLOC


def test_prefix_with_half_an_allocator(compile_shared: Compiler) -> None:
    """malloc under the prefix and free without it do not make one."""
    elf = elf_of(compile_shared(functions("my_malloc", "free", "malloc")))
    assert find_allocator(elf, "my_") is None
    assert symbols(find_allocator(elf, "my_", required=False)) == {"my_malloc"}


def test_custom_entries() -> None:
    """--alloc-fn and --free-fn become entry points: they may nest, and a C++ name may throw."""
    made = custom_entries(
        [CustomFunction("pool_alloc", size=1), CustomFunction("_ZN4pool4makeEm", size=0, result=2)],
        [CustomFunction("pool_free", pointer=3)],
    )
    assert made == (
        EntryPoint("pool_alloc", Action.ALLOCATE, Family.CUSTOM, size=1, nests=True),
        EntryPoint("_ZN4pool4makeEm", Action.ALLOCATE, Family.CUSTOM, size=0, result=2, throws=True, nests=True),
        EntryPoint("pool_free", Action.FREE, Family.CUSTOM, pointer=3),
    )
    assert made[0].result == made[0].pointer == NO_ARGUMENT


def test_find_custom(compile_shared: Compiler) -> None:
    """Those that a file defines are found in it, at their addresses; a file with none of them has none."""
    entries = custom_entries([CustomFunction("pool_alloc", size=0)],
                             [CustomFunction("pool_free", pointer=0), CustomFunction("elsewhere", pointer=0)])
    elf = elf_of(compile_shared(functions("pool_alloc", "pool_free", "malloc"), name="with"))
    found = find_custom(elf, entries)
    assert found is not None and found.kind is Allocator.CUSTOM
    addresses = elf.symbols().defined(["pool_alloc", "pool_free"])
    assert [(function.entry, function.vaddr) for function in found.functions] == [
        (entries[0], addresses["pool_alloc"]), (entries[1], addresses["pool_free"])]
    assert find_custom(elf_of(compile_shared(functions("malloc"), name="without")), entries) is None
    assert find_custom(elf, ()) is None
