"""What leaktrace needs of a machine: a table, one row for each need, in the order in which they are shown."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tracer.attach import doctor_bpf, doctor_kernel, doctor_process, doctor_program, doctor_tools
from tracer.attach.doctor_answer import Answer, Host
from tracer.settings import AttachWay

RIGHTS, BPF, PROBES, KERNEL, PROCESSES, TOOLS = (
    "This user", "BPF in this kernel", "Probes", "The kernel's own memory", "Other processes", "Tools and names")

USER, KERNEL_MEMORY, CONTAINERS, NAMES, REACHABILITY = "user", "kernel", "containers", "names", "reachability"
_BOTH = (USER, KERNEL_MEMORY)
_UPROBES = "Use a kernel built with CONFIG_UPROBE_EVENTS and CONFIG_BPF_EVENTS."


@dataclass(frozen=True, slots=True)
class Need:
    """One need. without: what is lost, a sentence. essential: of the needs with the same word, one must be met."""

    id: str
    title: str
    group: str
    serves: tuple[str, ...]
    without: str
    look: Callable[[Host], Answer]
    essential: str = ""


NEEDS = (
    Need("architecture", "architecture", RIGHTS, _BOTH, "Nothing can be traced.", doctor_kernel.architecture,
         "architecture"),
    Need("capabilities", "capabilities", RIGHTS, _BOTH,
         "Without the right to use BPF nothing can be traced; without the others, processes of other users and their "
         "files.", doctor_process.capabilities, "capabilities"),
    Need("unprivileged_bpf_disabled", "right to use BPF", RIGHTS, _BOTH, "Nothing can be traced.",
         doctor_bpf.bpf_for_users, "bpf"),
    Need("perf_event_paranoid", "right to use perf", RIGHTS, _BOTH,
         "Uprobes cannot be attached as perf events, nor kprobes.", doctor_kernel.perf_events),
    Need("memlock", "locked memory", RIGHTS, _BOTH,
         "Tables beyond the limit are refused: those of a trace take some 140 MB.", doctor_bpf.locked_memory),
    Need("seccomp_self", "seccomp filter", RIGHTS, _BOTH, "System calls of leaktrace may be refused.",
         doctor_process.own_filter),
    Need("container", "container", RIGHTS, _BOTH,
         "What the container does not show (processes, debug symbols, sockets of container runtimes) is not seen.",
         doctor_process.container),
    Need("pid_namespace", "pid namespace", RIGHTS, _BOTH, "Processes outside of it cannot be named or traced.",
         doctor_process.pid_namespace),

    Need("ring_buffer", "ring buffer", BPF, _BOTH, "Nothing can be traced.", doctor_bpf.ring_buffer, "ring buffer"),
    Need("mapped_arrays", "mapped arrays", BPF, _BOTH, "Nothing can be traced.", doctor_bpf.mapped_arrays,
         "mapped arrays"),
    Need("batches", "batches", BPF, _BOTH, "Blocks cannot be read, and nothing is reported.", doctor_bpf.batches,
         "batches"),
    Need("atomics", "compare and swap", BPF, _BOTH,
         "Blocks are kept in a slower table, and each event costs more.", doctor_bpf.atomics),
    Need("raw_tracepoints", "raw tracepoints", BPF, _BOTH,
         "New processes and execs are not noticed (--follow-forks, --comm, --cgroup), nor kernel memory.",
         doctor_bpf.raw_tracepoints),
    Need("jit", "machine code", BPF, _BOTH, "Each event costs many times as much.", doctor_bpf.jit),
    Need("program", "leaktrace's program", BPF, (USER,), "No program can be traced.", doctor_program.own_program,
         "program"),
    Need("lockdown", "reads of the kernel", BPF, (KERNEL_MEMORY,), "Kernel memory cannot be traced.",
         doctor_bpf.kernel_reads),

    *(Need(f"uprobe_{way}", f"uprobe {way}", PROBES, (USER,), without, doctor_bpf.uprobes(way, remedy), "uprobes")
      for way, without, remedy in (
          (AttachWay.SESSION, "Events that are not sampled cost as much as others; attaching by the next way.",
           "Use Linux 6.13 or newer."),
          (AttachWay.MULTI, "Attaching takes one call for each probe.", "Use Linux 6.6 or newer."),
          (AttachWay.PERF, "The way that is left on old kernels is not there.", _UPROBES))),
    Need("cookies", "probe cookies", PROBES, (USER,), "Probes are looked up by address, and their number is limited.",
         doctor_bpf.cookies),
    Need("seccomp_processes", "filtered processes", PROBES, (USER,),
         "Processes under a seccomp filter, as in most containers, are refused: a return probe would kill them.",
         doctor_bpf.return_probes),

    Need("btf", "types (BTF)", KERNEL, (KERNEL_MEMORY,), "Kernel memory cannot be traced.", doctor_kernel.types),
    Need("tracefs", "tracefs", KERNEL, (KERNEL_MEMORY,), "The events of the kernel's memory cannot be found.",
         doctor_kernel.tracefs),
    Need("slab", "slab events", KERNEL, (KERNEL_MEMORY,), "What kmalloc() and caches give out is not traced.",
         doctor_kernel.events(doctor_kernel.SLAB)),
    Need("pages", "page events", KERNEL, (KERNEL_MEMORY,), "Whole pages are not traced.",
         doctor_kernel.events(doctor_kernel.PAGES)),
    Need("percpu", "percpu events", KERNEL, (KERNEL_MEMORY,), "Memory per processor is not traced.",
         doctor_kernel.events(doctor_kernel.PERCPU)),
    Need("vmalloc", "vmalloc events", KERNEL, (KERNEL_MEMORY,),
         "What vmalloc() gives out is not traced, unless by fexit.",
         doctor_kernel.events(doctor_kernel.VMALLOC, "Use Linux 6.2 or newer.")),
    Need("fentry", "fentry and fexit", KERNEL, (KERNEL_MEMORY,),
         "Kernel functions without an event of their own cannot be traced, unless by kprobes.",
         doctor_bpf.trampolines),
    Need("kprobes", "kprobes", KERNEL, (KERNEL_MEMORY,),
         "Kernel functions without an event of their own cannot be traced, unless by fentry.", doctor_bpf.kprobes),
    Need("kallsyms", "names of functions", KERNEL, (KERNEL_MEMORY, NAMES), "Stacks of the kernel have no names.",
         doctor_kernel.names),
    Need("perf_event_max_stack", "depth of stacks", KERNEL, (KERNEL_MEMORY,), "Deep stacks of the kernel are cut off.",
         doctor_kernel.stack_depth),
    Need("mem_profiling", "allocation profile", KERNEL, (KERNEL_MEMORY,),
         "The kernel's own books of its memory cannot be compared with.", doctor_kernel.allocation_profile),
    Need("kmemleak", "kmemleak", KERNEL, (KERNEL_MEMORY,), "The kernel does not look itself for what is lost.",
         doctor_kernel.leak_detector),

    Need("ptrace", "holding a process", PROCESSES, (USER, REACHABILITY),
         "Commands cannot be traced from their first instruction, and --reachability does not hold what it looks at.",
         lambda host: doctor_process.tracing(host, doctor_process.try_access)),
    Need("process_vm_readv", "reading its memory", PROCESSES, (USER, REACHABILITY),
         "What points to blocks (--reachability) cannot be said.",
         lambda host: doctor_process.reading(host, doctor_process.try_access)),
    Need("pagemap_scan", "finding its pages", PROCESSES, (REACHABILITY,),
         "Looks at large, sparse address spaces take longer.", doctor_process.page_scan),
    Need("cgroups", "control groups", PROCESSES, (CONTAINERS,),
         "Groups of version 1 are known outside of the kernel's side only, so that every exec is looked at.",
         doctor_process.cgroups),

    Need("python", "Python", TOOLS, _BOTH, "leaktrace does not start.", doctor_tools.python),
    Need("packages", "Python packages", TOOLS, _BOTH, "leaktrace does not start.", doctor_tools.packages, "packages"),
    Need("bcc", "BCC and LLVM", TOOLS, _BOTH, "Nothing can be traced.", doctor_tools.bcc, "bcc"),
    Need("libc_symbols", "symbols of libc", TOOLS, (USER, NAMES),
         "Frames in libc have the names of exported functions only, and no lines.", doctor_tools.debug_symbols),
)
