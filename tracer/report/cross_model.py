"""What a comparison with the kernel's own books says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class CrossRow:
    """A function that the trace and the kernel's books both know: what each says that it holds, in bytes and blocks.

    standing: "agrees", "differs", "inaccurate" (the kernel says that its figure is not exact), or "older": the kernel
    has less, by no more than the function held before the trace, which may have been freed since. places: the kernel's
    file:line of it.
    """

    function: str
    bytes: int
    count: int
    kernel_bytes: int
    kernel_count: int
    standing: str
    places: tuple[str, ...] = ()

    @property
    def difference(self) -> tuple[int, int]:
        """What the trace has more than the kernel's books, in bytes and blocks."""
        return self.bytes - self.kernel_bytes, self.count - self.kernel_count


@dataclass(frozen=True, slots=True)
class CrossOnly:
    """A function that one of the two knows only, with what it holds."""

    function: str
    bytes: int
    count: int


@dataclass(frozen=True, slots=True)
class CrossNote:
    """A comparison with one of the kernel's books, "allocinfo" or "kmemleak"; all three lists with the most first.

    summary: one sentence on how it went, or why it did not. notes: one sentence each on what else differs, and why.
    """

    book: str
    rows: tuple[CrossRow, ...] = ()
    only_traced: tuple[CrossOnly, ...] = ()
    only_kernel: tuple[CrossOnly, ...] = ()
    summary: str = ""
    notes: tuple[str, ...] = ()
