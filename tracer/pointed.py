"""Answers who points at a site's blocks or at an address: the chain of pointers from its root, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import groupby

import numpy as np

from symbolizer.frame import Frame
from symbolizer.symbolizer import Symbolizer
from tracer.attach.objects import Objects
from tracer.holdings import Sites
from tracer.judge.reachability import Step, path_to, paths_to
from tracer.looks import IN_KERNEL, Look, Looked
from tracer.pointer_names import PointerNames
from tracer.pointer_places import ChainBlock, PointerPlace, chain
from tracer.report.model import Finding, PointerNote
from tracer.report.wording import known_by
from tracer.settings import Settings

#: Blocks of one site whose chains are followed, and different chains that are named.
BLOCKS, CHAINS = 200, 3


class Pointed:
    """The answers for one report."""

    def __init__(self, settings: Settings, symbolizer: Symbolizer, objects: Objects, sites: Sites,
                 looked: Looked) -> None:
        self._settings, self._symbolizer, self._objects = settings, symbolizer, objects
        self._sites, self._looked = sites, looked
        self._names: dict[int, PointerNames] = {}

    def notes(self, findings: Sequence[tuple[int, Finding]]) -> tuple[PointerNote, ...]:
        """Answer everything that was asked for. findings: with the rows of their sites."""
        return tuple(PointerNote(asked, self._answer(asked, findings)) for asked in self._settings.who_points_at)

    def _answer(self, asked: str, findings: Sequence[tuple[int, Finding]]) -> tuple[str, ...]:
        if not self._looked.looks:
            return ("no memory was looked at",)
        if asked.lower().startswith("0x"):
            return self._to_address(int(asked, 16))
        rows = [row for row, finding in findings if _is_asked(asked, finding)]
        if not rows:
            return ("no site of this report has that rank or function",)
        return tuple(line for row in rows for line in self._to_site(row))

    def _to_address(self, address: int) -> tuple[str, ...]:
        for look in self._looked.looks:
            block = _block_at(look, address)
            if block is not None:
                steps = path_to(look.graph, block)
                return _folded(self._lines(look, block, steps)) if steps is not None else (
                    self._block(look, block, None).words(), "nobody points at it")
        return ("it lies in no block that was allocated while leaktrace traced",)

    def _to_site(self, row: int) -> tuple[str, ...]:
        """Name the chains that most of the blocks of a site hang on."""
        where, rows = self._sites.placed
        addresses = np.sort(where[rows == row])
        if len(addresses) > BLOCKS:
            addresses = addresses[np.linspace(0, len(addresses) - 1, BLOCKS).astype(int)]
        chains: Counter[tuple[str, ...]] = Counter()
        longest: dict[tuple[str, ...], tuple[str, ...]] = {}
        for look in self._looked.looks:
            numbers = [number for each in addresses.tolist() if (number := _block_at(look, each)) is not None]
            for block, steps in zip(numbers, paths_to(look.graph, numbers), strict=True):
                words = self._lines(look, block, steps) if steps is not None else ("nobody points at them",)
                # A list's blocks hang on chains that differ in length only.
                key = tuple(line for line, _ in groupby(words))
                chains[key] += 1
                longest[key] = max(longest.get(key, ()), words, key=len)
        total, lines = sum(chains.values()), []
        for key, count in chains.most_common(CHAINS):
            words = _folded(longest[key])
            if total > 1:
                lines.append(f"{count} of {total} blocks looked at:")
            lines += [f"  {word}" for word in words] if total > 1 else words
        return tuple(lines)

    def _lines(self, look: Look, block: int, steps: Sequence[Step]) -> tuple[str, ...]:
        first, *rest = steps
        way = [self._block(look, step.block, step.offset) for step in rest if step.block is not None]
        way.append(self._block(look, block, None))
        if first.label == IN_KERNEL:
            return "kept by the kernel (epoll or a timer)", *(each.words() for each in way)
        return chain(self._root(look, first), way)

    def _root(self, look: Look, step: Step) -> PointerPlace:
        names = self._names.get(look.uid)
        if names is None:
            names = self._names[look.uid] = PointerNames(
                self._symbolizer, look.space, self._objects, look.memory.read, style=self._settings.demangle)
            for thread in look.facts.threads:
                names.add_thread(thread.tid, sp=thread.sp, bp=thread.bp, ip=thread.ip, fs_base=thread.fs_base)
        if step.address is not None:
            return names.root(step.address)
        tid, _, name = (step.label or "").partition(" ")
        return names.register(int(tid), name)

    def _block(self, look: Look, block: int, offset: int | None) -> ChainBlock:
        address = int(look.graph.addresses[block])
        return ChainBlock(address, int(look.graph.sizes[block]), offset, self._maker(address))

    def _maker(self, address: int) -> str | None:
        where, rows = self._sites.placed
        at = np.flatnonzero(where == np.uint64(address))
        return known_by(self._sites.frames(int(rows[at[0]]))) if len(at) else None


def _folded(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the lines of a chain, equal ones in a row as one with their number."""
    runs = [(line, len(list(run))) for line, run in groupby(lines)]
    return tuple(f"{line} ({count} in a row)" if count > 1 else line for line, count in runs)


def _block_at(look: Look, address: int) -> int | None:
    """Return the number of the block that an address lies in, None if it lies in none."""
    graph = look.graph
    at = int(np.searchsorted(graph.addresses, np.uint64(address), side="right")) - 1
    if at < 0:
        return None
    offset = address - int(graph.addresses[at])
    return at if offset == 0 or offset < int(graph.sizes[at]) else None


def _is_asked(asked: str, finding: Finding) -> bool:
    if asked.isdigit():
        return finding.rank == int(asked)
    return any(_bare(frame) == asked or frame.function == asked for frame in finding.frames)


def _bare(frame: Frame) -> str:
    """Return a function's name without its parameters."""
    return (frame.function or "").partition("(")[0]
