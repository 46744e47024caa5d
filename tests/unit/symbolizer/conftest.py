"""Programs that the symbolizer's tests compile, and what binutils says about them."""

import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

NESTED_INLINES = """
#include <stdlib.h>
struct node { int value; struct node *next; };
static inline __attribute__((always_inline)) struct node *make(int v) {
    struct node *n = (struct node *)malloc(sizeof *n);
    n->value = v;
    return n;
}
static inline __attribute__((always_inline)) struct node *twice(int v) {
    struct node *n = make(v);
    n->next = make(v + 1);
    return n;
}
__attribute__((noinline)) struct node *outer(int v) {
    return twice(v);
}
static __attribute__((noinline)) int quiet(int v) {
    __asm__ volatile("");
    return v + rand();
}
int main(int argc, char **argv) {
    (void)argv;
    return outer(argc)->value + quiet(argc);
}
"""


@dataclass(frozen=True, slots=True)
class Symbol:
    """One line of `nm -S`; value and size in bytes, size 0 where nm gives none."""

    value: int
    size: int
    kind: str
    name: str


@pytest.fixture
def build(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that compiles a text with the given options, and gives the program's path."""

    def compile_text(text: str, *options: str, compiler: str = "gcc", name: str = "program") -> Path:
        source = tmp_path / f"{name}{'.cc' if compiler == 'g++' else '.c'}"
        source.write_text(text)
        program = tmp_path / name
        subprocess.run([compiler, str(source), "-o", str(program), *options], check=True, capture_output=True)
        return program

    return compile_text


@pytest.fixture
def nm() -> Callable[..., list[Symbol]]:
    """Return a function that gives the defined symbols of a file, as nm sees them."""
    return _symbols_by_nm


@pytest.fixture
def addr2line() -> Callable[[Path, int], list[tuple[str, str, int]]]:
    """Return a function that gives (function, file's base name, line) innermost first, as addr2line sees them."""
    return _inlines_by_addr2line


@pytest.fixture
def nested_inlines() -> str:
    """Return a C program in which outer() calls malloc through two levels of inlined functions."""
    return NESTED_INLINES


def _symbols_by_nm(path: Path, *options: str) -> list[Symbol]:
    text = subprocess.run(
        ["nm", "-S", "--defined-only", *options, str(path)], check=True, capture_output=True, text=True
    )
    found = []
    for line in text.stdout.splitlines():
        value, *size, kind, name = line.split()
        found.append(Symbol(int(value, 16), int(size[0], 16) if size else 0, kind, name.partition("@")[0]))
    return found


def _inlines_by_addr2line(path: Path, vaddr: int) -> list[tuple[str, str, int]]:
    text = subprocess.run(
        ["addr2line", "-ifC", "-e", str(path), hex(vaddr)], check=True, capture_output=True, text=True
    )
    lines = text.stdout.splitlines()
    found = []
    for function, place in zip(lines[::2], lines[1::2], strict=True):
        file, _, line = place.split(" ")[0].rpartition(":")
        found.append((function.partition("(")[0], os.path.basename(file), int(line) if line.isdigit() else 0))
    return found
