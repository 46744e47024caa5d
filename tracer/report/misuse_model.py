"""What a report says of frees that are wrong (--check-frees)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from symbolizer.frame import Frame


class Kind(StrEnum):
    """What is wrong with a free."""

    MISMATCH = "mismatched"
    """The block is of another kind than the function frees."""
    DOUBLE = "double"
    """It was freed before, and not given out again since."""
    UNKNOWN = "unknown"
    """No allocator gave it; or it was freed so long ago that this is forgotten."""


@dataclass(frozen=True, slots=True)
class Misuse:
    """Frees that are wrong in the same way at the same places; frames are innermost first.

    allocated_by is None where nothing is known of the block. freed_before: where it was freed first, of a double one.
    An empty stack is one that found no room.
    """

    kind: Kind
    count: int
    pid: int
    allocated_by: str | None
    freed_by: str
    freed_before_by: str | None
    allocated: tuple[Frame, ...] | None
    freed: tuple[Frame, ...]
    freed_before: tuple[Frame, ...] | None


@dataclass(frozen=True, slots=True)
class Misuses:
    """All that were found, the most frequent first.

    undecided: how many mismatches are not told, because the code that allocated or freed has no symbols: it may be a
    copy of operator new or delete.
    """

    found: tuple[Misuse, ...] = ()
    undecided: int = 0

    @property
    def count(self) -> int:
        """How many frees were wrong."""
        return sum(misuse.count for misuse in self.found)
