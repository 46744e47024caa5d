"""The table of live blocks as Python reads it while other processors change it."""

from __future__ import annotations

import numpy as np

from tracer import records
from tracer.collect.outstanding import read_buckets
from tracer.limits import BLOCKS_PER_BUCKET

SIZE, SITE, WEIGHT = 48, 7, 3


def table(*blocks: tuple[int, int, int], buckets: int = 8) -> np.ndarray:
    """Return buckets with these blocks: bucket, place, key; born_ns is the key's double."""
    made = np.zeros(buckets, records.BLOCK_BUCKET)
    for bucket, place, key in blocks:
        made["keys"][bucket, place] = key
        made["records"][bucket, place] = (key * 2, SIZE, SITE, WEIGHT)
    return made


def test_all_blocks_are_read() -> None:
    """Every key comes with the record of its own place."""
    last = BLOCKS_PER_BUCKET - 1
    keys, values = read_buckets(table((0, 0, 0x1000), (0, last, 0x2000), (3, 2, 0x3000), (7, last, 1 << 62 | 0x4000)))
    assert keys.tolist() == [0x1000, 0x2000, 0x3000, 1 << 62 | 0x4000]
    assert values["born_ns"].tolist() == [2 * key for key in keys.tolist()]
    assert set(values["site"].tolist()) == {SITE} and set(values["weight"].tolist()) == {WEIGHT}


def test_free_and_half_written_places_are_none() -> None:
    """Key 0 is a free place, key 1 one that is being written; 2 is the first that could be a block."""
    made = table((1, 1, 1), (1, 2, 2))
    assert read_buckets(made)[0].tolist() == [2]
    assert read_buckets(np.zeros(4, records.BLOCK_BUCKET))[0].shape == (0,)


class Changing:
    """Buckets in which a place is freed, and another used again, between the first look at the keys and the second."""

    def __init__(self, before: np.ndarray, after: np.ndarray) -> None:
        self._tables = [before, after]

    def __getitem__(self, name: str) -> np.ndarray:
        looked = self._tables[0][name]
        if name == "keys" and len(self._tables) > 1:
            self._tables.pop(0)
        return looked


def test_a_place_that_changed_meanwhile_is_left_out() -> None:
    """A record is believed only if its place still has the same key after it was read."""
    before = table((0, 0, 0x1000), (0, 1, 0x2000), (2, 4, 0x3000))
    after = table((0, 0, 0x1000), (2, 4, 0x9000), (5, 5, 0x8000))
    keys, values = read_buckets(Changing(before, after))  # type: ignore[arg-type]  # what read_buckets uses of an array
    assert keys.tolist() == [0x1000]
    assert values["born_ns"].tolist() == [0x2000]


def test_reading_changes_nothing() -> None:
    """The table is the kernel's memory: reading writes nothing to it, and what was read does not follow it."""
    made = table((0, 0, 0x1000))
    copy = made.copy()
    keys, values = read_buckets(made)
    assert made.tobytes() == copy.tobytes()
    made["keys"], made["records"]["born_ns"] = 0, 0
    assert keys.tolist() == [0x1000] and values["born_ns"].tolist() == [0x2000]
