"""Figures as they are stored: exact where they must be, coarse by a known amount where not, and small."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from tracer.ages import coarse, fine
from tracer.columns import COLUMNS, Figures, State, pack, unpack

ANY = st.integers(-(2**63), 2**63 - 1)
EXACT = [name for name in COLUMNS if name != "born_ms"]


def column(sites: int, values: Any = ANY) -> Any:
    return st_numpy.arrays(np.int64, sites, elements=values)


@st.composite
def moments(draw: Any) -> list[tuple[Figures, int]]:
    """Draw figures of some moments, each with no fewer sites than the one before, and when their ages were taken."""
    counts = sorted(draw(st.lists(st.integers(0, 6), min_size=1, max_size=5)))
    return [(Figures(*(draw(column(count, st.integers(-1, 2**40) if name == "born_ms" else ANY)) for name in COLUMNS)),
             draw(st.integers(0, 2**40))) for count in counts]


@given(moments())
@settings(deadline=None)
def test_what_was_encoded_is_decoded(made: list[tuple[Figures, int]]) -> None:
    """Every figure but births comes back as it was, however it jumps, and births as the encoder says."""
    writing = reading = State.start()
    for figures, clock in made:
        packed, writing = writing.encode(figures, clock)
        reading = reading.decode(packed, len(figures.count), clock)
        for name in EXACT:
            np.testing.assert_array_equal(getattr(reading.figures, name), getattr(figures, name))
        np.testing.assert_array_equal(reading.figures.born_ms, writing.figures.born_ms)


@given(st.lists(column(5), min_size=1, max_size=4))
def test_packing_is_exact(columns: list[np.ndarray]) -> None:
    """Any 64-bit figures come back as they were."""
    for was, now in zip(columns, unpack(pack(columns), len(columns), 5), strict=True):
        np.testing.assert_array_equal(was, now)


@given(st.lists(st.integers(0, 2**62), min_size=1))
def test_coarse_figures_are_off_by_little(values: list[int]) -> None:
    """Below 32 they are exact, above off by 3.2 % at most, and codes have the order of what they stand for."""
    given_ = np.array(sorted(values), np.int64)
    codes = coarse(given_)
    found = fine(codes)
    assert (np.abs(found - given_)[given_ < 32] == 0).all()
    assert (np.abs(found - given_) <= given_ * 0.032).all()
    assert (np.diff(codes) >= 0).all()


def test_a_birth_is_kept_while_nothing_changes() -> None:
    """A birth is off by 3.2 % of the age at most when it is first seen, and stays what it was then; unknown is -1."""
    figures = replace(Figures.zero(3), count=np.array([1, 1, 1]), born_ms=np.array([123_456, -1, 900_001]))
    packed, first = State.start().encode(figures, 1_000_000)
    born = State.start().decode(packed, 3, 1_000_000).figures.born_ms
    assert abs(int(born[0]) - 123_456) <= 0.032 * (1_000_000 - 123_456)
    assert born[1] == -1
    packed, _ = first.encode(replace(first.figures), 5_000_000)
    np.testing.assert_array_equal(first.decode(packed, 3, 5_000_000).figures.born_ms, born)


def test_what_follows_from_other_figures_takes_no_room() -> None:
    """Sites that keep all blocks of one size have one figure that is not foreseen; with a steady rate, none."""
    sites = np.arange(1, 1001)
    state, packed = State.start(), None
    for moment in range(1, 40):
        count = sites * moment
        figures = replace(Figures.zero(1000), allocated_count=count, count=count, bytes=count * 48,
                          allocated_bytes=count * 48)
        packed, state = state.encode(figures, 5000 * moment)
    assert packed is not None
    widths = dict(zip(COLUMNS, packed, strict=False))
    assert {name for name, width in widths.items() if width} <= {"allocated_count"}
    assert len(packed) <= len(COLUMNS) + 1000


def test_what_is_kept_is_stored_once() -> None:
    """Of sites that free nothing, live bytes are what was allocated, however sizes vary."""
    random = np.random.default_rng(5)
    state, packed = State.start(), None
    count, held = np.zeros(100, np.int64), np.zeros(100, np.int64)
    for _ in range(5):
        came = random.integers(0, 50, 100)
        count, held = count + came, held + came * random.integers(1, 5000, 100)
        packed, state = state.encode(replace(Figures.zero(100), allocated_count=count, count=count, bytes=held,
                                             allocated_bytes=held), 5000)
        widths = dict(zip(COLUMNS, packed, strict=False))
        assert widths["bytes"] == widths["count"] == widths["freed_count"] == 0 < widths["allocated_bytes"]


@pytest.mark.parametrize("content", [
    b"", bytes(7), bytes([9, *bytes(7)]), bytes([255] * 8), bytes([1, *bytes(7)]), bytes([1, *bytes(7)]) + b"abcd",
    bytes(9), bytes([8] * 8) + bytes(8 * 8 * 3 - 1),
])  # fmt: skip
def test_other_bytes_are_refused(content: bytes) -> None:
    """Columns that are too short, too long or too wide are a ValueError."""
    with pytest.raises(ValueError, match="length"):
        State.start().decode(content, 3, 0)


@given(st.binary(min_size=8, max_size=8 + 8 * 8 * 2), st.integers(0, 2))
@settings(deadline=None)
def test_any_bytes_are_figures_or_refused(content: bytes, sites: int) -> None:
    """Whatever is there, it is decoded to so many figures, or a ValueError."""
    try:
        figures = State.start().decode(content, sites, 1000).figures
    except ValueError:
        return
    assert all(len(each) == sites for each in figures.columns())
