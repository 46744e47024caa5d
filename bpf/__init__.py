"""The C that runs in the kernel, joined into the one text that BCC compiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

FOLDER = Path(__file__).parent

#: BCC_KERNEL_SOURCE: a folder whose include/ stands in for the kernel's headers.
KERNEL_SOURCE = FOLDER

#: In the order in which they need each other. BCC rewrites map accesses in its main text only, so nothing is included.
PARTS = (
    "records.h",
    "losses.h",
    "probe.h",
    "unwind.h",
    "maps.h",
    "sites.c",
    "stack.c",
    "outstanding.c",
    "ledger.c",
    "flight.c",
    "misuse.c",
    "heap.c",
    "process.c",
)

#: The same for a trace of the kernel.
KERNEL_PARTS = (
    "records.h",
    "losses.h",
    "unwind.h",
    "kernel.h",
    "kernel_maps.h",
    "sites.c",
    "outstanding.c",
    "ledger.c",
    "kernel_stack.c",
    "kernel.c",
    "kernel_slab.c",
    "kernel_pages.c",
    "kernel_areas.c",
)

_PRELUDE = """\
#include <uapi/linux/ptrace.h>
#define __always_inline inline __attribute__((always_inline))
/* bpf_probe_read_user by its number: where BCC sees the name, it reads all of kallsyms first, 0.3 s. */
static long (*read_user)(void *destination, u32 size, const void *address) = (void *)112;
#define READ_USER(destination, size, address) read_user(destination, size, (const void *)(address))
"""


def source(definitions: Mapping[str, int | None] | None = None, names: Sequence[str] = PARTS) -> str:
    """Return the program's text, each part marked with its file so that compile errors name it.

    names: the parts, PARTS or KERNEL_PARTS.

    definitions become #define lines at the top; None defines the bare name. Values are integers only, so nothing but
    numbers is ever put into the C.
    """
    lines = [f"#define {name}" if value is None else f"#define {name} {value:#x}ULL" if value >= 1 << 31 else
             f"#define {name} {value}" for name, value in (definitions or {}).items()]
    parts = [f'#line 1 "bpf/{name}"\n{(FOLDER / name).read_text(encoding="utf-8")}' for name in names]
    return "\n".join([*lines, _PRELUDE, *parts])
