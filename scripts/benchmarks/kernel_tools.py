"""The tools that trace the kernel's allocations: one row each, with its command line and what it says."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.child import Child, Failure

MEMLEAK = "/usr/sbin/memleak-bpfcc"
LEAKTRACE_ATTACHED = "^leaktrace: tracing the kernel"
#: memleak says it when it has attached: BCC attaches programs at tracepoints where it loads them.
MEMLEAK_ATTACHED = "^Attaching to kernel allocators"
#: What the reports of both have for each stack.
FINDING = r"^\t[\d,]+ bytes in [\d,]+ allocations from stack"
#: What a process has among its files that traces the kernel by BPF, in fdinfo: a link to a raw tracepoint, or a program
#: for a tracepoint (BPF_PROG_TYPE_TRACEPOINT is 5).
TRACES = re.compile(r"^(?:link_type:\s+raw_tracepoint|prog_type:\s+5)$", re.MULTILINE)
TRACEFS = ("/sys/kernel/tracing", "/sys/kernel/debug/tracing")
ATTACH_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool; command has {leaktrace}, {script} and {interval} filled in; it prints reports if it has a finding.

    attached: the line that says it traces. needs: the program that must be there, and the package that has it.
    """

    name: str
    command: tuple[str, ...] = ()
    attached: str = ""
    finding: str = ""
    needs: tuple[str, str] = ("", "")

    def missing(self) -> str:
        """Return why it cannot be measured here, or nothing."""
        program, package = self.needs
        return f"{program} is not there (package {package})" if program and not shutil.which(program) else ""


UNTRACED, LEAKTRACE = "untraced", "leaktrace"
TOOLS = (
    Tool(UNTRACED),
    Tool(LEAKTRACE, ("{leaktrace}", "kernel", "{interval}"), LEAKTRACE_ATTACHED, FINDING),
    Tool("memleak", (MEMLEAK, "{interval}"), MEMLEAK_ATTACHED, FINDING, needs=(MEMLEAK, "bpfcc-tools")),
    Tool("bpftrace", ("bpftrace", "-B", "line", "{script}"), "^tracing$", needs=("bpftrace", "bpftrace")),
)

#: The work of memleak: what is outstanding by address, with its size, time and stack, and sums by stack.
_BORN = """\
tracepoint:kmem:{event} {{
  $stack = kstack;
  @size[{key}] = (uint64){size};
  @born[{key}] = nsecs;
  @stack[{key}] = $stack;
  @bytes[$stack] = sum({size});
}}
"""
_FREED = """\
tracepoint:kmem:{event} /@size[{key}]/ {{
  @freed[@stack[{key}]] = sum(@size[{key}]);
  delete(@size[{key}]); delete(@born[{key}]); delete(@stack[{key}]);
}}
"""
_SLAB, _PAGES = "(uint64)args->ptr", "(uint64)args->pfn"
_EVENTS = {
    **{name: _BORN.format(event=name, key=_SLAB, size="args->bytes_alloc")
       for name in ("kmalloc", "kmalloc_node", "kmem_cache_alloc", "kmem_cache_alloc_node")},
    "mm_page_alloc": _BORN.format(event="mm_page_alloc", key=_PAGES, size="(4096 << args->order)"),
    **{name: _FREED.format(event=name, key=_SLAB) for name in ("kfree", "kmem_cache_free")},
    "mm_page_free": _FREED.format(event="mm_page_free", key=_PAGES),
}
_REST = """\
interval:ms:200 /@told == 0/ { printf("tracing\\n"); @told = 1; }
END { clear(@size); clear(@born); clear(@stack); clear(@bytes); clear(@freed); clear(@told); }
"""


def bpftrace_script(events: set[str]) -> str:
    """Return the bpftrace program that does memleak's work at those of the kernel's tracepoints (kmem) that it has."""
    return "".join(text for name, text in _EVENTS.items() if name in events) + _REST


def write_bpftrace_script(scratch: Path) -> Path:
    """Write bpftrace's program for this kernel; return its path."""
    found = [folder for folder in (Path(root, "events", "kmem") for root in TRACEFS) if folder.exists()]
    if not found:
        raise Failure("tracefs is not mounted")
    script = scratch / "kernel.bt"
    script.write_text(bpftrace_script({each.name for each in found[0].iterdir()}))
    return script


@contextmanager
def tracing(tool: Tool, values: Mapping[str, str], env: Mapping[str, str] | None = None) -> Iterator[Child]:
    """Run a tool that traces, from when it has attached on. Raises Failure if it does not within a minute."""
    command = [word.format_map(values) for word in tool.command]
    # bpftrace's maps hold 4096 keys unless told; memleak's hold this many.
    with Child(command, {"BPFTRACE_MAP_KEYS_MAX": "1000000", **(env or {})}) as tracer:
        tracer.wait_for(tool.attached, ATTACH_TIMEOUT_S)
        yield tracer


def others(known: Collection[int] = (), proc: Path = Path("/proc")) -> list[int]:
    """Return which other processes trace the kernel by BPF just now: what they cost would be in the figures.

    known: processes that are not meant. Files that are gone or may not be read count as none.
    """
    found: set[int] = set()
    for entry in proc.glob("[0-9]*/fdinfo/*"):
        pid = int(entry.parts[-3])
        if pid in known or pid in found:
            continue
        with suppress(OSError):
            if TRACES.search(entry.read_text()):
                found.add(pid)
    return sorted(found)
