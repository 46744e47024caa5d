"""--check-frees says of a file only what is sure: whose operators they are, and that one address has one family."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from symbolizer.elf import Elf
from tracer.attach.allocators import FLAG_CLOSED, Allocator, Family, FoundAllocator, find_allocator
from tracer.attach.free_checks import checks_with, operators_in, with_families
from tracer.records import Check

Compiler = Callable[..., Path]
OPERATORS = ("_Znwm", "_ZdlPv", "_Znam", "_ZdaPv")
ALL = Check.FAMILIES | Check.DOUBLE | Check.UNKNOWN


def functions(*names: str) -> str:
    """Return a C text that defines these functions, each with a body of its own."""
    return "".join(f"volatile long seen_{n}; void {name}(void) {{ seen_{n}++; }}\n" for n, name in enumerate(names))


def elf_of(path: Path) -> Elf:
    return Elf.parse(path.read_bytes())


def found_in(elf: Elf) -> FoundAllocator:
    found = find_allocator(elf)
    assert found is not None
    return with_families(elf, found)


def test_the_runtime(compile_shared: Compiler) -> None:
    """The operators of libstdc++ are those that everybody has: all may be said."""
    elf = elf_of(compile_shared(functions(*OPERATORS)))
    found = operators_in(elf, "/usr/lib/libstdc++.so.6.0.30")
    assert found is not None and found.kind is Allocator.RUNTIME
    assert {each.symbol: each.entry.family for each in found.functions} == {
        "_Znwm": Family.NEW, "_ZdlPv": Family.NEW, "_Znam": Family.NEW_ARRAY, "_ZdaPv": Family.NEW_ARRAY}
    assert all(each.entry.closed for each in with_families(elf, found).functions)
    assert checks_with(elf, found, ()) == ALL


def test_own_operators(compile_shared: Compiler) -> None:
    """A program's own may be inlined: no family is told apart, and no address called unknown."""
    elf = elf_of(compile_shared(functions(*OPERATORS)))
    found = operators_in(elf, "/usr/bin/program")
    assert found is not None and found.kind is Allocator.OPERATORS
    assert not any(each.entry.closed for each in with_families(elf, found).functions)
    assert checks_with(elf, found, ()) == Check.DOUBLE


def test_a_runtime_in_the_program(compile_shared: Compiler) -> None:
    """The object that operator new is from stands in the symbol table of a program that was linked with the runtime."""
    data = compile_shared(functions(*OPERATORS)).read_bytes()
    found = operators_in(Elf.parse(data + b"\0new_op.o\0"), "/usr/bin/program")
    assert found is not None and found.kind is Allocator.RUNTIME


def test_no_operators(compile_shared: Compiler) -> None:
    """A library without any is left alone."""
    assert operators_in(elf_of(compile_shared(functions("something"))), "/usr/lib/libstdc++.so.6") is None


def test_one_address_for_two_families(compile_shared: Compiler) -> None:
    """What frees for malloc and for new alike cannot be wrong; names of one family may share an address."""
    text = functions("malloc", "free", "_Znwm", "mallctl") + (
        'extern __typeof(free) _ZdlPv __attribute__((alias("free")));\n'
        'extern __typeof(malloc) je_malloc __attribute__((alias("malloc")));\n')
    found = found_in(elf_of(compile_shared(text)))
    assert {each.symbol: each.entry.family for each in found.functions} == {
        "malloc": Family.MALLOC, "free": Family.SHARED, "_Znwm": Family.NEW}


@pytest.mark.parametrize(("mark", "closed", "checks"), [
    ("gnu_get_libc_version", True, ALL),
    ("mallctl", True, Check.FAMILIES | Check.DOUBLE),
    ("mi_malloc", False, Check.FAMILIES | Check.DOUBLE),
    ("nothing_known", False, Check.FAMILIES | Check.DOUBLE),
])
def test_allocators(compile_shared: Compiler, mark: str, closed: bool, checks: Check) -> None:
    """Only of glibc and musl is it sure that nobody else gives blocks; mimalloc has ways to give that are not probed."""
    elf = elf_of(compile_shared(functions("malloc", "free", mark)))
    found = found_in(elf)
    assert {each.symbol: each.entry.closed for each in found.functions if each.symbol in ("malloc", "free")} == {
        "malloc": closed, "free": closed}
    assert bool(found.functions[0].entry.encode(3) >> 32 & FLAG_CLOSED) is closed
    assert checks_with(elf, found, ()) == checks


def test_a_static_program_with_own_operators(compile_shared: Compiler) -> None:
    """glibc is in it, but the operators are the program's."""
    elf = elf_of(compile_shared(functions("malloc", "free", "gnu_get_libc_version", *OPERATORS)))
    found = found_in(elf)
    assert {each.symbol for each in found.functions if each.entry.closed} == {"malloc", "free"}
    assert checks_with(elf, found, ()) == Check.DOUBLE


@pytest.mark.parametrize(("skipped", "checks"), [("_Znwm", Check.DOUBLE), ("calloc", Check.NOTHING)])
def test_functions_without_a_probe(compile_shared: Compiler, skipped: str, checks: Check) -> None:
    """Blocks of an operator that has no probe look like malloc's; those of a function of C look like nobody's."""
    elf = elf_of(compile_shared(functions("malloc", "free", "gnu_get_libc_version")))
    assert checks_with(elf, found_in(elf), [(skipped, "why")]) == checks
