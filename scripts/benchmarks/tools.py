"""The tools that are compared: one row each, with its command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LEAKTRACE_ATTACHED = r"(?i)\battached\b"
# memleak's first report must come after the measurement (settle 2 s + 3 s), or its cost would be in the figures.
MEMLEAK_INTERVAL_S = "8"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool; `command` has {pid}, {leaktrace}, {scratch}, {script} and {allocator} filled in.

    `attached` is the line that says it traces; a tool with `wraps` starts the workload itself, so the command stands in
    front of the workload's. `private_libraries` runs the workload on its own copies of libc and its allocator.
    `workloads` limits the tool to some.
    """

    name: str
    command: tuple[str, ...] = ()
    attached: str = ""
    attach_timeout_s: float = 30.0
    wraps: bool = False
    private_libraries: bool = False
    workloads: tuple[str, ...] = ()
    leaves: str = ""
    """A file that it leaves behind when it is interrupted; {pid} is its own."""
    report: str = ""
    """What a report's header looks like, and what one finding in it; empty where the bench does not read them."""
    finding: str = ""

    def arguments(self, values: Mapping[str, str]) -> list[str]:
        """Return the command line with its values."""
        return [word.format_map(values) for word in self.command]


TOOLS = (
    Tool("untraced"),
    Tool("bare traps", ("{leaktrace}", "-p", "{pid}", "--bare-traps", "-d", "60"), LEAKTRACE_ATTACHED),
    Tool("leaktrace", ("{leaktrace}", "-p", "{pid}", "-d", "60", "30"), LEAKTRACE_ATTACHED),
    Tool(
        "leaktrace sampled",
        ("{leaktrace}", "-p", "{pid}", "--sample-bytes", "512k", "-d", "60", "30"),
        LEAKTRACE_ATTACHED,
    ),
    Tool(
        "memleak",
        ("/usr/sbin/memleak-bpfcc", "-p", "{pid}", MEMLEAK_INTERVAL_S),
        "Attaching to pid",
        report="stacks with outstanding allocations",
        finding=r"^\t\d+ bytes in \d+ allocations",
    ),
    Tool(
        "memleak -O jemalloc",
        ("/usr/sbin/memleak-bpfcc", "-p", "{pid}", "-O", "{allocator}", MEMLEAK_INTERVAL_S),
        "Attaching to pid",
        workloads=("redis",),
    ),
    Tool("bpftrace", ("bpftrace", "-B", "line", "{script}"), "^tracing$", 60.0, private_libraries=True),
    Tool("valgrind", ("valgrind", "-q", "--leak-check=full", "--soname-synonyms=somalloc=*jemalloc*"), wraps=True),
    Tool("heaptrack", ("heaptrack", "-o", "{scratch}/heaptrack"), wraps=True, leaves="/tmp/heaptrack_fifo{pid}"),
)

# Debian's bpftrace (before 0.20) ignores -p for uprobes, so a probe on libc would slow every process of the machine.
# The workload therefore runs on private copies of the libraries: a uprobe belongs to a file, and nobody else has it.
_BPFTRACE = """\
uprobe:ALLOCATOR:malloc { @asked[tid] = arg0; }
uprobe:ALLOCATOR:calloc { @asked[tid] = arg0 * arg1; }
uprobe:ALLOCATOR:realloc {
  if (@size[arg0]) {
    @freed[@stack[arg0]] = sum(@size[arg0]);
    delete(@size[arg0]); delete(@born[arg0]); delete(@stack[arg0]);
  }
  @asked[tid] = arg1;
}
uretprobe:ALLOCATOR:malloc, uretprobe:ALLOCATOR:calloc, uretprobe:ALLOCATOR:realloc /@asked[tid]/ {
  $stack = ustack;
  @size[retval] = @asked[tid];
  @born[retval] = nsecs;
  @stack[retval] = $stack;
  @bytes[$stack] = sum(@asked[tid]);
  delete(@asked[tid]);
}
uprobe:ALLOCATOR:free /@size[arg0]/ {
  @freed[@stack[arg0]] = sum(@size[arg0]);
  delete(@size[arg0]); delete(@born[arg0]); delete(@stack[arg0]);
}
interval:ms:200 /@told == 0/ { printf("tracing\\n"); @told = 1; }
END { clear(@asked); clear(@size); clear(@born); clear(@stack); clear(@bytes); clear(@freed); clear(@told); }
"""


def write_bpftrace_script(scratch: Path, allocator: Path) -> Path:
    """Write the bpftrace program that does memleak's work on one allocator library; return its path."""
    script = scratch / f"memleak-{allocator.name}.bt"
    script.write_text(_BPFTRACE.replace("ALLOCATOR", str(allocator)))
    return script
