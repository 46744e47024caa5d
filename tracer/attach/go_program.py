"""Programs in Go: their functions move their stacks and pass arguments in registers of their own."""

from __future__ import annotations

from symbolizer.elf import Elf
from symbolizer.elf_error import ElfError

#: The table of functions, and what `go version` reads; stripping keeps both (cmd/link/internal/ld).
SECTIONS = (".gopclntab", ".go.buildinfo")
#: What compilers of C put behind a dot.
CLONES = ("cold", "part", "isra", "constprop", "lto_priv")
REASON = "it is a Go function, whose stack moves: the program would crash when it returned through a probe"


def is_go(elf: Elf) -> bool:
    """Return whether Go's linker, or its compiler with another linker, made the file."""
    try:
        return any(elf.section(name) is not None for name in SECTIONS)
    except ElfError:
        return False


def is_go_function(symbol: str) -> bool:
    """Return whether a function of a Go file is Go's own and not one of C: package, dot, name."""
    package, dot, name = symbol.partition(".")
    # Clones of C functions have dots too: f.cold, f.part.0.
    return bool(dot and package and name) and name.split(".")[0] not in CLONES
