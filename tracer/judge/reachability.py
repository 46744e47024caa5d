"""Which live blocks a process can still get at: valgrind's four kinds, and the way to a block.

A block is reachable if a chain of pointers to starts of blocks leads to it from a root, and possibly lost if only one
does that goes through the inside of a block. Of the others the lost ones are definitely lost, except those that
another lost one points at, which are lost indirectly; among those start and inside count the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from tracer.judge.block_table import I32, I64, runs
from tracer.judge.pointers import Edges, PointerGraph

Bools = npt.NDArray[np.bool_]

#: At fewer blocks a numpy step costs more than a loop over them: a linked list has one block a step.
_NARROW = 32
#: Blocks whose pointers are followed at once, so that the arrays over these stay in the cache.
_TOGETHER = 1 << 13


class Kind(IntEnum):
    """How a block can be reached."""

    REACHABLE = 0
    POSSIBLY = 1
    INDIRECTLY = 2
    DEFINITELY = 3


@dataclass(frozen=True, slots=True)
class Step:
    """One holder of a pointer on the way to a block.

    block: the block that holds it, None for a root; offset: where in that block, in bytes; address: of the word that
    holds it, None for a register, which label names; interior: it points inside the next block, not at its start.
    """

    block: int | None
    offset: int
    address: int | None
    label: str | None
    interior: bool


def classify(graph: PointerGraph) -> npt.NDArray[np.uint8]:
    """Return the Kind of each block, uint8 (n,)."""
    reached = graph.start_roots != 0
    spread(reached, reached.nonzero()[0], (graph.starts,))
    kinds = np.where(reached, Kind.REACHABLE, Kind.POSSIBLY).astype(np.uint8)
    if not reached.all():
        inside = graph.interior_roots != 0
        inside[graph.interior.target[np.repeat(reached, np.diff(graph.interior.first))]] = True
        inside &= ~reached
        reached |= inside
        spread(reached, inside.nonzero()[0], (graph.starts, graph.interior))
        lost = (~reached).nonzero()[0]
        kinds[lost] = Kind.INDIRECTLY
        kinds[_definite(graph, lost)] = Kind.DEFINITELY
    return kinds


def spread(seen: Bools, frontier: I64, kinds: tuple[Edges, ...], parents: I32 | None = None) -> None:
    """Follow pointers from the frontier, blocks that are seen, and mark all that they lead to, nearest first.

    parents, int32 (n,): is filled with the block from which each was first met.
    """
    while len(frontier):
        if len(frontier) <= _NARROW:
            frontier = _spread_narrow(seen, frontier, kinds, parents)
            continue
        met = np.zeros(len(seen), np.bool_)
        for edges in kinds:
            for at in range(0, len(frontier), _TOGETHER):
                _spread_wide(seen, frontier[at : at + _TOGETHER], edges, parents, met)
        frontier = met.nonzero()[0]


def _spread_wide(seen: Bools, frontier: I64, edges: Edges, parents: I32 | None, met: Bools) -> None:
    """Do it for many blocks at once; what they newly lead to is marked in `met`, too."""
    firsts = edges.first.take(frontier)
    counts = edges.first.take(frontier + 1) - firsts
    targets = edges.target.take(runs(firsts, counts))
    fresh = (~seen.take(targets)).nonzero()[0]
    targets = targets.take(fresh)
    if parents is not None:
        parents[targets] = frontier.take(np.searchsorted(np.cumsum(counts), fresh, side="right"))
    seen[targets] = True
    met[targets] = True


def _spread_narrow(seen: Bools, frontier: I64, kinds: tuple[Edges, ...], parents: I32 | None) -> I64:
    """Do the same block by block, until the frontier is wide or empty; returns it."""
    tables = [(edges.first.data, edges.target.data) for edges in kinds]
    marks = seen.view(np.uint8).data
    level = frontier.tolist()
    while level and len(level) <= 2 * _NARROW:
        following = []
        for block in level:
            for first, target in tables:
                begin, end = first[block], first[block + 1]
                for at in range(begin, end):
                    aim = target[at]
                    if not marks[aim]:
                        marks[aim] = 1
                        following.append(aim)
                        if parents is not None:
                            parents[aim] = block
        level = following
    return np.array(level, np.int64)


def _definite(graph: PointerGraph, lost: I64) -> I64:
    """Return those of the lost blocks that are lost by themselves.

    Valgrind walks from the lost blocks by address. From one that no walk has met one begins, and all that it meets is
    indirect. A walk stops at what earlier walks met, but not at a block where one began: that becomes indirect too. So
    a block stays definite if no lower one leads to it, and all that point at it were met by its own walk. That is the
    lowest one of a cycle, too, where the rest of the cycle is pointed at from higher up.
    """
    walk = np.full(len(graph.addresses), -1, np.int32)
    pairs = [_edges_of(edges, lost) for edges in (graph.starts, graph.interior)]
    sources, targets = (np.concatenate(arrays) for arrays in zip(*pairs, strict=True))
    order = np.argsort(sources, kind="stable")
    sources, targets = sources.take(order), targets.take(order)
    holders, begins = np.unique(sources, return_index=True)
    _walk(walk, holders, np.append(begins, len(sources)), targets)
    unmet = walk[lost] < 0
    walk[lost[unmet]] = lost[unmet]
    met_by_others = np.zeros(len(walk), np.bool_)
    met_by_others[targets[walk[sources] != targets]] = True
    definite: I64 = lost[(walk[lost] == lost) & ~met_by_others[lost]]
    return definite


def _edges_of(edges: Edges, blocks: I64) -> tuple[I64, I64]:
    """Return source and target of the pointers that these blocks hold, without those to the block itself."""
    firsts = edges.first.take(blocks)
    counts = edges.first.take(blocks + 1) - firsts
    sources, targets = np.repeat(blocks, counts), edges.target.take(runs(firsts, counts)).astype(np.int64)
    others = sources != targets
    return sources[others], targets[others]


def _walk(walk: I32, holders: I64, begins: I64, targets: I64) -> None:
    """Write for each block that is met the lowest block that leads to it. holders, ascending: the targets' sources.

    Block by block, as the order decides; blocks that neither point nor are pointed at do not come here.
    """
    row_of = np.full(len(walk), -1, np.int32)
    row_of[holders] = np.arange(len(holders), dtype=np.int32)
    rows, firsts, aims, marks = (array.data for array in (row_of, begins, targets, walk))
    for leader in holders.tolist():
        if marks[leader] >= 0:
            continue
        marks[leader] = leader
        stack = [leader]
        while stack:
            row = rows[stack.pop()]
            if row < 0:
                continue
            for aim in aims[firsts[row] : firsts[row + 1]]:
                if marks[aim] < 0:
                    marks[aim] = leader
                    stack.append(aim)


def path_to(graph: PointerGraph, block: int) -> list[Step] | None:
    """Return the shortest way from a root to a block: if there are any, of those by pointers to starts; or None."""
    return paths_to(graph, [block])[0]


def paths_to(graph: PointerGraph, blocks: Sequence[int]) -> list[list[Step] | None]:
    """Return path_to() of each of these blocks, for little more than one of them costs."""
    paths: list[list[Step] | None] = [None] * len(blocks)
    any_roots = np.where(graph.start_roots != 0, graph.start_roots, graph.interior_roots)
    for roots, kinds in ((graph.start_roots, (graph.starts,)), (any_roots, (graph.starts, graph.interior))):
        if all(path is not None for path in paths):
            break
        reached = roots != 0
        parents = np.full(len(roots), -1, np.int32)
        spread(reached, reached.nonzero()[0], kinds, parents)
        for number, block in enumerate(blocks):
            if paths[number] is None and reached[block]:
                paths[number] = _steps(graph, roots, parents, block)
    return paths


def _steps(graph: PointerGraph, roots: npt.NDArray[np.uint64], parents: I32, block: int) -> list[Step]:
    steps = []
    while (holder := int(parents[block])) >= 0:
        steps.append(_step(graph, holder, block))
        block = holder
    where = int(roots[block])
    interior = not graph.start_roots[block]
    if where <= len(graph.labels):
        steps.append(Step(None, 0, None, graph.labels[where - 1], interior))
    else:
        steps.append(Step(None, 0, where, None, interior))
    return steps[::-1]


def _step(graph: PointerGraph, holder: int, block: int) -> Step:
    """Return where a block holds a pointer to another; the first to its start if there is one."""
    for edges in (graph.starts, graph.interior):
        begin, end = edges.first[holder : holder + 2]
        found = np.flatnonzero(edges.target[begin:end] == block)
        if len(found):
            start = int(graph.addresses[holder])
            address = -(-start // 8) * 8 + 8 * int(edges.word[begin + found[0]])
            return Step(holder, address - start, address, None, edges is graph.interior)
    raise ValueError(f"block {holder} does not point at block {block}")
