"""Figures in few columns."""

from __future__ import annotations

import pytest

from tracer.live import amounts


@pytest.mark.parametrize(("value", "shown"), [
    (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (10189, "10 kB"), (10 * 1024, "10 kB"), (1023 * 1024, "1.0 MB"),
    (5 << 30, "5.0 GB"), (-2048, "-2.0 kB"), (float("nan"), "-")])
def test_size(value: float, shown: str) -> None:
    """Two or three digits, and a unit."""
    assert amounts.size(value) == shown


def test_everything_fits() -> None:
    """Whatever the figure, it is no wider than its column."""
    for power in range(63):
        for value in (1 << power, (1 << power) - 1, (1 << power) * 3 // 2):
            assert len(amounts.size(value)) <= amounts.WIDTH
            assert len(amounts.change(-value)) <= amounts.SIGNED
            assert len(amounts.number(value)) <= 7
            assert len(amounts.age(value / 3)) <= 4


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0s"), (99, "99s"), (150, "2m"), (7200, "2h"), (864000, "10d"), (float("nan"), "-")])
def test_age(seconds: float, shown: str) -> None:
    """One unit."""
    assert amounts.age(seconds) == shown
