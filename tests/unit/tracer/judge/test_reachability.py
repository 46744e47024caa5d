"""The four kinds of blocks against a definition by dictionaries, and the way to a block."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.judge.pointers import PointerGraph, PointerScan
from tracer.judge.reachability import Kind, Step, classify, path_to, paths_to

BASE = 0x5000_0000
WORDS = 48
R, P, N, D = Kind  # N: indirectly
#: Blocks with their sizes, words, ranges left out, and values in registers.
Process = tuple[list[tuple[int, int]], list[int], list[tuple[int, int]], list[int]]


def u64(values: npt.ArrayLike) -> np.ndarray:
    return np.array(values, np.uint64)


def scan(blocks: Sequence[tuple[int, int]], words: Sequence[int], excluded: Sequence[tuple[int, int]] = (),
         registers: Sequence[int] = (), cuts: Sequence[int] = ()) -> PointerGraph:
    """Return the graph of words from BASE on, added in pieces that end at the cuts."""
    one = PointerScan(u64([start for start, _ in blocks]), u64([size for _, size in blocks]))
    one.exclude(u64(list(excluded)).reshape(-1, 2))
    one.add_root_values(u64(list(registers)), "registers")
    ends = sorted({*cuts, 0, len(words)})
    for begin, end in reversed(list(pairwise(ends))):
        one.add(BASE + 8 * begin, u64(words[begin:end]))
    return one.finish()


def naive_kinds(blocks: Sequence[tuple[int, int]], words: Sequence[int], excluded: Sequence[tuple[int, int]],
                registers: Sequence[int]) -> list[Kind]:
    """Return the kinds as valgrind comes to them: a walk over all, one word after the other."""
    def block_at(address: int) -> int | None:
        return next((n for n, (start, size) in enumerate(blocks) if start <= address < start + max(size, 1)), None)

    roots = list(registers)
    held: dict[int, list[int]] = {n: [] for n in range(len(blocks))}
    for number, value in enumerate(words):
        address = BASE + 8 * number
        holder = block_at(address)
        if holder is None:
            if not any(first <= address < end for first, end in excluded):
                roots.append(value)
        elif address + 8 <= blocks[holder][0] + blocks[holder][1]:
            held[holder].append(value)
    state: dict[int, Kind] = {}
    from_roots = [(value, R) for value in roots]
    while from_roots:
        value, before = from_roots.pop()
        target = block_at(value)
        if target is not None:
            now = max(before, R if blocks[target][0] == value else P)
            if now < state.get(target, N):
                state[target] = now
                from_roots += [(inner, now) for inner in held[target]]
    for leader in range(len(blocks)):
        if leader not in state:
            waiting = list(held[leader])
            while waiting:
                target = block_at(waiting.pop())
                if target is not None and target not in state and target != leader:
                    state[target] = N
                    waiting += held[target]
    return [state.get(n, D) for n in range(len(blocks))]


@st.composite
def processes(draw: st.DrawFn) -> Process:
    """Blocks, often adjacent, some empty or not a multiple of a word, in memory of which most words are pointers."""
    blocks, at = [], BASE + 8 * draw(st.integers(0, 6))
    for size in draw(st.lists(st.sampled_from([0, 1, 8, 8, 12, 16, 16, 16, 24, 31, 40]), max_size=9)):
        blocks.append((at, size))
        at += -(-max(size, 1) // 8) * 8 + 8 * draw(st.integers(0, 1))
    starts = [start for start, _ in blocks] or [BASE]
    pointer = st.one_of(st.sampled_from(starts), st.sampled_from(starts), st.integers(BASE - 9, at + 9), st.just(0))
    words = draw(st.lists(st.one_of(st.just(0), pointer), min_size=WORDS, max_size=WORDS))
    if draw(st.booleans()):  # Few roots, so that much is lost.
        words = [value if any(start <= BASE + 8 * n < start + size for start, size in blocks) or n % 16 == 0 else 0
                 for n, value in enumerate(words)]
    bound = st.integers(BASE - 8, BASE + 8 * WORDS)
    excluded = draw(st.lists(st.tuples(bound, bound), max_size=3))
    return blocks, words, excluded, draw(st.lists(pointer, max_size=1))


@settings(max_examples=150, deadline=None)
@given(processes(), st.lists(st.integers(0, WORDS), max_size=3))
def test_kinds_are_those_of_a_walk_word_by_word(process: Process, cuts: list[int]) -> None:
    """Cycles, self pointers, insides, empty and adjacent blocks, ranges left out: as the definition has it, in any pieces."""
    blocks, words, excluded, registers = process
    graph = scan(blocks, words, excluded, registers, cuts)
    assert classify(graph).tolist() == naive_kinds(*process)


@settings(max_examples=50, deadline=None)
@given(processes())
def test_a_path_goes_by_words_that_hold_the_pointers(process: Process) -> None:
    """Each step's word points at the next block, and a reachable block's path has no interior pointer."""
    blocks, words, _, registers = process
    graph = scan(*process)
    kinds = classify(graph)
    for block, path in enumerate(paths_to(graph, range(len(blocks)))):
        assert (path is None) == (kinds[block] > P)
        if path is None:
            continue
        assert path[0].block is None
        assert any(step.interior for step in path) == (kinds[block] == P)
        for step, following in zip(path, [*[one.block for one in path[1:]], block], strict=True):
            assert following is not None
            start, size = blocks[following]
            values = registers if step.address is None else [words[(step.address - BASE) // 8]]
            assert any(start < value < start + size if step.interior else value == start for value in values)
            assert step.block is None or step.address == blocks[step.block][0] + step.offset


def four(edges: list[tuple[int, int]], count: int) -> list[int]:
    """Return kinds of blocks of 4 words that point at each other, none of them from a root."""
    words = [0] * (4 * count)
    for source, target in edges:
        words[words.index(0, 4 * source)] = BASE + 32 * target
    return [int(kind) for kind in classify(scan([(BASE + 32 * n, 32) for n in range(count)], words))]


@pytest.mark.parametrize(("edges", "kinds"), [
    ([(0, 1), (1, 2)], [D, N, N]),
    ([(2, 1), (1, 0)], [N, N, D]),
    ([(0, 0)], [D]),
    ([(0, 1), (1, 2), (2, 0)], [D, N, N]),
    ([(1, 0), (0, 1), (0, 2)], [D, N, N]),
    ([(0, 1), (1, 2), (2, 1)], [D, N, N]),
    # Pointed at from above only: at the block where the walk began, and at another one of the cycle.
    ([(0, 1), (1, 0), (2, 0)], [N, N, D]),
    ([(0, 1), (1, 0), (2, 1)], [D, N, D]),
])
def test_of_lost_blocks_the_lowest_that_nobody_else_leads_to_is_definite(edges: list[tuple[int, int]], kinds: list[Kind]) -> None:
    """Chains, cycles, and cycles that another lost block points into."""
    assert four(edges, len(kinds)) == kinds


def test_a_register_is_named_and_the_shortest_way_is_told() -> None:
    """A way of one block from a register is preferred to one of two from memory."""
    blocks = [(BASE + 32 * n, 32) for n in range(3)]
    words = [0] * 12 + [BASE]
    words[1], words[6], words[11] = BASE + 32, BASE + 64, BASE + 64
    one = PointerScan(u64([start for start, _ in blocks]), u64([32] * 3))
    one.add(BASE, u64(words))
    one.add_root_values(u64([7, BASE + 32]), "thread 7")
    graph = one.finish()
    assert path_to(graph, 2) == [Step(None, 0, None, "thread 7", False), Step(1, 16, BASE + 48, None, False)]
    assert path_to(graph, 0) == [Step(None, 0, BASE + 96, None, False)]


@pytest.mark.parametrize("rooted", [True, False])
def test_a_long_list_is_walked_without_recursion(rooted: bool) -> None:
    """A list of 50,000 nodes is reached to its end, or lost with one definite block; its path is as long."""
    count = 50_000
    words = np.zeros((count, 4), np.uint64)
    words[:-1, 1] = BASE + 32 * np.arange(1, count, dtype=np.uint64)
    one = PointerScan(np.uint64(BASE) + 32 * np.arange(count, dtype=np.uint64), np.full(count, 32, np.uint64))
    one.add(BASE, words.reshape(-1))
    one.add(0x1000_0000, u64([BASE if rooted else 0]))
    graph = one.finish()
    assert np.bincount(classify(graph), minlength=4).tolist() == ([count, 0, 0, 0] if rooted else [0, 0, count - 1, 1])
    path = path_to(graph, count - 1)
    assert path is None if not rooted else path is not None and len(path) == count


def test_a_wide_graph_is_walked_as_a_narrow_one() -> None:
    """A tree of which each level is wider than the last: all blocks are reached, by paths as long as their depth."""
    count = 5_000
    words = np.zeros((count, 8), np.uint64)
    children = np.arange(1, count)
    words[(children - 1) // 7, (children - 1) % 7] = BASE + 64 * children.astype(np.uint64)
    one = PointerScan(np.uint64(BASE) + 64 * np.arange(count, dtype=np.uint64), np.full(count, 64, np.uint64))
    one.add(BASE, words.reshape(-1))
    one.add(0x1000_0000, u64([BASE]))
    graph = one.finish()
    assert not classify(graph).any()
    path = path_to(graph, count - 1)
    assert path is not None and [step.block for step in path] == [None, 0, 1, 14, 101, 714]


def test_what_a_possibly_lost_block_leads_to_is_possibly_lost() -> None:
    """By its start or its inside, and by start pointers from there on, however many follow."""
    words = [0] * 16 + [BASE + 8]
    words[0], words[1], words[4], words[8] = BASE + 40, BASE + 96, BASE + 64, BASE + 96
    assert classify(scan([(BASE + 32 * n, 32) for n in range(4)], words)).tolist() == [P, P, P, P]
