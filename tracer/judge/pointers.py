"""Words of a process's memory that point at live blocks, as a graph."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracer.judge.block_table import I32, I64, U64, BlockTable
from tracer.judge.interior import Peek, Test, counts_as_start

U32 = npt.NDArray[np.uint32]
Bools = npt.NDArray[np.bool_]

_WORD = 8
# Words looked at together: the passes' results stay in the cache, and calling numpy does not count.
_CHUNK = 1 << 18
_GROWTH = 1 << 16
#: No word of a process lies below it, so numbers below it name labels.
_FIRST_PAGE = 4096


@dataclass(frozen=True, slots=True)
class Edges:
    """Pointers from block to block, by the block that holds them.

    Those that block b holds are numbers first[b] to first[b + 1]. first: int64 (n + 1,); target: the block pointed at,
    int32 (m,); word: where in its block the pointer stands, in words from the block's first whole one, uint32 (m,)
    (blocks of 32 GiB and more: modulo that).
    """

    first: I64
    target: I32
    word: U32


@dataclass(frozen=True, slots=True)
class PointerGraph:
    """What points at n live blocks.

    addresses, sizes: uint64 (n,), in bytes. starts: pointers to a block's start, or inside it where a heuristic says
    that the program keeps such a one instead; interior: the other pointers inside. start_roots, interior_roots: one
    root word that holds such a pointer to the block, uint64 (n,): its address; 0: there is none; k in 1 to 4095: it is
    one of the values labelled labels[k - 1]. Of the pointers to a block with a start_root not all are here.
    """

    addresses: U64
    sizes: U64
    starts: Edges
    interior: Edges
    start_roots: U64
    interior_roots: U64
    labels: tuple[str, ...]


class _Growing:
    """Numbers of one type, appended; the memory that they fill is touched once, which costs more than all else."""

    def __init__(self, dtype: type[np.generic]) -> None:
        self._array = np.empty(_GROWTH, dtype)
        self._used = 0

    def append(self, numbers: npt.NDArray[np.generic], chosen: I64 | None = None) -> None:
        """Append those numbers, or the chosen ones of them."""
        begin = self._used
        self._used += len(numbers) if chosen is None else len(chosen)
        if self._used > len(self._array):
            # In place: the system moves pages, not their contents.
            self._array.resize(self._used + max(_GROWTH, self._used // 4), refcheck=False)
        if chosen is None:
            self._array[begin : self._used] = numbers
        else:
            numbers.take(chosen, out=self._array[begin : self._used], mode="clip")

    def close(self) -> npt.NDArray[Any]:
        """Return them all."""
        self._array.resize(self._used, refcheck=False)
        return self._array


class PointerScan:
    """Takes a process's memory piece by piece, and keeps only the pointers to blocks that it finds in it."""

    def __init__(self, addresses: U64, sizes: U64) -> None:
        """Begin a scan for pointers to these blocks: uint64 (n,), in bytes, by ascending address, without overlap.

        Raises ValueError if two blocks start at one address, or out of order.
        """
        self._addresses = np.ascontiguousarray(addresses, np.uint64)
        self._sizes = np.ascontiguousarray(sizes, np.uint64)
        self._table = BlockTable(self._addresses, self._sizes) if len(addresses) else None
        self._excluded: U64 = np.zeros(0, np.uint64)
        self._labels: list[str] = []
        self._roots: U64 = np.zeros(len(addresses), np.uint64)
        self._rootless: Bools = np.ones(len(addresses), np.bool_)
        self._held: I64 = np.zeros(len(addresses), np.int64)
        self._targets, self._words = _Growing(np.int32), _Growing(np.uint32)
        #: Where each chunk began, and how many pointers to starts its blocks held.
        self._chunks: list[tuple[int, int]] = []
        self._where, self._distances = _Growing(np.uint64), _Growing(np.uint64)

    def exclude(self, ranges: U64) -> None:
        """Name memory that holds no roots: uint64 (k, 2), each the first address and the one behind the last.

        Only for what is added later. Blocks in these ranges are looked at nevertheless.
        """
        bounds = np.concatenate([self._excluded.reshape(-1, 2), ranges.astype(np.uint64).reshape(-1, 2)])
        merged: list[list[int]] = []
        for first, end in sorted(bounds.tolist()):
            if merged and first <= merged[-1][1]:
                merged[-1][1] = max(end, merged[-1][1])
            elif first < end:
                merged.append([first, end])
        self._excluded = np.array(merged, np.uint64).reshape(-1)

    def add(self, start: int, words: U64) -> None:
        """Look at one contiguous piece of memory: its address, a multiple of 8, and its words, uint64 (k,).

        A word that lies in a block belongs to it, one that begins in no block is a root, and one of which a block's
        end cuts off a part is nobody's. Pieces may come in any order but must not overlap; roots first saves memory.
        """
        if self._table is None:
            return
        lowest, span = np.uint64(self._table.lowest), np.uint64(self._table.span)
        distances = np.empty(min(_CHUNK, len(words)), np.uint64)
        near = np.empty(len(distances), np.bool_)
        for at in range(0, len(words), _CHUNK):
            chunk = words[at : at + _CHUNK]
            size = len(chunk)
            np.subtract(chunk, lowest, out=distances[:size])
            np.less(distances[:size], span, out=near[:size])
            hits = near[:size].nonzero()[0]
            if len(hits):
                self._look_up(start + at * _WORD, hits, distances.take(hits))

    def add_root_values(self, values: U64, label: str) -> None:
        """Take the values (k,) of one thread's registers, or the like, as roots of that name."""
        if self._table is None:
            return
        if len(self._labels) < _FIRST_PAGE - 1:  # More threads than that share the last name.
            self._labels.append(label)
        distances = values - np.uint64(self._table.lowest)
        distances = distances[distances < np.uint64(self._table.span)]
        target, depth = self._table.find(distances)
        where = np.full(len(target), len(self._labels), np.uint64)
        self._note_roots(target[depth == 0], where[depth == 0])
        inside = (depth > 0) & (depth < self._table.lengths.take(target))
        self._where.append(where[inside])
        self._distances.append(distances[inside])

    def finish(self, peek: Peek | None = None, is_vtable: Test | None = None) -> PointerGraph:
        """Return the graph of all that was added; the scan is over then.

        peek: returns the words at these addresses (both uint64 (k,)), 0 where there is none; is_vtable: whether
        a C++ vtable begins at these. Without them no heuristics: every pointer inside a block is an interior one.
        """
        target, word = self._by_address(self._targets.close()), self._by_address(self._words.close())
        where, distances = self._where.close(), self._distances.close()
        starts = Edges(_offsets(self._held), target, word)
        interior = Edges(np.zeros_like(starts.first), target[:0], word[:0])
        roots, interior_roots = self._roots, np.zeros_like(self._roots)
        if self._table is not None and len(where):
            target, depth = self._table.find(distances)
            counts = counts_as_start(self._addresses[target], self._sizes[target], depth, peek, is_vtable)
            source, word, held, _ = self._holders(where)
            self._note_roots(target[counts & ~held], where[counts & ~held])
            rooted = ~counts & ~held
            interior_roots[target[rooted]] = where[rooted]
            starts = _with(starts, source[counts & held], target[counts & held], word[counts & held])
            interior = _with(interior, source[held & ~counts], target[held & ~counts], word[held & ~counts])
        return PointerGraph(self._addresses, self._sizes, starts, interior, roots, interior_roots, tuple(self._labels))

    def _look_up(self, start: int, hits: I64, distances: U64) -> None:
        """Sort pointers by what they are: words of these numbers, at an address, that hold these distances."""
        assert self._table is not None
        target, depth = self._table.find(distances)
        # To a block that has a root of its own no other pointer changes anything; to pick out few does not pay.
        news = self._rootless.take(target)
        if 2 * np.count_nonzero(news) < len(news):
            picked = news.nonzero()[0]
            hits, distances = hits.take(picked), distances.take(picked)
            target, depth = target.take(picked), depth.take(picked)
        where = (hits << 3).view(np.uint64)
        where += np.uint64(start)
        holder, word, held, outside = self._holders(where)
        is_edge = held & (depth == 0)
        edges = is_edge.nonzero()[0]
        if len(edges) < len(hits):
            rest = (~is_edge).nonzero()[0]
            self._look_up_rest(*(one.take(rest) for one in (where, distances, target, depth, held, outside)))
        if len(edges):
            self._targets.append(target, edges)
            self._words.append(word, edges)
            holder = holder.take(edges)
            last = np.append((holder[1:] != holder[:-1]).nonzero()[0], len(holder) - 1)
            self._held[holder.take(last)] += np.diff(last, prepend=-1)
            self._chunks.append((start, len(edges)))

    def _look_up_rest(self, where: U64, distances: U64, target: I32, depth: U64, held: Bools, outside: Bools) -> None:
        """Note the roots, and keep the pointers to insides."""
        assert self._table is not None
        if len(self._excluded):
            outside &= np.searchsorted(self._excluded, where, side="right") & 1 == 0
        roots = (outside & (depth == 0)).nonzero()[0]
        self._note_roots(target.take(roots), where.take(roots))
        inner = ((held | outside) & (depth > 0) & (depth < self._table.lengths.take(target))).nonzero()[0]
        self._where.append(where, inner)
        self._distances.append(distances, inner)

    def _by_address(self, numbers: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return what was appended chunk by chunk in the order of the chunks' addresses."""
        begins = np.cumsum([0, *(count for _, count in self._chunks)]).tolist()
        order = sorted(range(len(self._chunks)), key=lambda number: self._chunks[number][0])
        if order == list(range(len(order))):
            return numbers
        return np.concatenate([numbers[begins[number] : begins[number + 1]] for number in order])

    def _note_roots(self, target: I32, where: U64) -> None:
        # The first one found stays; of several in one chunk that is the last.
        news = self._rootless.take(target).nonzero()[0]
        self._roots[target.take(news)] = where.take(news)
        self._rootless[target.take(news)] = False

    def _holders(self, where: U64) -> tuple[I32, U32, Bools, Bools]:
        """Return for words at these addresses: the block and the word in it, whether it holds it whole, or not at all.

        Where no block holds the word whole the first two mean nothing.
        """
        assert self._table is not None
        distances = where - np.uint64(self._table.lowest)
        beyond = distances >= np.uint64(self._table.span)
        any_beyond = bool(beyond.any())
        if any_beyond:
            distances[beyond] = 0
        block, offset = self._table.find(distances)
        length = self._table.lengths.take(block)
        outside = offset >= length
        word = (offset >> np.uint64(3)).astype(np.uint32)
        offset += np.uint64(_WORD)
        held = offset <= length
        if any_beyond:
            outside |= beyond
            held &= ~beyond
        return block, word, held, outside


def _offsets(counts: I64) -> I64:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(counts)])


def _with(edges: Edges, source: I32, target: I32, word: U32) -> Edges:
    """Add pointers, given in any order."""
    if not len(source):
        return edges
    order = np.argsort(source, kind="stable")
    places = edges.first[source.take(order) + 1]
    first = edges.first + _offsets(np.bincount(source, minlength=len(edges.first) - 1))
    return Edges(first, np.insert(edges.target, places, target.take(order)),
                 np.insert(edges.word, places, word.take(order)))
