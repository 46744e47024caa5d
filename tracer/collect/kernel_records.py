"""Numpy dtypes that mirror bpf/kernel.h; kernel_program.py compares them with what the compiler made of it."""

from __future__ import annotations

import struct
from enum import IntEnum

import numpy as np

#: Points in the kernel (enum point); the map has room for so many.
POINTS = 16


class Source(IntEnum):
    """Where memory came from (enum kernel_source): the upper 4 bits of a block's key."""

    PAGES = 1
    PERCPU = 2
    VMALLOC = 3
    SLAB = 15


SOURCE_SHIFT = 60
#: packed of a block of the kernel: its size in the lower bits, then how much of it nobody asked for.
SIZE_BITS = 40
SIZE_MASK = (1 << SIZE_BITS) - 1
KERNEL_SITE = np.dtype([
    ("wasted_bytes", "i8"), ("unseen_frees", "u8"), ("cache", "u8"), ("source", "u4"), ("point", "u2"), ("node", "u2"),
    ("gfp", "u4"), ("order", "u4"), ("name", "S32")])
#: The function that the kernel's account charges for a site (struct kernel_charged).
KERNEL_CHARGED = np.dtype([("function", "S64")])
CONFIG = np.dtype([("own", "u4"), ("ended", "u4"), ("skip", "u8", (POINTS,))])
#: struct kernel_miss: point, skip, depth, context, copied; then KERNEL_FRAMES addresses and the copy.
MISS = struct.Struct("<HHIQQ")
COPY_BYTES = 8192
#: Kernel stacks are so large, and aligned to that.
STACK_BYTES = 16384
#: The kernel's code and its modules' begin here, and have so much room.
TEXT, TEXT_BYTES = 0xFFFFFFFF_80000000, 0x7F000000
#: enum: kinds of rules, in the lowest byte.
RULE_STEP, RULE_END, RULE_ALIGNED, RULE_PLACE, RULE_STALE = 1, 2, 3, 4, 5
#: Keys below any address: from a program's arguments to the first return address.
RULE_BEGIN = 0x100
