"""Copies of the tables: what is read of them, and one process's own part in place of what all have of it."""

from __future__ import annotations

import numpy as np

from tests.unit.tracer.conftest import DEPTH, stack
from tracer import records
from tracer.collect.capture import Capture, joined
from tracer.collect.snapshot import NOT_SCANNED

#: Address, size, image, site.
Block = tuple[int, int, int, int]


def capture(image: int | None, sites: dict[int, int], blocks: tuple[Block, ...] = (), kinds: list[int] | None = None,
            taken_ns: int = 5) -> Capture:
    """Return a capture; sites: by number, the image each is of."""
    counters = np.zeros(len(sites), records.SITE)
    counters["allocated_count"] = np.array([*sites], np.uint64) + np.uint64(taken_ns)
    keys = np.array([address | (each & records.IMAGE_MASK) << records.ADDRESS_BITS for address, _, each, _ in blocks], np.uint64)
    values = np.zeros(len(blocks), records.OUTSTANDING)
    # Above the size stands something else, which is no part of it.
    values["packed"] = [size | 3 << 48 for _, size, _, _ in blocks]
    values["site"] = [site for *_, site in blocks]
    return Capture(taken_ns, image, np.array([*sites], np.int64), counters,
                   np.array([stack(1, image=each) for each in sites.values()], records.stack_dtype(DEPTH)), keys, values,
                   np.array(kinds, np.uint8) if kinds is not None else None)


def test_blocks() -> None:
    """A key is an address with the image above it, and a size has other bits above it."""
    made = capture(None, {3: 64}, ((0x7FFF_FFFF_FFF0, 100, 64, 3), (0x10, 1 << 40, 65, 3)))
    assert made.addresses.tolist() == [0x7FFF_FFFF_FFF0, 0x10] and made.sizes.tolist() == [100, 1 << 40]


def test_nothing_to_join() -> None:
    """Where nobody was looked at, everything is as it was."""
    everything = capture(None, {3: 64}, ((16, 1, 64, 3),))
    assert joined(everything, ()) is everything


def test_a_part_stands_for_its_image() -> None:
    """What everything has of an image goes, sites and blocks; the image's own part and all others stay, as a whole."""
    everything = capture(None, {0: 0, 3: 64, 4: 65, 5: 64}, ((16, 1, 64, 3), (16, 2, 65, 4), (48, 3, 64, 5)), taken_ns=9)
    part = capture(64, {3: 64}, ((16, 7, 64, 3), (80, 8, 64, 3)), [0, 3])
    made = joined(everything, [part])
    assert (made.taken_ns, made.image) == (9, None)
    assert made.used.tolist() == [0, 4, 3] and made.stacks["image"].tolist() == [0, 65, 64]
    assert made.counters["allocated_count"].tolist() == [9, 13, 8], "the part's own counters are those that count"
    assert made.addresses.tolist() == [16, 16, 80] and made.sizes.tolist() == [2, 7, 8]
    assert made.kinds is not None and made.kinds.tolist() == [NOT_SCANNED, 0, 3]
    assert everything.used.tolist() == [0, 3, 4, 5]


def test_a_site_that_became_anothers() -> None:
    """One that was of the image when it was looked at, and has been given to another since, is there once."""
    made = joined(capture(None, {3: 65, 4: 65}), [capture(64, {3: 64})])
    assert made.used.tolist() == [4, 3] and made.stacks["image"].tolist() == [65, 64]


def test_several_parts() -> None:
    """Each stands for its own image; a part without kinds, and what nobody looked at, are marked so."""
    everything = capture(None, {3: 64, 4: 65, 5: 66}, ((16, 1, 64, 3), (16, 2, 65, 4), (16, 3, 66, 5)))
    made = joined(everything, [capture(64, {3: 64}, ((32, 4, 64, 3),), [2]), capture(66, {}), capture(65, {4: 65}, ((32, 5, 65, 4),))])
    assert made.used.tolist() == [3, 4] and made.sizes.tolist() == [4, 5]
    assert made.kinds is not None and made.kinds.tolist() == [2, NOT_SCANNED]


def test_images_whose_numbers_are_large() -> None:
    """In a block's key there is room for a part of the number only."""
    image = records.IMAGE_MASK + 1 + 64
    made = joined(capture(None, {3: image}, ((16, 1, image, 3),)), [capture(image, {3: image}, ((32, 2, image, 3),))])
    assert made.addresses.tolist() == [32]
