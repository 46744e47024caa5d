"""Puts a BpfObject into the kernel: makes its maps, loads its functions."""

from __future__ import annotations

import os
from contextlib import suppress

from tracer.attach import bpf_syscall
from tracer.attach.bpf_object import BpfObject, MapSpec
from tracer.attach.kernel import attach_type
from tracer.errors import CannotTrace
from tracer.settings import AttachWay

#: Programs that run at entry and at return.
SESSION_FUNCTIONS = ("heap_session", "bare_session")
#: Not for uprobes, but for a tracepoint.
TRACEPOINT_FUNCTIONS = ("process_exec", "process_fork")


class LoadedObject:
    """The maps of a program, made; and its functions, loaded when they are asked for."""

    def __init__(self, program: BpfObject, way: AttachWay, entries: dict[str, int]) -> None:
        """entries: how many each map gets; one where it is not named. Raises CannotTrace."""
        self.way = way
        self.maps: dict[str, MapSpec] = {spec.name: spec for spec in program.maps}
        self.fds: dict[str, int] = {}
        self._program = program
        self._functions: dict[str, int] = {}
        try:
            for spec in program.maps:
                self.fds[spec.name] = bpf_syscall.create_map(spec, entries.get(spec.name, 1))
        except OSError as problem:
            self.close()
            raise CannotTrace(f"The kernel does not make the map {spec.name}: {problem.strerror}.",
                              "With too little memory, lower --max-outstanding and --max-stacks.") from None

    def load_as(self, function: str, kind: int, attach: int = 0, target: int = 0) -> int:
        """Load one function as a program of a kind, once, and return its fd. Raises CannotTrace if it is refused.

        target: of one of type TRACING, the kernel function by its id in the kernel's BTF.
        """
        if function not in self._functions:
            instructions = self._program.functions[function].linked(self.fds)
            try:
                self._functions[function] = bpf_syscall.load_program(instructions, attach, kind, function, target)
            except OSError as problem:
                log = bpf_syscall.verifier_log(instructions, attach, kind, target)
                raise CannotTrace(f"The kernel refuses the program {function}: {problem.strerror}.",
                                  f"The verifier's last words: {log}") from None
        return self._functions[function]

    def load(self, function: str) -> int:
        """Load one function, once, and return its fd. Raises CannotTrace if the kernel refuses it."""
        kind, attach = bpf_syscall.BPF_PROG_TYPE_KPROBE, 0
        if function in TRACEPOINT_FUNCTIONS:
            kind = bpf_syscall.BPF_PROG_TYPE_RAW_TRACEPOINT
        elif self.way is not AttachWay.PERF:
            attach = attach_type(AttachWay.SESSION if function in SESSION_FUNCTIONS else AttachWay.MULTI)
        return self.load_as(function, kind, attach)

    def close(self) -> None:
        """Let go of everything; the kernel frees it when nothing is attached any more."""
        for fd in (*self._functions.values(), *self.fds.values()):
            with suppress(OSError):
                os.close(fd)
        self._functions.clear()
        self.fds.clear()
