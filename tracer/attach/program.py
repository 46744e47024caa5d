"""The BPF program: compiled by BCC, loaded, its arrays mapped as memory."""

from __future__ import annotations

import ctypes as ct
import os
import threading
from typing import Any

import bcc
import numpy as np

import bpf
from tracer import records
from tracer.attach.kernel import attach_type
from tracer.collect import drain
from tracer.collect.memory import mapped_array
from tracer.collect.ring import Ring
from tracer.errors import CannotTrace, LeaktraceError
from tracer.losses import LOSSES
from tracer.settings import RING_PAGES, RULE_BUCKET_BITS, AttachWay, Settings

#: Those that run at entry and at return.
SESSION_FUNCTIONS = ("heap_session", "bare_session")
#: BCC's prelude warns about itself.
CFLAGS = ("-w",)


class Program:
    """A compiled program. Its maps live as long as this object; nothing is attached yet."""

    def __init__(self, settings: Settings, way: AttachWay, *, atomics: bool) -> None:
        """Compile and map. Raises CannotTrace where the compiler or the kernel refuses."""
        self.way = way
        self.settings = settings
        os.environ["BCC_KERNEL_SOURCE"] = str(bpf.KERNEL_SOURCE)
        text = bpf.source(settings.definitions(way, atomics=atomics))
        try:
            self._bpf: Any = bcc.BPF(text=text.encode(), cflags=list(CFLAGS))
        except Exception as problem:  # BCC raises nothing more specific
            raise CannotTrace(f"The BPF program could not be made: {problem}.",
                              "The lines above say why; with too little memory, lower --max-outstanding and "
                              "--max-stacks.") from None
        self.stack_dtype = records.stack_dtype(settings.depth)
        self.max_sites = settings.max_stacks + 2
        self.sites = self._array("sites", self.max_sites, records.SITE)
        self.stacks = self._array("stacks", self.max_sites, self.stack_dtype)
        self.rules = self._array("rules", 1 << RULE_BUCKET_BITS, records.RULE_BUCKET)
        self.images = self._array("images", records.MAX_SLOTS, records.IMAGE)
        self.losses = self._array("losses", len(LOSSES), records.LOSS_COUNT)
        self.cursor = self._array("cursor", 1, np.dtype([("next", "u8")]))
        self.blocks = self._array("blocks", settings.block_buckets, records.BLOCK_BUCKET) if atomics else None
        self.overflow_fd = self._fd("overflow")
        self.ring = Ring(self._fd("ring"), RING_PAGES * 4096)
        self._claimed_fd = self._fd("claimed")
        self._site_of_stack_fd = self._fd("site_of_stack")
        self._slots_fd = self._fd("slots")
        self._probes_fd = self._fd("probes") if way is AttachWay.PERF else -1

    def _fd(self, name: str) -> int:
        return int(bcc.lib.bpf_table_fd(self._module(), name.encode()))

    def _module(self) -> ct.c_void_p:
        # BCC declares no argument types for some calls: a bare number would lose its upper half.
        return ct.c_void_p(self._bpf.module)

    def _array(self, name: str, entries: int, dtype: np.dtype[np.void]) -> np.ndarray:
        leaf = int(bcc.lib.bpf_table_leaf_size(self._module(), name.encode()))
        if leaf != dtype.itemsize:
            raise AssertionError(f"records.py has {dtype.itemsize} bytes for {name}, the C has {leaf}")
        return mapped_array(self._fd(name), entries, dtype)

    def load(self, function: str) -> int:
        """Load one function for uprobes and return its fd. Raises CannotTrace if the kernel refuses it."""
        if self.way is AttachWay.PERF:
            kind = -1
        else:
            kind = attach_type(AttachWay.SESSION if function in SESSION_FUNCTIONS else AttachWay.MULTI)
        return self._load(function, bcc.BPF.KPROBE, kind)

    def watch_exec(self) -> None:
        """Have the kernel tell of every exec of a traced process, from its first instruction on."""
        program = self._load("process_exec", bcc.BPF.RAW_TRACEPOINT, -1)
        fd = bcc.lib.bpf_attach_raw_tracepoint(program, b"sched_process_exec")
        if fd < 0:
            raise CannotTrace(f"Execs cannot be watched: {os.strerror(ct.get_errno())}.",
                              "Use a kernel built with CONFIG_BPF_EVENTS and CONFIG_TRACEPOINTS.")
        self._bpf.raw_tracepoint_fds[b"sched_process_exec"] = fd

    def _load(self, function: str, kind: int, attach: int) -> int:
        try:
            return int(self._bpf.load_func(function.encode(), kind, None, attach).fd)
        except Exception as problem:  # BCC raises nothing more specific
            raise CannotTrace(f"{problem}.", "The kernel's verifier says why above.") from None

    def name_process(self, pid: int, slot: int) -> None:
        """Tell the kernel side which slot belongs to pid."""
        drain.update(self._slots_fd, ct.c_uint32(pid), ct.c_uint32(slot))

    def forget_process(self, pid: int) -> None:
        """Take pid back: its number may come again for another process."""
        drain.delete(self._slots_fd, ct.c_uint32(pid))

    def describe_probe(self, slot: int, address: int, cookie: int) -> None:
        """Say what the probe at a run-time address means, where it has no cookie of its own."""
        drain.update(self._probes_fd, ct.c_uint64(address | slot << records.ADDRESS_BITS), ct.c_uint64(cookie))

    def release_site(self, index: int) -> None:
        """Give a site back whose blocks are all gone."""
        self.sites[index] = np.zeros((), records.SITE)
        drain.delete(self._claimed_fd, ct.c_uint32(index))

    def forget_stack(self, identifier: int) -> None:
        """Have the stack of that id get a new site when it is seen again."""
        drain.delete(self._site_of_stack_fd, ct.c_uint64(identifier))

    def kernel_bytes(self) -> int:
        """Return how much kernel memory the maps hold now, by the kernel's own account (fdinfo's memlock)."""
        total = 0
        for table in range(int(bcc.lib.bpf_num_tables(self._module()))):
            fd = int(bcc.lib.bpf_table_fd_id(self._module(), ct.c_size_t(table)))
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
                total += sum(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
        return total

    def close(self) -> None:
        """Let go of programs and maps; what is attached by links must be closed before."""
        self._bpf.cleanup()


class Compilation:
    """A Program in the making, on a thread of its own: the compiler works while the target is looked at."""

    def __init__(self, settings: Settings, way: AttachWay, *, atomics: bool) -> None:
        self._program: Program | None = None
        self._problem: LeaktraceError | None = None
        self._thread = threading.Thread(target=self._run, args=(settings, way, atomics), daemon=True)
        self._thread.start()

    def _run(self, settings: Settings, way: AttachWay, atomics: bool) -> None:
        try:
            self._program = Program(settings, way, atomics=atomics)
        except LeaktraceError as problem:
            self._problem = problem

    def wait(self, seconds: float | None = None) -> bool:
        """Return whether it is done, after at most that long."""
        self._thread.join(seconds)
        return not self._thread.is_alive()

    def result(self) -> Program:
        """Return the program, waiting for it. Raises what the compilation raised."""
        self._thread.join()
        if self._problem:
            raise self._problem
        if self._program is None:
            raise CannotTrace("The compiler ended without a result.", "The lines above say why.")
        return self._program
