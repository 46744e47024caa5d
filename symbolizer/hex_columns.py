"""Hex numbers of many lines at once, as columns: /tmp/perf-PID.map and /proc/kallsyms have hundreds of thousands."""

import numpy as np

_DIGITS = np.full(256, 16, np.uint64)  # a character's value as hex digit, 16 if it is none
for _characters in ("0123456789abcdef", "0123456789ABCDEF"):
    _DIGITS[list(_characters.encode())] = range(16)
#: What must follow a text whose lines are parsed: a field that begins in its last line ends within it.
PADDING = b"\n" * 64


def hex_numbers(text: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the hex numbers, `0x` before them or not, that begin at these positions of a padded text of uint8.

    Three columns of the shape of `at`: the value, the position after its digits (at most 16 are taken), and whether
    there was a digit at all.
    """
    prefixed = (text[at] == ord("0")) & ((text[at + 1] | 0x20) == ord("x"))
    first = at + 2 * prefixed
    after, value = first.copy(), np.zeros(len(at), np.uint64)
    for _ in range(16):
        digit = _DIGITS[text[after]]
        going_on = digit < 16
        if not going_on.any():
            break
        value = np.where(going_on, value << np.uint64(4) | digit, value)
        after += going_on
    return value, after, after > first
