"""The BPF program of a kernel trace: loaded, its tables mapped as memory, attached to the kernel's tracepoints."""

from __future__ import annotations

import ctypes as ct
import errno
import os
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np

import bpf
from symbolizer.cache_folder import default_folder
from tracer import records
from tracer.attach import bpf_syscall, perf_event
from tracer.attach.btf import Btf
from tracer.attach.compiler import compiled
from tracer.attach.kernel import CAPABILITIES
from tracer.attach.kernel_hooks import hooks_of
from tracer.attach.kernel_points import NO_HOOKS, Point, Points, find_points, possible_processors, tag_layout
from tracer.attach.loader import LoadedObject
from tracer.attach.object_cache import ObjectCache
from tracer.collect import kernel_records
from tracer.collect.memory import mapped_array
from tracer.collect.ring import Ring
from tracer.errors import CannotTrace
from tracer.kernel_settings import RING_BYTES, KernelSettings
from tracer.settings import AttachWay

#: Programs that are loaded side by side: the verifier takes its time, 30 to 70 ms each.
LOADERS = 4
#: Entries of kernel_scratch (bpf/kernel_maps.h).
NESTING = 4
_COMM_BYTES = 16


def program_text(settings: KernelSettings) -> str:
    """Return the C of a trace of the kernel that has atomics and whose functions are not traced. Raises CannotTrace."""
    found = find_points(Btf.of_kernel(), settings.sources, NO_HOOKS)
    return bpf.source(settings.definitions(atomics=True) | found.definitions, bpf.KERNEL_PARTS)


