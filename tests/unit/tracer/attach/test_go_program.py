"""Go's functions are told from C's, in files that Go's linker made."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from symbolizer.elf import Elf
from symbolizer.unwind_info import UnwindInfo
from tracer.attach.allocators import custom_entries, find_custom
from tracer.attach.go_program import REASON, is_go, is_go_function
from tracer.attach.links import plan_probes
from tracer.settings import CustomFunction

#: What matters of a Go file with cgo: its section, a function named as Go names them, and one in C.
SOURCE = """
#include <stdlib.h>
__attribute__((noinline)) void *pool_alloc(size_t n) { return malloc(n); }
__attribute__((noinline)) void *go_alloc(size_t n) __asm__("main.alloc");
__attribute__((noinline)) void *go_alloc(size_t n) { return malloc(n + 1); }
SECTION
int main(int c, char **v) { (void)v; return !pool_alloc(c) + !go_alloc(c); }
"""
MARK = '__attribute__((section(".go.buildinfo"))) char mark[32] = "\\xff Go buildinf:";'


@pytest.mark.parametrize(("symbol", "is_one"), [
    ("main.alloc", True), ("runtime.mallocgc", True), ("github.com/x/y.(*T).Get", True), ("type:.eq.main.T", True),
    ("pool_alloc", False), ("_cgo_1234_Cfunc_malloc", False), ("f.cold", False), ("f.part.0", False), (".hidden", False),
])
def test_names(symbol: str, is_one: bool) -> None:
    """Go names a function by package, dot, name; C's clones have dots as well."""
    assert is_go_function(symbol) is is_one


@pytest.mark.parametrize("go", [True, False])
def test_probes_are_never_put_on_go_functions(tmp_path: Path, go: bool) -> None:
    """In a Go file the function in C is probed and the one in Go is not, with the reason; elsewhere the name says nothing."""
    (tmp_path / "a.c").write_text(SOURCE.replace("SECTION", MARK if go else ""))
    subprocess.run(["gcc", "-O1", "a.c", "-o", "a"], check=True, cwd=tmp_path)
    data = (tmp_path / "a").read_bytes()
    elf = Elf.parse(data)
    assert is_go(elf) is go
    found = find_custom(elf, custom_entries([CustomFunction("pool_alloc", size=0), CustomFunction("main.alloc", size=0)], []))
    assert found is not None
    plan = plan_probes(elf, UnwindInfo(data), found)
    probed = {probe.function.symbol for probe in plan.probes}
    assert probed == ({"pool_alloc"} if go else {"pool_alloc", "main.alloc"})
    assert plan.skipped == ((("main.alloc", REASON),) if go else ())
