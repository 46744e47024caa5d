"""Columns of figures as a recording keeps them: what differs from the moment before, in as few bytes as it needs.

A site that allocates blocks of one size has, from one moment to the next, one free figure: how often it allocated. The
others follow from it, or nearly; what is stored is by how much they do not. All arithmetic is modulo 2**64, and exact.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np

#: Bytes per figure, by the first byte of a packed column; 0: all are zero.
_WIDTHS = (0, 1, 2, 4, 8)


@dataclass(frozen=True, slots=True, eq=False)
class Figures:
    """What is known of n sites at one moment, each i64 (n,).

    born_ms: when the oldest living block was allocated, in ms since the trace began, -1 where that is not known.
    verdict: a place in site_table.VERDICTS. expected_loss: in bytes/s.
    """

    allocated_count: np.ndarray
    count: np.ndarray
    freed_count: np.ndarray
    bytes: np.ndarray
    allocated_bytes: np.ndarray
    born_ms: np.ndarray
    verdict: np.ndarray
    expected_loss: np.ndarray

    @classmethod
    def zero(cls, sites: int) -> Figures:
        """Return the figures of sites that nothing is known of."""
        return cls(*(np.zeros(sites, np.int64) for _ in fields(cls)))

    def extended(self, sites: int) -> Figures:
        """Return these with zeros for the sites that have come."""
        more = sites - len(self.count)
        return Figures(*(np.concatenate([getattr(self, each.name), np.zeros(more, np.int64)]) for each in fields(self)))


def encode(before: Figures, now: Figures) -> dict[str, bytes]:
    """Return what turns one into the other; both have the same sites."""
    allocated = now.allocated_count - before.allocated_count
    count = now.count - before.count
    return {
        "allocated_count": pack(allocated),
        "count": pack(count),
        "freed_count": pack(now.freed_count - before.freed_count - (allocated - count)),
        "bytes": pack(now.bytes - before.bytes - count * _mean(before.bytes, before.count)),
        "allocated_bytes": pack(now.allocated_bytes - before.allocated_bytes
                                - allocated * _mean(before.allocated_bytes, before.allocated_count)),
        "born_ms": pack(now.born_ms - before.born_ms),
        "verdict": pack(now.verdict - before.verdict),
        "expected_loss": pack(now.expected_loss - before.expected_loss),
    }


def decode(before: Figures, stored: dict[str, bytes]) -> Figures:
    """Return the figures that encode() was given. Raises ValueError where they cannot have been stored so."""
    sites = len(before.count)
    change = {each.name: unpack(stored.get(each.name, b""), sites) for each in fields(Figures)}
    allocated, count = change["allocated_count"], change["count"]
    return Figures(
        before.allocated_count + allocated,
        before.count + count,
        before.freed_count + change["freed_count"] + (allocated - count),
        before.bytes + change["bytes"] + count * _mean(before.bytes, before.count),
        before.allocated_bytes + change["allocated_bytes"]
        + allocated * _mean(before.allocated_bytes, before.allocated_count),
        before.born_ms + change["born_ms"],
        before.verdict + change["verdict"],
        before.expected_loss + change["expected_loss"],
    )


def _mean(sizes: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the size of blocks so far, i64 (n,); 0 where there were none."""
    return np.where(counts > 0, sizes // np.maximum(counts, 1), 0)


def pack(figures: np.ndarray) -> bytes:
    """Return i64 (n,) in as few bytes each as the largest needs, first the low bytes of all, then the next ones."""
    # Small negative figures become small, too: 0, -1, 1, -2 are 0, 1, 2, 3.
    folded = ((figures << 1) ^ (figures >> 63)).view(np.uint64)
    largest = int(folded.max()) if len(folded) else 0
    width = next(each for each in _WIDTHS if largest < 1 << 8 * each)
    planes = folded.astype("<u8").view(np.uint8).reshape(-1, 8).T[:width]
    return bytes([width]) + planes.tobytes()


def unpack(stored: bytes, sites: int) -> np.ndarray:
    """Return the i64 (n,) that pack() was given; of nothing, zeros. Raises ValueError."""
    width = stored[0] if stored else 0
    if width not in _WIDTHS or len(stored) not in (1 + width * sites, 0):
        raise ValueError("a column has another length than it should")
    planes = np.zeros((8, sites), np.uint8)
    planes[:width] = np.frombuffer(stored, np.uint8, offset=min(1, len(stored))).reshape(width, sites)
    folded = np.ascontiguousarray(planes.T).view("<u8").reshape(sites).astype(np.uint64)
    return (folded >> np.uint64(1)).view(np.int64) ^ -(folded & np.uint64(1)).view(np.int64)