class KernelProgram:
    """A program in use. Its tables live as long as this object."""

    def __init__(self, settings: KernelSettings, *, atomics: bool) -> None:
        """Compile and load it; nothing is attached yet. Raises CannotTrace."""
        self.settings = settings
        self._btf = Btf.of_kernel()
        self.found: Points = find_points(self._btf, settings.sources, hooks_of(self._btf))
        self.coverage: tuple[str, ...] = self.found.coverage
        definitions = settings.definitions(atomics=atomics) | self.found.definitions
        if settings.cross_check:
            definitions |= tag_layout(self._btf)
        text = bpf.source(definitions, bpf.KERNEL_PARTS)
        entries = settings.map_entries(atomics=atomics)
        self._loaded = LoadedObject(compiled(text, ObjectCache(default_folder())), AttachWay.PERF, entries)
        self._entries = entries
        self._links: list[int] = []
        self._points: list[Point] = []
        self.max_sites = entries["sites"]
        self.sites = self._array("sites", records.SITE)
        self.stacks = self._array("stacks", records.stack_dtype(settings.depth))
        self.about = self._array("kernel_sites", kernel_records.KERNEL_SITE)
        self.charged = (self._array("kernel_charged", kernel_records.KERNEL_CHARGED) if "ALLOC_TAG" in definitions
                        else None)  # fmt: skip
        self.rules = self._array("rules", records.RULE_BUCKET)
        self.losses = self._array("losses", records.LOSS_COUNT)
        self.config = self._array("kernel_config", kernel_records.CONFIG)
        self.blocks = self._array("blocks", records.BLOCK_BUCKET) if "blocks" in self._loaded.fds else None
        self.overflow_fd = self._loaded.fds["overflow"]
        self.ring = Ring(self._loaded.fds["ring"], RING_BYTES)

    def _array(self, name: str, dtype: np.dtype[np.void]) -> np.ndarray:
        size = self._loaded.maps[name].value_size
        if size != dtype.itemsize:
            raise AssertionError(f"The records have {dtype.itemsize} bytes for {name}, the C has {size}")
        return mapped_array(self._loaded.fds[name], self._entries[name], dtype)

    @property
    def attached(self) -> list[str]:
        """The tracepoints and functions that programs are attached to."""
        return [point.target for point in self._points]

    def want(self, pids: Iterable[int], groups: Sequence[tuple[int, int]]) -> None:
        """Say whose allocations are meant: processes, or control groups (id, level)."""
        for pid in pids:
            bpf_syscall.update_entry(self._loaded.fds["wanted_processes"], ct.c_uint32(pid), ct.c_uint32(1))
        for index, (number, level) in enumerate(groups):
            packed = records.WANTED_GROUP_STRUCT.pack(number, level, 1)
            bpf_syscall.update_entry(self._loaded.fds["wanted_groups"], ct.c_uint32(index),
                                     ct.create_string_buffer(packed, len(packed)))

    def attach(self) -> None:
        """Attach every point, both programs of each, the first one first. Raises CannotTrace."""
        self._know_itself()
        with ThreadPoolExecutor(LOADERS) as pool:
            loaded = list(pool.map(self._is_loaded, self.found.points))
        self._points = [point for point, done in zip(self.found.points, loaded, strict=True) if done]
        refused = [point.without for point, done in zip(self.found.points, loaded, strict=True)
                   if not done and point.without is not None]
        self.coverage = tuple(dict.fromkeys((*self.found.coverage, *refused)))
        raw = bpf_syscall.BPF_PROG_TYPE_RAW_TRACEPOINT
        self._link(Point("process_exit", "sched_process_exit"), self._loaded.load_as("process_exit", raw))
        # Frees first: a block whose birth is seen but not its death would stay.
        for point in sorted(self._points, key=lambda each: "free" not in each.program):
            # Tracepoints run their programs in the order in which they were attached, functions in the reverse one.
            in_order = point.programs if point.kind == "tracepoint" else reversed(point.programs)
            for program in in_order:
                self._link(point, self._load(point, program))

    def _is_loaded(self, point: Point) -> bool:
        """Load both programs of a point; return whether that worked. Raises CannotTrace if it must."""
        try:
            for program in point.programs:
                self._load(point, program)
        except CannotTrace:
            if point.without is not None:
                return False
            if point.kind == "tracepoint":
                raise
            raise CannotTrace(f"This kernel does not hand the arguments of {point.target} to programs.",
                              "Leave --vmalloc out; --pages has the pages behind it.") from None
        return True

    def _know_itself(self) -> None:
        """Have the kernel side learn which process this is, as the kernel numbers it: its own work is not counted."""
        self.config["own"][0] = os.getpid()
        with suppress(OSError):  # before 5.10; then the number is right where this is no container
            bpf_syscall.run_once(self._loaded.load_as("know_yourself", bpf_syscall.BPF_PROG_TYPE_RAW_TRACEPOINT))

    def _load(self, point: Point, program: str) -> int:
        if point.kind == "tracepoint":
            return self._loaded.load_as(program, bpf_syscall.BPF_PROG_TYPE_RAW_TRACEPOINT)
        if point.kind == "kprobe":
            return self._loaded.load_as(program, bpf_syscall.BPF_PROG_TYPE_KPROBE)
        kind = bpf_syscall.BPF_TRACE_FENTRY if point.kind == "entry" else bpf_syscall.BPF_TRACE_FEXIT
        return self._loaded.load_as(program, bpf_syscall.BPF_PROG_TYPE_TRACING, kind,
                                    self._btf.function_id(point.target) or 0)

    def _link(self, point: Point, program: int) -> None:
        try:
            if point.kind == "tracepoint":
                self._links.append(bpf_syscall.open_raw_tracepoint(program, point.target))
            elif point.kind == "kprobe":
                self._links.append(perf_event.attach_kprobe(program, point.target))
            else:
                self._links.append(bpf_syscall.attach_tracing(program))
        except OSError as problem:
            if problem.errno == errno.EPERM:
                raise CannotTrace("The kernel does not allow this user to attach BPF programs.",
                                  f"Run leaktrace with sudo, or give it {CAPABILITIES}.") from None
            raise CannotTrace(f"The kernel does not attach a program to {point.target}: {problem.strerror}.",
                              "Use a kernel built with CONFIG_BPF_EVENTS and CONFIG_TRACEPOINTS.") from None

    def missed(self) -> int:
        """Return how many events no program saw: a point's first one was skipped, and so was its second."""
        skipped = sum(_recursion_misses(self._load(point, point.program)) for point in self._points)
        # The last field of struct kernel_cpu.
        return max(0, skipped - int(self._per_processor("kernel_cpus", 0)[:, -1].sum()))

    def walks(self) -> tuple[int, int]:
        """Return how many stacks rules led through, and how many the kernel walked, those to compare included."""
        slots = [self._per_processor("kernel_scratch", slot) for slot in range(NESTING)]
        # The second and third field of struct kernel_scratch.
        return sum(int(each[:, 1].sum()) for each in slots), sum(int(each[:, 2].sum()) for each in slots)

    def _per_processor(self, name: str, entry: int) -> np.ndarray:
        """Return an entry of a map that each processor has for itself, in words, u64 (processors, n)."""
        size = self._loaded.maps[name].value_size
        values = ct.create_string_buffer(size * possible_processors())
        bpf_syscall.lookup_entry(self._loaded.fds[name], ct.c_uint32(entry), values)
        return np.frombuffer(values.raw, np.uint64).reshape(-1, size // 8)

    def skip(self, point: int, frames: int) -> None:
        """Leave so many frames of the tracing itself out of stacks of a point."""
        self.config["skip"][0, point] = frames

    def ended_name(self, pid: int) -> str | None:
        """Return the name that a process had when it ended, None if that is not known (any more)."""
        value = ct.create_string_buffer(_COMM_BYTES)
        if not bpf_syscall.lookup_entry(self._loaded.fds["process_names"], ct.c_uint32(pid), value):
            return None
        return value.raw.split(b"\0")[0].decode("utf-8", "backslashreplace")

    def kernel_bytes(self) -> int:
        """Return how much kernel memory the maps hold now, by the kernel's own account (fdinfo's memlock)."""
        total = 0
        for fd in self._loaded.fds.values():
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
                total += sum(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
        return total

    def close(self) -> None:
        """Detach from everything and let go of it."""
        for fd in self._links:
            os.close(fd)
        self._links.clear()
        self._loaded.close()


def _recursion_misses(program: int) -> int:
    """Return how often a program was skipped because it was under way (bpf_prog_show_fdinfo(), Linux 5.12)."""
    with open(f"/proc/self/fdinfo/{program}", encoding="ascii") as lines:
        return sum(int(line.split()[1]) for line in lines if line.startswith("recursion_misses:"))
