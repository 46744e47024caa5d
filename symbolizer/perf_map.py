"""Names of code that a runtime made: the lines that Node, Python, Java or .NET write to /tmp/perf-PID.map.

The format is the kernel's tools/perf/Documentation/jit-interface.txt: `START SIZE name`, the numbers in hex.
"""

from dataclasses import dataclass, field
from typing import Self

import numpy as np

from symbolizer.hex_columns import PADDING, hex_numbers
from symbolizer.printable import printable

LONGEST_LINE = 4096  # bytes; a longer line is skipped
MOST_NAMES = 2_000_000  # of more lines the newest are kept
_BLOCK = 1 << 20  # bytes parsed at once: the columns of a block fit a processor's cache
_LAST = 2**64 - 1


def _is_blank(characters: np.ndarray) -> np.ndarray:
    blank: np.ndarray = (characters == ord(" ")) | (characters == ord("\t"))
    return blank


@dataclass(frozen=True, slots=True)
class _Lines:
    """The lines of a text that name code, in its order: first address, end, and the name's position; shapes (n,)."""

    start: np.ndarray
    end: np.ndarray
    name: np.ndarray

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Return the good ones of whole lines."""
        text = np.frombuffer(data + PADDING, np.uint8)
        newline = np.flatnonzero(text[: len(data)] == ord("\n"))
        begin = np.concatenate([[0], newline[:-1] + 1]).astype(np.int64)[: len(newline)]
        length = newline - begin
        fits = (length >= len(b"1 1 f")) & (length <= LONGEST_LINE)
        newline, begin = newline[fits], begin[fits]
        start, after_start, has_start = hex_numbers(text, begin)
        size, after_size, has_size = hex_numbers(text, after_start + 1)
        name = after_size + 1
        good = has_start & has_size & _is_blank(text[after_start]) & _is_blank(text[after_size])
        # A field that a bad line lacks was looked for in the next line. A name begins with no blank.
        good &= (name < newline) & ~_is_blank(text[name]) & (text[name] != ord("\r"))
        good &= (size > 0) & (size <= np.uint64(_LAST) - start)
        return cls(start[good], start[good] + size[good], name[good])

    def __len__(self) -> int:
        return len(self.start)


@dataclass(frozen=True, eq=False)
class PerfMap:
    """The code that a file names, as pieces that do not overlap, sorted by address; all columns have shape (n,).

    `start` and `end` are the piece's addresses, `origin` the start that its line gives (lower than `start` where newer
    code took the first part of its room), `name` where in `data` its name begins. `skipped` counts the lines that
    name nothing: bad ones, and the oldest of too many.
    """

    data: bytes = field(repr=False)
    start: np.ndarray
    end: np.ndarray
    origin: np.ndarray
    name: np.ndarray
    skipped: int

    @classmethod
    def parse(cls, data: bytes, most: int = MOST_NAMES) -> Self:
        """Return what the bytes name; a last line without a newline is being written just now and left out.

        Code is freed and its room used again, so a later line wins where two overlap. What is left of the older one
        keeps its name: stacks that were taken before may hold it.
        """
        parts: list[_Lines] = []
        kept, stop = 0, data.rfind(b"\n") + 1
        lines = data.count(b"\n")
        while stop > 0 and kept < most:
            begin = data.find(b"\n", stop - _BLOCK, stop - 1) + 1 if stop > _BLOCK else 0
            if stop > _BLOCK and begin == 0:  # one line fills the block
                stop = data.rfind(b"\n", 0, stop - 1) + 1
                continue
            part = _Lines.parse(data[begin:stop])
            kept += len(part)
            parts.append(_Lines(part.start, part.end, part.name + begin))
            stop = begin
        parts.reverse()
        start, end, name = (
            np.concatenate([np.empty(0, kind), *columns])[-most:]
            for kind, columns in (
                (np.uint64, [part.start for part in parts]),
                (np.uint64, [part.end for part in parts]),
                (np.int64, [part.name for part in parts]),
            )
        )
        piece_start, piece_end, line = _pieces(start, end)
        return cls(data, piece_start, piece_end, start[line], name[line], lines - len(start))

    def __len__(self) -> int:
        """Return the number of pieces."""
        return len(self.start)

    def find(self, address: int) -> tuple[str, int] | None:
        """Return the name of the code at the address, safe to print, and the offset in it in bytes."""
        if not 0 <= address <= _LAST:
            return None
        row = int(np.searchsorted(self.start, np.uint64(address), "right")) - 1
        if row < 0 or address >= self.end[row]:
            return None
        at = int(self.name[row])
        name = self.data[at : self.data.find(b"\n", at)].rstrip(b" \t\r")
        return printable(name.decode("utf-8", "backslashreplace")), address - int(self.origin[row])


def _pieces(start: np.ndarray, end: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return start, end and line of the pieces that are seen when each line is painted over those before it."""
    order = np.argsort(start, kind="stable")
    if np.all(end[order[:-1]] <= start[order[1:]]):
        return start[order], end[order], order
    bounds = np.unique(np.concatenate([start, end]))
    newest = _newest(np.searchsorted(bounds, start), np.searchsorted(bounds, end), len(bounds))
    # Neighbours that show the same line are one piece.
    first = np.flatnonzero(np.diff(newest, prepend=-2))
    after = np.append(first[1:], len(newest))
    seen = newest[first] >= 0
    # Nothing covers what lies behind the last bound, so `after` is a bound wherever a line is seen.
    return bounds[first[seen]], bounds[after[seen]], newest[first[seen]]


def _newest(begin: np.ndarray, stop: np.ndarray, cells: int) -> np.ndarray:
    """Return for each cell the last of the ranges [begin, stop) that covers it, -1 if none does; shape (cells,).

    A range is the union of two ranges whose length is a power of two, so a line is noted twice, and each length then
    hands what it knows down to its halves (a sparse table, filled from the top): no loop over lines.
    """
    level = np.frexp((stop - begin).astype(np.float64))[1] - 1
    above = np.full(cells, -1, np.int32)
    for power in range(int(level.max(initial=0)), -1, -1):
        mine = np.flatnonzero(level == power)
        length = 1 << power
        notes = above.copy()
        notes[length:] = np.maximum(notes[length:], above[:-length])  # the level above spans twice the length
        for places in (begin[mine], stop[mine] - length):
            note = np.full(cells, -1, np.int32)
            note[places] = mine  # of equal places numpy keeps the last, which is the newest line
            np.maximum(notes, note, out=notes)
        above = notes
    return above
