"""The plan of an allocator's probes: places, return instructions, and what is left out with its reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from symbolizer.elf import Elf
from symbolizer.unwind_info import UnwindInfo
from tracer.attach.allocators import CXX_FUNCTIONS, Allocator, EntryPoint, FoundAllocator, FoundFunction, find_allocator
from tracer.attach.links import Plan, plan_probes
from tracer.attach.probe_sites import ProbeSite
from tracer.records import Action

SOURCE = """
    long other(void *, long);
    __attribute__((noinline)) void *malloc(unsigned long size) { if (!size) return 0; return (void *)(other(0, size) + 1); }
    __attribute__((noinline)) void free(void *block) { if (block) other(block, other(block, 0)); }
    void *_Znwm(unsigned long size) { void *block = malloc(size + 16); if (!block) other(0, 7); return block; }
    void *_Znam(unsigned long size) { return (void *)other(0, size); }
"""


def planned(path: Path) -> tuple[Elf, Plan]:
    data = path.read_bytes()
    elf = Elf.parse(data)
    found = find_allocator(elf)
    assert found is not None
    return elf, plan_probes(elf, UnwindInfo(data), found)


def test_a_plan(compile_shared: Callable[..., Path], disassemble: Callable[..., dict[str, list[tuple[int, str]]]]) -> None:
    """Each function has its place as a file offset; what throws has its return instructions, or is left out."""
    made = compile_shared(SOURCE, "-fcf-protection=none", "-fno-builtin", "-Wl,-z,noseparate-code")
    elf, plan = planned(made)
    probes = {probe.function.symbol: probe for probe in plan.probes}
    assert set(probes) == {"malloc", "free", "_Znwm"}
    assert [(symbol, "return instructions" in reason) for symbol, reason in plan.skipped] == [("_Znam", True)]
    for probe in probes.values():
        entry = elf.vaddr_to_file_offset(probe.function.vaddr)
        assert entry is not None and probe.file_offset == entry + probe.site.offset
    assert probes["free"].site == ProbeSite(3, True)
    assert [probes[name].by_return for name in ("malloc", "free", "_Znwm")] == [True, False, False]
    assert probes["malloc"].exits == probes["free"].exits == ()
    returns = [elf.vaddr_to_file_offset(at) for at, words in disassemble(made)["_Znwm"] if words.startswith("ret")]
    assert returns and list(probes["_Znwm"].exits) == returns


def test_a_function_without_code(compile_shared: Callable[..., Path]) -> None:
    """A symbol that lies outside the file is left out, with the reason."""
    data = compile_shared(SOURCE, "-fno-builtin").read_bytes()
    entry = EntryPoint("malloc", Action.ALLOCATE, size=0)
    plan = plan_probes(Elf.parse(data), UnwindInfo(data),
                       FoundAllocator(Allocator.OTHER, (FoundFunction(entry, "malloc", 1 << 40),)))
    assert plan.probes == () and plan.skipped == (("malloc", "its code is not in the file"),)


def test_only_operators_that_throw_need_return_instructions() -> None:
    """A return probe in the way of an exception ends the program: no throwing function has one."""
    assert [entry.name for entry in CXX_FUNCTIONS if entry.throws and entry.action is not Action.ALLOCATE] == []
