"""Numpy dtypes that mirror bpf/records.h; program.py compares them with what the compiler made of it."""

from __future__ import annotations

import struct
from enum import IntEnum, IntFlag

import numpy as np

from tracer.limits import BLOCKS_PER_BUCKET

LIFETIME_BUCKETS = 32
LIFETIME_SHIFT = 10
#: Set in the address of a frame that a signal interrupted.
INTERRUPTED = 1 << 63
#: Bits of a block's key and of a rule's key that are the address; the image number lies above.
ADDRESS_BITS = 48
ADDRESS_MASK = (1 << ADDRESS_BITS) - 1
IMAGE_MASK = 0x7FFF
RULES_PER_BUCKET = 4
COPY_PIECE = 1024

#: packed: size in the lower 48 bits, then family and flags of 8 each.
OUTSTANDING = np.dtype([("born_ns", "u8"), ("packed", "u8"), ("site", "u4"), ("weight", "u4")])
SIZE_MASK = (1 << 48) - 1
BLOCK_BUCKET = np.dtype(
    [
        ("keys", "u8", (BLOCKS_PER_BUCKET,)),
        ("overflowed", "u8"),
        ("records", OUTSTANDING, (BLOCKS_PER_BUCKET,)),
        ("spare", "u8", (3,)),
    ]
)
#: A key below this is no key: 0 is free, 1 being written.
FIRST_KEY = 2
SITE = np.dtype(
    [
        ("allocated_bytes", "u8"),
        ("allocated_count", "u8"),
        ("freed_bytes", "u8"),
        ("freed_count", "u8"),
        ("variance", "i8"),
        ("large_variance", "i8"),
        ("first_ns", "u8"),
        ("own_work", "u8"),
        ("lifetimes", "u8", (LIFETIME_BUCKETS,)),
    ]
)
#: What one in large_variance stands for, in square bytes.
LARGE_VARIANCE = float(1 << 32)
RULE_BUCKET = np.dtype([("keys", "u8", (RULES_PER_BUCKET,)), ("rules", "u8", (RULES_PER_BUCKET,))])
IMAGE = np.dtype([("number", "u4"), ("code", "u4"), ("trampoline", "u8"), ("loader_state", "u8"), ("unmapping", "u4"),
                  ("children", "u4"), ("newest", "u4"), ("told", "u4"), ("read", "u4"), ("checks", "u4")])
LOSS_COUNT = np.dtype([("count", "u8"), ("bytes", "u8")])
#: struct event: kind, slot, tid, image, ns. Events come one by one, so these are no dtypes.
EVENT_STRUCT = struct.Struct("<IIIIQ")
#: What follows it in a struct trace_event: address, size, site.
TRACE_STRUCT = struct.Struct("<QQQ")
#: struct comm; struct wanted_group: id, level, used.
COMM_STRUCT, WANTED_GROUP_STRUCT = struct.Struct("<16s"), struct.Struct("<QII")
#: struct misuse: image, kind, allocated_by, freed_by, freed_before_by; then three of struct origin: site, began.
MISUSE_STRUCT = struct.Struct("<IBBBBIIIIII")
#: In a struct miss_event: site, copied, missing, unread, pc, sp, bp, address; then the copied stack.
MISS_STRUCT = struct.Struct("<IIIIQQQQ")


def stack_dtype(depth: int) -> np.dtype[np.void]:
    """Return the layout of struct stack for stacks of at most depth frames."""
    return np.dtype(
        [
            ("id", "u8"),
            ("image", "u4"),
            ("code", "u4"),
            ("depth", "u4"),
            ("ended", "u4"),
            ("addresses", "u8", (depth,)),
        ]
    )


class StackEnd(IntEnum):
    """How the walk of a stack ended (enum stack_end)."""

    COMPLETE = 1
    DEPTH = 2
    PENDING = 3
    NO_COPY = 4
    UNREADABLE = 5
    UNSUPPORTED = 6


class EventKind(IntEnum):
    """What the ring buffer carries (enum event_kind)."""

    MISS = 1
    MAPPINGS = 2
    EXEC = 3
    ALLOCATED = 4
    FREED = 5
    WANTED = 6
    MISUSE = 7


class MisuseKind(IntEnum):
    """What is wrong with a free (enum misuse_kind)."""

    MISMATCH = 1
    DOUBLE = 2
    UNKNOWN = 3


class Check(IntFlag):
    """What may be said of the frees of an image (CHECK_ in bpf/records.h)."""

    NOTHING = 0
    FAMILIES = 1
    DOUBLE = 2
    UNKNOWN = 4


class Action(IntEnum):
    """What a probe does (enum probe_action)."""

    ALLOCATE = 1
    REALLOCATE = 2
    RESIZE = 3
    FREE = 4
    EXIT = 5
