"""The BPF program in use: its arrays mapped as memory, its small maps set and cleared."""

from __future__ import annotations

import ctypes as ct
import os
import struct
from collections.abc import Iterable, Sequence

import numpy as np

from tracer import records
from tracer.attach import bpf_syscall
from tracer.attach.loader import LoadedObject
from tracer.collect.drain import delete_keys
from tracer.collect.memory import mapped_array
from tracer.collect.ring import Ring
from tracer.errors import CannotTrace
from tracer.limits import MISUSES, RING_BYTES
from tracer.settings import Settings


def _packed(layout: struct.Struct, *values: int | bytes) -> ct.Array[ct.c_char]:
    return ct.create_string_buffer(layout.pack(*values), layout.size)


class Program:
    """A compiled program. Its maps live as long as this object; nothing is attached yet."""

    def __init__(self, settings: Settings, loaded: LoadedObject) -> None:
        """Map what was loaded. Raises AssertionError if the layouts of C and Python differ."""
        self.way = loaded.way
        self.settings = settings
        self._loaded = loaded
        self._entries = settings.map_entries()
        self._tracepoints: list[int] = []
        self.max_sites = self._entries["sites"]
        self.sites = self._array("sites", records.SITE)
        self.stacks = self._array("stacks", records.stack_dtype(settings.depth))
        self.rules = self._array("rules", records.RULE_BUCKET)
        self.images = self._array("images", records.IMAGE)
        self.losses = self._array("losses", records.LOSS_COUNT)
        self.blocks = self._array("blocks", records.BLOCK_BUCKET) if "blocks" in loaded.fds else None
        self.overflow_fd = loaded.fds["overflow"]
        self.ring = Ring(loaded.fds["ring"], RING_BYTES)

    def _array(self, name: str, dtype: np.dtype[np.void]) -> np.ndarray:
        size = self._loaded.maps[name].value_size
        if size != dtype.itemsize:
            raise AssertionError(f"records.py has {dtype.itemsize} bytes for {name}, the C has {size}")
        return mapped_array(self._loaded.fds[name], self._entries[name], dtype)

    def load(self, function: str) -> int:
        """Load one function for uprobes and return its fd. Raises CannotTrace if the kernel refuses it."""
        return self._loaded.load(function)

    def watch_processes(self) -> None:
        """Have the kernel tell of every exec of a traced process, from its first instruction on, and of children."""
        try:
            for function, tracepoint in (("process_exec", "sched_process_exec"), ("process_fork", "task_newtask")):
                self._tracepoints.append(bpf_syscall.open_raw_tracepoint(self._loaded.load(function), tracepoint))
        except OSError as problem:
            raise CannotTrace(f"Execs cannot be watched: {problem.strerror}.",
                              "Use a kernel built with CONFIG_BPF_EVENTS and CONFIG_TRACEPOINTS.") from None

    def name_process(self, pid: int, slot: int) -> None:
        """Tell the kernel side which slot belongs to pid."""
        bpf_syscall.update_entry(self._loaded.fds["slots"], ct.c_uint32(pid), ct.c_uint32(slot))

    def forget_process(self, pid: int) -> None:
        """Take pid back: its number may come again for another process."""
        bpf_syscall.delete_entry(self._loaded.fds["slots"], ct.c_uint32(pid))

    def select(self, comms: Iterable[bytes], groups: Sequence[tuple[int, int]]) -> None:
        """Say whose execs should wait until they are held: names, and control groups (id, level)."""
        for comm in comms:
            self._set("wanted_comms", _packed(records.COMM_STRUCT, comm), ct.c_uint32(1))
        for index, (number, level) in enumerate(groups):
            group = _packed(records.WANTED_GROUP_STRUCT, number, level, 1)
            self._set("wanted_groups", ct.c_uint32(index), group)

    def let_go(self, pid: int) -> None:
        """Let a process go on that waits at its exec."""
        self._set("held", ct.c_uint32(pid), ct.c_uint32(1))

    def forget_held(self, pid: int) -> None:
        """Have the next exec of that process, or of another of that id, wait again."""
        bpf_syscall.delete_entry(self._loaded.fds["held"], ct.c_uint32(pid))

    def _set(self, name: str, key: bpf_syscall.Value, value: bpf_syscall.Value) -> None:
        bpf_syscall.update_entry(self._loaded.fds[name], key, value)

    def describe_probe(self, slot: int, address: int, cookie: int) -> None:
        """Say what the probe at a run-time address means, where it has no cookie of its own."""
        key = ct.c_uint64(address | slot << records.ADDRESS_BITS)
        bpf_syscall.update_entry(self._loaded.fds["probes"], key, ct.c_uint64(cookie))

    def release_sites(self, indexes: np.ndarray) -> None:
        """Give sites back whose blocks are all gone: i64 (n,)."""
        self.sites[indexes] = np.zeros((), records.SITE)
        delete_keys(self._loaded.fds["claimed"], indexes.astype(np.uint32))

    def forget_stacks(self, identifiers: np.ndarray) -> None:
        """Have the stacks of these ids, u64 (n,), get new sites when they are seen again."""
        delete_keys(self._loaded.fds["site_of_stack"], identifiers)

    def misuses(self) -> list[tuple[bytes, int]]:
        """Return each wrong free (struct misuse) with how often it was seen (--check-frees)."""
        fd = self._loaded.fds.get("misuses")
        if fd is None:
            return []
        keys = np.zeros(MISUSES + 1, f"V{records.MISUSE_STRUCT.size}")
        counts, cursor = np.zeros(len(keys), np.uint64), ct.c_uint32(0)
        found, _ = bpf_syscall.lookup_batch(
            fd, 0, ct.addressof(cursor), keys.ctypes.data, counts.ctypes.data, len(keys))
        return list(zip((key.tobytes() for key in keys[:found]), counts[:found].tolist(), strict=True))

    def kernel_bytes(self) -> int:
        """Return how much kernel memory the maps hold now, by the kernel's own account (fdinfo's memlock)."""
        total = 0
        for fd in self._loaded.fds.values():
            with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as lines:
                total += sum(int(line.split()[1]) for line in lines if line.startswith("memlock:"))
        return total

    def close(self) -> None:
        """Let go of programs and maps; what is attached by links must be closed before."""
        for fd in self._tracepoints:
            os.close(fd)
        self._tracepoints.clear()
        self._loaded.close()
