"""Reads the table of live blocks: buckets that are mapped as memory, and the hash map of what overflowed."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

import numpy as np

from tracer import records
from tracer.attach.program import Program
from tracer.collect.drain import delete_keys, drain_hash


class HasBlocks(Protocol):
    """A program with a table of blocks."""

    @property
    def blocks(self) -> np.ndarray | None: ...

    @property
    def overflow_fd(self) -> int: ...


def read_blocks(program: HasBlocks, expected: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return every live block: keys u64 (n,) and records OUTSTANDING (n,).

    Those born or freed meanwhile may be missing. expected is how many there are thought to be.
    """
    if program.blocks is None:
        return drain_hash(program.overflow_fd, records.OUTSTANDING, expected)
    keys, values = read_buckets(program.blocks)
    if program.blocks["overflowed"].any():
        more_keys, more_values = drain_hash(program.overflow_fd, records.OUTSTANDING)
        keys, values = np.concatenate([keys, more_keys]), np.concatenate([values, more_values])
    return keys, values


def read_buckets(buckets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the blocks in BLOCK_BUCKET (n,), which other processors go on changing."""
    keys = buckets["keys"].copy()
    bucket, place = np.nonzero(keys >= records.FIRST_KEY)
    found = keys[bucket, place]
    values = buckets["records"][bucket, place]
    # A slot that was reused between the two reads has another block's record.
    same = buckets["keys"][bucket, place] == found
    return (found, values) if same.all() else (found[same], values[same])


def forget_blocks(program: Program, images: Collection[int]) -> None:
    """Remove all blocks of process images that are gone."""
    gone = np.zeros(records.IMAGE_MASK + 1, bool)
    gone[[image & records.IMAGE_MASK for image in images]] = True
    shift = np.uint64(records.ADDRESS_BITS)
    if program.blocks is not None:
        keys = program.blocks["keys"]
        bucket, place = np.nonzero(keys >= records.FIRST_KEY)
        mine = gone[keys[bucket, place] >> shift]
        keys[bucket[mine], place[mine]] = 0
        # These counts stay as they are, since only the kernel side may change them: one that is too high costs a look.
        if not program.blocks["overflowed"].any():
            return
    overflow, _ = drain_hash(program.overflow_fd, records.OUTSTANDING)
    delete_keys(program.overflow_fd, overflow[gone[overflow >> shift]])
