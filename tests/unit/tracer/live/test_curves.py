"""Curves of sites that come, go and change their place; and how they are drawn."""

from __future__ import annotations

import numpy as np
import pytest

from tracer.live.curves import ASCII, LENGTH, Curves, spark


def keys(*given: int) -> np.ndarray:
    return np.array(given, np.uint64)


def test_a_curve_follows_its_site() -> None:
    """Where sites change their rows, come and go, each keeps its own values, and a new one has none before."""
    curves = Curves()
    curves.add(keys(7, 3, 5), np.array([70, 30, 50]))
    curves.add(keys(3, 9, 7), np.array([31, 90, 71]))
    assert curves.values.shape == (3, LENGTH)
    assert curves.values[0, -2:].tolist() == [30, 31]
    assert curves.values[2, -2:].tolist() == [70, 71]
    assert np.isnan(curves.values[1, :-1]).all() and curves.values[1, -1] == 90


def test_a_curve_is_only_so_long() -> None:
    """The oldest values go."""
    curves = Curves()
    for value in range(LENGTH + 5):
        curves.add(keys(1), np.array([value]))
    assert curves.values[0].tolist() == list(range(5, LENGTH + 5))


@pytest.mark.parametrize(("values", "width", "expected"), [
    ([0, 1, 2, 3, 4, 5, 6, 7], 8, "▁▂▃▄▅▆▇█"),
    ([0, 1, 2, 3, 4, 5, 6, 7], 3, "▁▅█"),
    ([7, 0], 4, "  █▁"),
    ([np.nan, 1, 2], 3, " ▁█"),
    ([1000, 1001, 1000], 3, "▅▅▅"),
    ([0, 0], 2, "▁▁"),
    ([np.nan, np.nan], 2, "  "),
    ([], 3, "   "),
])
def test_a_curve_as_a_line(values: list[float], width: int, expected: str) -> None:
    """The lowest and the highest value have the lowest and the highest mark, and what hardly moves is level."""
    assert spark(np.array(values, float), width) == expected


def test_ascii_only() -> None:
    """Where a terminal has no block characters, marks are of ASCII."""
    assert spark(np.arange(8.0), 8, ASCII) == "_.-:=+*#" and ASCII.isascii()
