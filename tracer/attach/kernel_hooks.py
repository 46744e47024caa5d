"""How programs can be attached to functions of this kernel, found by trying; nothing stays attached."""

from __future__ import annotations

import os
from functools import cache

from tracer.attach import bpf_syscall, perf_event
from tracer.attach.btf import Btf
from tracer.attach.kernel_points import Hooks

#: bpf_get_func_arg(ctx, 0, r10 - 8), helper 183 (Linux 5.17): arguments that programs may not read themselves.
_GET_FUNC_ARG = bytes.fromhex("b702000000000000" "bfa3000000000000" "07030000f8ffffff"
                              "85000000b7000000") + bpf_syscall.RETURN_0


def hooks_of(btf: Btf) -> Hooks:
    """Return what can be attached to functions of the kernel with these types, each tried once.

    Trampolines are best; some kernels are built without, some users may not, and before Linux 5.17 arguments that
    programs may not read are not handed over. Where kprobes are, they see the entries then.
    """
    entry = cache(lambda name: _entry(btf, name))
    return Hooks(cache(lambda name: _takes(btf, name, bpf_syscall.RETURN_0, bpf_syscall.BPF_TRACE_FEXIT)), entry)


def _entry(btf: Btf, name: str) -> str | None:
    if _takes(btf, name, _GET_FUNC_ARG, bpf_syscall.BPF_TRACE_FENTRY):
        return "entry"
    return "kprobe" if _takes_kprobe(name) else None


def _takes(btf: Btf, name: str, code: bytes, kind: int) -> bool:
    """Return whether a function takes a program of this code, at its entry or return."""
    function = btf.function_id(name)
    if function is None:
        return False
    opened: list[int] = []
    try:
        opened.append(bpf_syscall.load_program(code, kind, bpf_syscall.BPF_PROG_TYPE_TRACING, "leaktrace", function))
        opened.append(bpf_syscall.attach_tracing(opened[0]))
    except OSError:
        return False
    finally:
        for fd in reversed(opened):
            os.close(fd)
    return True


def _takes_kprobe(name: str) -> bool:
    try:
        program = bpf_syscall.load_program(bpf_syscall.RETURN_0)
    except OSError:
        return False
    try:
        os.close(perf_event.attach_kprobe(program, name))
    except OSError:
        return False
    finally:
        os.close(program)
    return True
