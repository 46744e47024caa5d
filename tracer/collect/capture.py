"""Copies of the kernel side's tables, of one moment: of all processes, or of one that stood still meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tracer import records
from tracer.collect.snapshot import NOT_SCANNED

_NO_KEYS, _NO_VALUES = np.zeros(0, np.uint64), np.zeros(0, records.OUTSTANDING)


@dataclass(frozen=True, slots=True, eq=False)
class Capture:
    """Sites: used i64 (n,), counters SITE (n,), stacks (n,). Blocks: keys u64 (m,), values OUTSTANDING (m,).

    image: the process image that all of it is of, None: of all. kinds: how each block is reached, u8 (m,).
    """

    taken_ns: int
    image: int | None
    used: np.ndarray
    counters: np.ndarray
    stacks: np.ndarray
    keys: np.ndarray = field(default_factory=lambda: _NO_KEYS)
    values: np.ndarray = field(default_factory=lambda: _NO_VALUES)
    kinds: np.ndarray | None = None

    @property
    def addresses(self) -> np.ndarray:
        """Return where the blocks are, u64 (m,)."""
        return self.keys & np.uint64(records.ADDRESS_MASK)

    @property
    def sizes(self) -> np.ndarray:
        """Return how large the blocks are, in bytes as asked for, u64 (m,)."""
        return self.values["packed"] & np.uint64(records.SIZE_MASK)


def joined(everything: Capture, parts: Sequence[Capture]) -> Capture:
    """Return everything, with what it has of some process images replaced by what there is of each alone."""
    if not parts:
        return everything
    # A site may have become another process's meanwhile.
    other = ~np.isin(everything.used, np.concatenate([part.used for part in parts]))
    images = np.array([part.image for part in parts if part.image is not None], np.uint64)
    other &= ~np.isin(everything.stacks["image"], images)
    blocks = ~np.isin(everything.keys >> np.uint64(records.ADDRESS_BITS), images & np.uint64(records.IMAGE_MASK))
    rest = replace(everything, used=everything.used[other], counters=everything.counters[other],
                   stacks=everything.stacks[other], keys=everything.keys[blocks], values=everything.values[blocks],
                   kinds=everything.kinds[blocks] if everything.kinds is not None else None)
    all_ = [rest, *parts]
    names = ("used", "counters", "stacks", "keys", "values")
    used, counters, stacks, keys, values = (np.concatenate([getattr(each, name) for each in all_]) for name in names)
    return Capture(everything.taken_ns, None, used, counters, stacks, keys, values,
                   np.concatenate([_kinds(each) for each in all_]))


def _kinds(capture: Capture) -> np.ndarray:
    return capture.kinds if capture.kinds is not None else np.full(len(capture.keys), NOT_SCANNED, np.uint8)
