"""Figures in the few columns that a table on a terminal has."""

from __future__ import annotations

import math

#: Characters of an amount, and of one with a sign.
WIDTH, SIGNED = 6, 7


def size(bytes_: float) -> str:
    """Return bytes in at most six characters and a sign, 1 kB being 1,024 bytes."""
    if not math.isfinite(bytes_):
        return "-"
    value, unit = abs(bytes_), "B"
    for larger in ("kB", "MB", "GB", "TB", "PB", "EB"):
        if value < 999.5:
            break
        value, unit = value / 1024, larger
    sign = "-" if bytes_ < 0 and round(value, 1) else ""
    return f"{sign}{value:.1f} {unit}" if unit != "B" and value < 9.95 else f"{sign}{value:.0f} {unit}"


def change(bytes_: float) -> str:
    """Return a change of bytes with its sign; nothing where there is none."""
    if not math.isfinite(bytes_) or abs(bytes_) < 0.5:
        return "-"
    return f"+{size(bytes_)}" if bytes_ > 0 else size(bytes_)


def number(count: int) -> str:
    """Return a number in at most seven characters."""
    if abs(count) < 1_000_000:
        return f"{count:,}"
    for unit, each in (("M", 1e6), ("G", 1e9), ("T", 1e12)):
        if abs(count) < 1000 * each:
            return f"{count / each:.1f}{unit}"
    return f"{count:.0e}"


def age(seconds: float) -> str:
    """Return a time in at most four characters."""
    if not math.isfinite(seconds):
        return "-"
    for unit, each in (("s", 1), ("m", 60), ("h", 3600)):
        if seconds < 100 * each:
            return f"{seconds / each:.0f}{unit}"
    return f"{min(seconds / 86400, 999):.0f}d"
