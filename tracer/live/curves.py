"""What every site held in the last reports, by the site's key; and such a curve as one line of a terminal."""

from __future__ import annotations

import numpy as np

#: Reports that a curve goes back.
LENGTH = 60
#: From low to high; the second for terminals that have ASCII only.
BLOCKS, ASCII = "▁▂▃▄▅▆▇█", "_.-:=+*#"
#: A curve that moves by less than this share of its height is level.
_LEVEL = 0.01


class Curves:
    """The last values of every site. Row i belongs to key i of the last report."""

    def __init__(self) -> None:
        self.keys = np.zeros(0, np.uint64)
        #: f64 (n, LENGTH), the newest last; NaN: the site, or the report, was not there.
        self.values = np.zeros((0, LENGTH))

    def add(self, keys: np.ndarray, values: np.ndarray) -> None:
        """Append one value for each key; keys: u64 (n,), values: (n,). Sites that have gone are forgotten."""
        if np.array_equal(keys, self.keys):
            self.values[:, :-1] = self.values[:, 1:]
        else:
            fresh = np.full((len(keys), LENGTH), np.nan)
            now, before = places(keys, self.keys)
            fresh[now, :-1] = self.values[before, 1:]
            self.keys, self.values = keys.copy(), fresh
        self.values[:, -1] = values

    def clear(self) -> None:
        """Begin anew."""
        self.values[:] = np.nan


def places(keys: np.ndarray, others: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return where keys that both have stand in the one and in the other, i64 (m,) each."""
    _, here, there = np.intersect1d(keys, others, assume_unique=True, return_indices=True)
    return here, there


def spark(values: np.ndarray, width: int, marks: str = BLOCKS) -> str:
    """Return the last values as a line of width characters, the lowest and the highest mark being their range."""
    shown = values[-width:] if width else values[:0]
    known = shown[np.isfinite(shown)]
    if not len(known):
        return " " * width
    low, high = float(known.min()), float(known.max())
    if high - low <= _LEVEL * max(abs(high), abs(low)):
        # Nothing is low, and what does not move is in the middle.
        steps = np.full(len(shown), 0 if high == 0 else len(marks) // 2)
    else:
        steps = np.rint(np.nan_to_num((shown - low) / (high - low)) * (len(marks) - 1)).astype(int)
    line = "".join(marks[step] if there else " "
                   for step, there in zip(steps.tolist(), np.isfinite(shown).tolist(), strict=True))
    return line.rjust(width)
