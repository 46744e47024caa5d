"""Fuzzes the reader of the kernel's types (BTF): questions have answers, or CannotTrace."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

from tests.programs.made_btf import MadeKernel
from tracer.attach import btf as kernel_btf
from tracer.errors import CannotTrace

#: What is asked for: names that the seeds have, and some that they have not.
_NAMES = ("kmalloc", "page", "kmem_cache", "flags", "inside", "vfree", "", "none")


def btf(data: bytes) -> None:
    """Bytes as /sys/kernel/btf/vmlinux: an answer, None, or CannotTrace."""
    with suppress(CannotTrace):
        types = kernel_btf.Btf(data)
        for name in _NAMES:
            questions: tuple[Callable[[str], object], ...] = (
                types.tracepoint, types.function, types.struct_size, types.function_id)
            for question in questions:
                with suppress(CannotTrace):
                    question(name)
            for member in _NAMES:
                with suppress(CannotTrace):
                    types.member_offset(name, member)


def seeds() -> list[bytes]:
    """Return sound types to begin with."""
    made = MadeKernel()
    made.trace("kmalloc", "unsigned long", "void *", "size_t", "size_t", "gfp_t", "int")
    made.call("vfree", "void *")
    number = made.integer("int", 4)
    union = made.composite(kernel_btf.UNION, "", 8, [("inside", number, 0), ("", number, 32)])
    made.struct("page", 64, ("flags", number, 0), ("", union, 64))
    made.struct("kmem_cache", 8, ("flags", number, 3, 2), fields=True)
    return [made.data(), made.data(header=32, gap=4)]
