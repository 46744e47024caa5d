"""Resident memory as a sum of parts, and what is said of their growth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracer.judge.reconcile import (
    FEWEST_MOMENTS,
    MOST_MOMENTS,
    Cause,
    Heap,
    Held,
    Part,
    Parts,
    Resident,
    Series,
    chunk_bytes,
    extend,
    find_cause,
    reconcile,
    time_left,
    trend,
)

MB = 1 << 20
SIZES = st.integers(0, 1 << 40)


def resident(heap: int, anonymous: int = 0) -> Resident:
    return Resident(heap + anonymous + 10 * MB, heap, 1 * MB, 2 * MB, anonymous, 3 * MB, 4 * MB)


def test_parts_of_a_glibc_heap() -> None:
    """Free chunks, the top, headers and what was held before the trace are what is left around outstanding bytes."""
    parts = reconcile(resident(100 * MB), Heap(70 * MB, 20 * MB, 10 * MB, complete=True), Held(40 * MB, 9, 44 * MB))
    assert [parts.of(part) // MB for part in (Part.OUTSTANDING, Part.OVERHEAD, Part.BEFORE, Part.FREE, Part.TOP)] == [
        40, 4, 26, 20, 10]
    assert (parts.absent, parts.of(Part.REMAINDER)) == (0, 0)


def test_untouched_blocks_are_not_resident() -> None:
    """Of 80 MB that were asked for and lent, of which 20 are resident, 20 are a part and 60 are said to be absent."""
    parts = reconcile(resident(20 * MB), Heap(80 * MB, 0, 0, complete=True), Held(80 * MB, 9, 80 * MB))
    assert (parts.of(Part.OUTSTANDING), parts.absent) == (20 * MB, 60 * MB)


def test_blocks_beyond_the_heap_lie_elsewhere() -> None:
    """Outstanding bytes that glibc did not lend are taken from other anonymous mappings, which then are covered."""
    parts = reconcile(resident(10 * MB, 50 * MB), Heap(10 * MB, 0, 0, complete=True), Held(30 * MB, 9, 30 * MB))
    assert (parts.of(Part.OUTSTANDING), parts.of(Part.ANONYMOUS), parts.absent) == (30 * MB, 30 * MB, 0)


def test_an_allocator_without_books() -> None:
    """Where the allocator cannot be read, what is not outstanding is one part."""
    parts = reconcile(resident(10 * MB, 50 * MB), None, Held(25 * MB, 9, 25 * MB))
    assert (parts.of(Part.OUTSTANDING), parts.of(Part.ALLOCATOR), parts.of(Part.FREE)) == (25 * MB, 35 * MB, 0)


@given(st.lists(SIZES, min_size=7, max_size=7), st.one_of(st.none(), st.tuples(SIZES, SIZES, SIZES)), SIZES, SIZES)
def test_parts_add_up(kinds: list[int], heap: tuple[int, int, int] | None, held: int, chunks: int) -> None:
    """However the figures disagree, no part is negative and all together are resident memory."""
    of = Resident(sum(kinds), *kinds[:6])
    parts = reconcile(of, Heap(*heap, complete=True) if heap else None, Held(held, 3, chunks))
    assert min(size for _, size in parts.sizes) >= 0
    assert sum(size for _, size in parts.sizes) == parts.rss
    assert 0 <= parts.of(Part.OUTSTANDING) <= held and parts.absent == held - parts.of(Part.OUTSTANDING)


def test_chunks_of_blocks() -> None:
    """A block costs a header and is rounded to 16 bytes, 32 at least: 24 → 32, 25 → 48, 1 → 32; none cost nothing."""
    assert chunk_bytes(np.array([24, 50, 1, 0]), np.array([1, 2, 1, 0])) == 32 + 96 + 32
    assert chunk_bytes(np.array([0]), np.array([0])) == 0


def series(moments: int, **rates: float) -> tuple[Series, Parts]:
    """Return a series with one moment a second in which these parts, by name, grow by so many bytes a second."""
    made, parts = Series(), Parts(0, (), 0, complete=True)
    for second in range(moments):
        sizes = {part: 20 * MB + int(rates.get(part.name.lower(), 0) * second) for part in Part}
        parts = Parts(sum(sizes.values()), tuple(sizes.items()), 0, complete=True)
        made = extend(made, float(second), parts, 10 * MB + int(rates.get("usage", 0) * second))
    return made, parts


@pytest.mark.parametrize(("rates", "cause", "part"), [
    ({"outstanding": MB, "overhead": MB / 100}, Cause.GROWS_BY_BLOCKS, Part.OUTSTANDING),
    ({"outstanding": 2 * MB, "free": MB}, Cause.GROWS_BY_BLOCKS, Part.OUTSTANDING),
    ({"free": MB, "outstanding": MB / 20}, Cause.GROWS_BY_FREE, Part.FREE),
    ({"top": MB}, Cause.GROWS_BY_FREE, Part.TOP),
    ({"before": MB}, Cause.GROWS_BY_FREE, Part.BEFORE),
    ({"allocator": MB}, Cause.GROWS_BY_FREE, Part.ALLOCATOR),
    ({"stacks": MB}, Cause.GROWS_ELSEWHERE, Part.STACKS),
    ({"shared": MB, "free": MB / 4}, Cause.GROWS_ELSEWHERE, Part.SHARED),
    ({}, Cause.STEADY, None),
])
def test_what_grows_is_told(rates: dict[str, float], cause: Cause, part: Part | None) -> None:
    """The part that makes up most of the growth decides what is said."""
    found = find_cause(*series(10, **rates))
    assert (found.cause, found.part) == (cause, part)
    if part is not None:
        assert found.amount == pytest.approx(max(rates.values()), rel=0.02)


def test_too_few_moments_say_nothing() -> None:
    """With fewer moments than a trend needs, nothing is said of growth."""
    assert find_cause(*series(FEWEST_MOMENTS - 1, outstanding=MB)).cause is Cause.UNDECIDED
    assert find_cause(*series(FEWEST_MOMENTS, outstanding=MB)).cause is Cause.GROWS_BY_BLOCKS


def test_a_heap_full_of_gaps_is_fragmented() -> None:
    """A heap most of which is free between blocks is called fragmented without any growth; a small one is not."""
    for scale, cause in ((MB, Cause.FRAGMENTED), (1024, Cause.UNDECIDED)):
        parts = Parts(100 * scale, ((Part.OUTSTANDING, 10 * scale), (Part.FREE, 80 * scale)), 0, complete=True)
        assert find_cause(extend(Series(), 0.0, parts), parts).cause is cause


@pytest.mark.parametrize("values", [
    [0, 9, 0, 9, 0, 9, 0, 9], [9, 8, 7, 6, 5, 4, 3, 2], [5] * 8, [0, 2, 4, 6, 8, 8, 8, 8, 8, 8], [*range(10), *[9] * 8],
], ids=["sawtooth", "falls", "flat", "warm-up", "half a warm-up"])
def test_what_does_not_grow(values: list[int]) -> None:
    """A sawtooth, a fall, a constant, and what grew at first and then stayed are no growth."""
    assert not trend(range(len(values)), [value * MB for value in values]).grows


def test_one_outlier_changes_no_slope() -> None:
    """A single burst in a line does not move the slope by much."""
    values = [MB * second for second in range(20)]
    values[7] += 500 * MB
    found = trend(range(20), values)
    assert found.grows and found.slope == pytest.approx(MB, rel=0.05)


def test_a_series_stays_short_and_spans_the_trace() -> None:
    """A full series is thinned out, keeps its first and its last moment, and takes no moment twice."""
    made, parts = series(500, outstanding=MB)
    assert len(made.times) == len(made.rows) <= MOST_MOMENTS and (made.times[0], made.times[-1]) == (0.0, 499.0)
    assert extend(made, 499.0, parts) is made


def test_the_time_until_the_limit() -> None:
    """What is left, by the slope of usage, is the time until a limit; usage that does not grow never reaches it."""
    assert list(time_left(series(10, usage=MB)[0], 119 * MB) or ()) == pytest.approx([100, MB])
    assert time_left(series(10)[0], 119 * MB) is None and time_left(Series(), MB) is None
    assert list(time_left(series(10, usage=MB)[0], MB) or ()) == pytest.approx([0, MB])
