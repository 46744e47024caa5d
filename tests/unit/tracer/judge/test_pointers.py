"""Which words are pointers to which blocks: the table of blocks, the scan, and the heuristics for insides."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.judge.block_table import BlockTable
from tracer.judge.pointers import PointerScan
from tracer.judge.reachability import Kind, classify

HEAP, GLOBALS = 0x5555_0000_0000, 0x5000_0000
VTABLES = range(0x7000, 0x8000)


def u64(values: npt.ArrayLike) -> np.ndarray:
    return np.array(values, np.uint64)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0, 1, 8, 64, 1 << 12, 1 << 21, 1 << 31, 1 << 44]),
                          st.sampled_from([0, 1, 7, 8, 24, 4096, 1 << 22])), min_size=1, max_size=12),
       st.integers(1, 40), st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(-20, 1 << 23)), max_size=20))
def test_each_address_is_found_in_the_block_that_holds_it(gaps: list[tuple[int, int]], repeat: int, picks: list[tuple[int, int]]) -> None:
    """Blocks that are dense, huge, far apart, empty or odd: the first, last and middle addresses, and those beside."""
    starts, sizes, at = [], [], HEAP
    for gap, size in gaps:
        at += gap
        for _ in range(repeat if size < 4096 else 1):  # Many in one granule.
            starts.append(at)
            sizes.append(size)
            at += max(size, 1)
    table = BlockTable(u64(starts), u64(sizes))
    asked = [starts[n % len(starts)] + offset for n, offset in picks]
    asked += [start + off for start, size in zip(starts, sizes, strict=True) for off in (-1, 0, size // 2, size - 1, size)]
    asked = [one for one in asked if starts[0] <= one < starts[-1] + max(sizes[-1], 1)]
    blocks, offsets = table.find(u64(asked) - np.uint64(table.lowest))
    for address, block, offset in zip(asked, blocks.tolist(), offsets.tolist(), strict=True):
        holder = int(np.searchsorted(u64(starts), np.uint64(address), side="right")) - 1
        if address - starts[holder] < max(sizes[holder], 1):
            assert (block, offset) == (holder, address - starts[holder])
        else:
            assert offset >= max(sizes[block], 1)


def test_the_table_is_small_where_blocks_are_far_apart_or_huge() -> None:
    """A heap and mappings 42 TB further on, one of them 64 GB large, take few entries, and are found."""
    starts = np.concatenate([HEAP + 16 * np.arange(5000), 0x7F00_0000_0000 + (np.arange(50) << 40 >> 8)]).astype(np.uint64)
    sizes = np.full(len(starts), 16, np.uint64)
    sizes[-1] = 1 << 36
    table = BlockTable(starts, sizes)
    assert table._entries.nbytes < 1 << 20
    asked = np.append(starts, starts[-1] + np.uint64((1 << 36) - 1)) - starts[0]
    blocks, offsets = table.find(asked)
    assert blocks.tolist() == [*range(len(starts)), len(starts) - 1]
    assert offsets[-1] == (1 << 36) - 1 and not offsets[:-1].any()


@pytest.mark.parametrize("starts", [[16, 16], [32, 16]])
def test_blocks_out_of_order_are_refused(starts: list[int]) -> None:
    """Two at one address, or a lower one later, raise ValueError."""
    with pytest.raises(ValueError, match="ascending"):
        PointerScan(u64(starts), u64([8, 8]))


def test_without_blocks_there_is_nothing_to_find() -> None:
    """An empty table of blocks makes an empty graph."""
    scan = PointerScan(u64([]), u64([]))
    scan.add(GLOBALS, u64([1, 2]))
    scan.add_root_values(u64([1]), "r")
    assert len(classify(scan.finish())) == 0


def test_a_pieces_order_and_its_cuts_do_not_change_the_graph() -> None:
    """Edges of pieces that are cut inside a block, added last to first, are those of one piece."""
    generator = np.random.default_rng(3)
    starts = HEAP + 64 * np.arange(500, dtype=np.uint64)
    words = starts[generator.integers(0, 500, 4000)] + generator.choice(u64([0, 0, 4, 64]), 4000)
    graphs = []
    for pieces in ([(0, 4000)], [(begin, min(begin + 333, 4000)) for begin in range(0, 4000, 333)][::-1]):
        scan = PointerScan(starts, np.full(500, 56, np.uint64))
        for begin, end in pieces:
            scan.add(HEAP + 8 * begin, words[begin:end])
        graphs.append(scan.finish())
    # Which pointers to blocks with roots of their own are kept depends on what came first.
    assert (graphs[0].start_roots != 0).tolist() == (graphs[1].start_roots != 0).tolist()
    rootless = graphs[0].start_roots == 0
    for name in ("starts", "interior"):
        one, other = (sorted((source, int(edges.target[at]), int(edges.word[at])) for source in range(500)
                             for at in range(edges.first[source], edges.first[source + 1])
                             if rootless[edges.target[at]]) for edges in (getattr(graph, name) for graph in graphs))
        assert one == other and (one or not rootless.any())


def heuristic_kind(size: int, words: dict[int, int], offset: int, *, peek: bool = True, vtables: bool = True) -> Kind:
    """Return the kind of a block of that size, with words at offsets, to which one root points at an offset."""
    content = {HEAP + at: word for at, word in words.items()}
    scan = PointerScan(u64([HEAP]), u64([size]))
    scan.add(GLOBALS, u64([0, HEAP + offset]))
    graph = scan.finish(
        (lambda addresses: u64([content.get(int(one), 0) for one in addresses])) if peek else None,
        (lambda addresses: np.array([int(one) in VTABLES for one in addresses])) if vtables else None)
    return Kind(classify(graph)[0])


STRING = {0: 5, 8: 10, 16: 0}
TWO_BASES = {0: 0x7010, 16: 0x7040}


@pytest.mark.parametrize(("size", "words", "offset", "kind"), [
    # stdstring: length, capacity, count, and capacity + 1 characters
    (35, STRING, 24, Kind.REACHABLE),
    (35, {0: 10, 8: 10}, 24, Kind.REACHABLE),
    (35, {0: 11, 8: 10}, 24, Kind.POSSIBLY),
    (36, STRING, 24, Kind.POSSIBLY),
    (35, STRING, 25, Kind.POSSIBLY),
    (35, STRING, 16, Kind.POSSIBLY),
    # length64: the first word is what follows
    (39, {0: 31}, 8, Kind.REACHABLE),
    (39, {0: 30}, 8, Kind.POSSIBLY),
    (39, {0: 31}, 16, Kind.POSSIBLY),
    # newarray: a number of elements of equal size
    (8 + 3 * 24, {0: 3}, 8, Kind.REACHABLE),
    (8 + 3 * 24, {0: 5}, 8, Kind.POSSIBLY),
    (8 + 3 * 24, {0: 0}, 8, Kind.POSSIBLY),
    (8 + 3 * 24, {0: 73}, 8, Kind.POSSIBLY),
    # multipleinheritance: a vtable's address at the start and where the pointer points
    (32, TWO_BASES, 16, Kind.REACHABLE),
    (32, {0: 0x7010, 16: 0x9000}, 16, Kind.POSSIBLY),
    (32, {0: 0x9000, 16: 0x7010}, 16, Kind.POSSIBLY),
    (32, {0: 0x7010, 16: 0x7041}, 16, Kind.POSSIBLY),
    (32, TWO_BASES, 24, Kind.POSSIBLY),
    (23, TWO_BASES, 16, Kind.POSSIBLY),
])
def test_an_inside_pointer_counts_as_one_to_the_start_where_a_heuristic_holds(size: int, words: dict[int, int], offset: int, kind: Kind) -> None:
    """Each heuristic where it just holds and where it just does not."""
    assert heuristic_kind(size, words, offset) == kind


def test_without_a_way_to_read_there_are_no_heuristics() -> None:
    """No peek: all insides are possibly; no test for vtables: only that heuristic is off."""
    assert heuristic_kind(35, STRING, 24, peek=False) == Kind.POSSIBLY
    assert heuristic_kind(32, TWO_BASES, 16, vtables=False) == Kind.POSSIBLY
    assert heuristic_kind(35, STRING, 24, vtables=False) == Kind.REACHABLE


def test_a_pointer_from_a_block_or_a_register_may_be_heuristic_too() -> None:
    """An array of counted elements is reachable through a block that holds its second word, and from a register."""
    blocks, words = u64([HEAP, HEAP + 64]), np.zeros(16, np.uint64)
    words[1], words[8] = HEAP + 72, 2
    for roots, by_register in (([HEAP], []), ([], [HEAP + 72])):
        scan = PointerScan(blocks, u64([24, 40]))
        scan.add(HEAP, words)
        scan.add(GLOBALS, u64([*roots, 0]))
        scan.add_root_values(u64(by_register), "rax")
        graph = scan.finish(lambda addresses: words.take((addresses - np.uint64(HEAP)) // np.uint64(8)))
        assert classify(graph)[1] == Kind.REACHABLE
        assert classify(graph)[0] == (Kind.REACHABLE if roots else Kind.DEFINITELY)


def test_excluded_ranges_hold_no_roots_but_blocks() -> None:
    """Overlapping and touching ranges in any order: their words are no roots, a block in them still points."""
    scan = PointerScan(u64([HEAP, HEAP + 64, HEAP + 128]), u64([32] * 3))
    scan.exclude(u64([[HEAP, HEAP + 4096], [GLOBALS + 16, GLOBALS + 24], [GLOBALS + 9, GLOBALS + 9]]))
    scan.exclude(u64([[GLOBALS + 8, GLOBALS + 16]]))
    words = np.zeros(32, np.uint64)
    words[2], words[30] = HEAP + 64, HEAP + 128
    scan.add(HEAP, words)
    scan.add(GLOBALS, u64([HEAP, HEAP + 128, HEAP + 128, 0]))
    assert classify(scan.finish()).tolist() == [Kind.REACHABLE, Kind.REACHABLE, Kind.DEFINITELY]
