"""Which block an address lies in, for many addresses at once."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

U64 = npt.NDArray[np.uint64]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]

#: As fine as malloc aligns: of blocks that it gave no two start in one granule.
_FINEST = 4
# A table that fits the processor's last cache answers faster than a finer one that does not, and is built in no time.
_ENTRIES_PER_BLOCK = 4
_ENTRIES_AT_LEAST = 1 << 16
#: log2 of bytes. Coarser than this, one row of granules over the whole span would be mostly gaps.
_COARSEST_ROW = 10
_SMALLEST_UNIT = 20
#: log2. The directory of units is touched where there are blocks only, but its addresses must be had.
_MOST_UNITS = 24
_STEPS_BACK = 4


class BlockTable:
    """A direct table from granules of memory to blocks: one read per address, where a search would take twenty.

    An entry is the last block that starts before its granule's end, so that usually it is the answer; where several
    blocks start in one granule, a few steps back find it, and a search does where they are many.

    Memory is one row of granules if the blocks lie close together. Else it is cut into units of a megabyte or more;
    those in which blocks start have their own row, the others one entry, so gaps and huge blocks take no room.
    """

    def __init__(self, addresses: U64, sizes: U64) -> None:
        """Take blocks, both arrays (n,), n > 0, in bytes, by ascending address and without overlap.

        Blocks of no bytes are found at their address. Raises ValueError if two start at one address, or out of order.
        """
        if bool((addresses[1:] <= addresses[:-1]).any()):
            raise ValueError("blocks must come by ascending address")
        self.lowest = int(addresses[0])
        self.starts: U64 = addresses - addresses[0]
        self.lengths: U64 = np.maximum(sizes, 1).astype(np.uint64, copy=False)
        #: bytes from the lowest block's start to the highest one's end
        self.span = int(self.starts[-1]) + int(self.lengths[-1])
        self._unit = max(_SMALLEST_UNIT, self.span.bit_length() - _MOST_UNITS)
        limit = max(_ENTRIES_AT_LEAST, _ENTRIES_PER_BLOCK * len(addresses))
        self._granule = max(_FINEST, (self.span // limit).bit_length())
        self._in_units = self._granule > _COARSEST_ROW
        if self._in_units:
            places, entries = self._make_units(limit)
        else:
            places, entries = self._granules(self.starts), (self.span >> self._granule) + 1
        self._entries: I32 = np.repeat(np.arange(len(places), dtype=np.int32), np.diff(places, append=entries))

    def find(self, distances: U64) -> tuple[I32, U64]:
        """Return the block and the offset in it, both (k,), for addresses, given as distances (k,) from `lowest`.

        Distances must be below `span`. An offset that is not below the block's length: the address is in no block.
        """
        places = self._granules(distances)
        if self._in_units:
            units = (distances >> np.uint64(self._unit)).view(np.int64)
            places &= self._masks.take(units)
            places += self._rows.take(units)
        blocks = self._entries.take(places)
        offsets = distances - self.starts.take(blocks)
        late = (offsets > distances).nonzero()[0]
        if len(late):
            self._step_back(distances, blocks, offsets, late)
        return blocks, offsets

    def _step_back(self, distances: U64, blocks: I32, offsets: U64, late: I64) -> None:
        """Correct the answers with these numbers, whose block starts after the address."""
        for _ in range(_STEPS_BACK):
            wanted, earlier = distances.take(late), blocks.take(late) - np.int32(1)
            blocks[late] = earlier
            offsets[late] = found = wanted - self.starts.take(earlier)
            late = late[found > wanted]
            if not len(late):
                return
        wanted = distances.take(late)
        blocks[late] = searched = np.searchsorted(self.starts, wanted, side="right") - 1
        offsets[late] = wanted - self.starts.take(searched)

    def _granules(self, distances: U64) -> I64:
        return (distances >> np.uint64(self._granule)).view(np.int64)

    def _make_units(self, limit: int) -> tuple[I64, int]:
        """Cut memory into units; returns each block's first entry, shape (n,), and how many entries there are."""
        unit_of = (self.starts >> np.uint64(self._unit)).view(np.int64)
        last = np.append(np.flatnonzero(np.diff(unit_of)), len(unit_of) - 1)
        used = unit_of[last]
        row = self._unit - _FINEST
        while row > 0 and len(used) << row > limit:
            row -= 1
        self._granule = self._unit - row
        # Zeros cost no memory before they are written.
        self._masks = np.zeros((self.span >> self._unit) + 1, np.int64)
        self._rows = np.zeros((self.span >> self._unit) + 1, np.int64)
        self._masks[used] = (1 << row) - 1
        self._rows[used] = np.arange(len(used)) << row
        # Units into which a row's last block reaches share the row's last entry. All others have entry 0: a block that
        # ends before them, which is as good as none.
        reach = (self.starts[last] + self.lengths[last] - np.uint64(1)) >> np.uint64(self._unit)
        beyond = reach.view(np.int64) - used
        row_of = np.repeat(np.arange(len(used)), beyond)
        self._rows[runs(used + 1, beyond)] = (row_of + 1 << row) - 1
        places = (self._granules(self.starts) & ((1 << row) - 1)) + self._rows[unit_of]
        return places, len(used) << row


def runs(firsts: I64, counts: I64) -> I64:
    """Return firsts[0], firsts[0] + 1 and so on, counts[0] of them, then those of firsts[1]."""
    before = np.cumsum(counts) - counts
    numbers: I64 = np.repeat(firsts - before, counts)
    numbers += np.arange(len(numbers))
    return numbers
