"""The text that BCC compiles: all parts, marked with their files, and nothing but numbers put in."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import bpf
from tracer.kernel_settings import KernelSettings
from tracer.settings import AttachWay, Settings

FOLDER = Path(bpf.__file__).parent


BOTH = pytest.mark.parametrize("parts", [bpf.PARTS, bpf.KERNEL_PARTS], ids=["programs", "kernel"])


@BOTH
def test_every_part_with_its_mark(parts: tuple[str, ...]) -> None:
    """Each part stands whole behind a #line mark of its name, so that the compiler names the file and line at fault."""
    text = bpf.source({}, parts)
    marks = list(re.finditer(r'^#line 1 "bpf/(.+)"\n', text, re.MULTILINE))
    assert [mark[1] for mark in marks] == list(parts)
    for mark in marks:
        assert text[mark.end() :].startswith((FOLDER / mark[1]).read_text())


def test_no_part_is_forgotten() -> None:
    """Every C file and header of the folder is a part of one of the two, but the stand-ins for the kernel's headers."""
    files = {path.name for path in FOLDER.iterdir() if path.suffix in {".c", ".h"}}
    assert files == {*bpf.PARTS, *bpf.KERNEL_PARTS}


@BOTH
def test_no_part_comes_twice(parts: tuple[str, ...]) -> None:
    """What is there twice would be defined twice."""
    assert len(set(parts)) == len(parts)


@pytest.mark.parametrize(("parts", "names"), [
    (bpf.PARTS, ("records.h", "maps.h", "sites.c", "stack.c", "outstanding.c", "ledger.c", "heap.c")),
    (bpf.KERNEL_PARTS, ("records.h", "kernel.h", "kernel_maps.h", "sites.c", "outstanding.c", "ledger.c", "kernel_stack.c", "kernel.c")),
])
def test_parts_stand_after_what_they_need(parts: tuple[str, ...], names: tuple[str, ...]) -> None:
    """The records come before the maps that hold them, the ledger before the probes that call it."""
    order = [parts.index(name) for name in names]
    assert order == sorted(order)


@BOTH
def test_nothing_is_included_but_the_prelude(parts: tuple[str, ...]) -> None:
    """BCC rewrites map accesses in its main text only: no part includes another."""
    included = re.findall(r"^\s*#\s*include\b.*$", bpf.source({}, parts), re.MULTILINE)
    assert included == ["#include <uapi/linux/ptrace.h>"]
    assert (bpf.KERNEL_SOURCE / "include" / "uapi" / "linux" / "ptrace.h").is_file()


@pytest.mark.parametrize(
    ("value", "line"),
    [
        (None, "#define NAME"), (0, "#define NAME 0"), (4096, "#define NAME 4096"),
        ((1 << 31) - 1, "#define NAME 2147483647"), (1 << 31, "#define NAME 0x80000000ULL"),
        ((1 << 48) - 1, "#define NAME 0xffffffffffffULL"),
    ],
)  # fmt: skip
def test_definitions(value: int | None, line: str) -> None:
    """A definition is a line at the top, before anything uses it; what is no int in C says that it is longer."""
    assert bpf.source({"FIRST": 1, "NAME": value}).splitlines()[:2] == ["#define FIRST 1", line]


def test_only_numbers_are_put_in() -> None:
    """Whatever the settings, the C differs in #define lines of integers only."""
    settings = Settings(command=("rm", "-rf", "/; #define X"), object_path='"; evil', symbols_prefix="*/", sample_bytes=1 << 40,
                        min_size=1, max_size=1 << 47, trace_events=True)
    for way in AttachWay:
        lines = bpf.source(settings.definitions(way)).splitlines()
        plain = bpf.source().splitlines()
        defined = lines[: len(lines) - len(plain)]
        assert lines[len(defined) :] == plain
        assert defined
        for line in defined:
            assert re.fullmatch(r"#define [A-Z_]+( \d+| 0x[0-9a-f]+ULL)?", line)


def test_every_definition_is_used() -> None:
    """A constant that no part looks at is a setting without effect."""
    text = bpf.source()
    everything = Settings(sample_rate=5, trace_events=True, min_size=1, max_size=9).definitions(AttachWay.SESSION)
    everything |= Settings(sample_bytes=5).definitions(AttachWay.PERF)
    assert [name for name in everything if not re.search(rf"\b{name}\b", text)] == []


KERNEL = KernelSettings(percpu=True, vmalloc=True, pids=(7,), cgroups=("/a",), min_size=1, max_size=1 << 47)


def test_only_numbers_are_put_into_the_kernels_either() -> None:
    """Whatever the settings of a trace of the kernel, the C differs in #define lines of integers only."""
    for atomics in (False, True):
        lines = bpf.source(KERNEL.definitions(atomics=atomics), bpf.KERNEL_PARTS).splitlines()
        plain = bpf.source({}, bpf.KERNEL_PARTS).splitlines()
        defined = lines[: len(lines) - len(plain)]
        assert lines[len(defined) :] == plain and defined
        for line in defined:
            assert re.fullmatch(r"#define [A-Z_]+( \d+| 0x[0-9a-f]+ULL)?", line)


#: Of shared parts that a trace of the kernel leaves out (STACK_COPY also sizes a record that it does not send).
UNUSED = {"RING_BYTES"}


def test_every_definition_of_the_kernels_is_used() -> None:
    """A constant that no part looks at is a setting without effect."""
    text = bpf.source({}, bpf.KERNEL_PARTS)
    made = KERNEL.definitions(atomics=True)
    assert {name for name in made if not re.search(rf"\b{name}\b", text)} <= UNUSED
