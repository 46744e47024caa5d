"""Gives stacks their names, and says which of them are one site; each stack is looked at once, however many reports."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from symbolizer.frame import Frame, Why
from symbolizer.grouping import GroupBy, drop_allocator_frames, fold_recursion, key
from symbolizer.mappings import Mapping, object_key
from symbolizer.perf_map import JitNames, jit_symbol
from symbolizer.symbolizer import Symbolizer
from tracer.attach.tracee import Tracee
from tracer.collect.sites import ANY_VERSION
from tracer.collect.snapshot import Snapshot, merge_groups
from tracer.limits import MAX_SLOTS
from tracer.records import ADDRESS_MASK, INTERRUPTED, StackEnd

#: Stacks that are named between two looks at what the kernel side sends.
BATCH = 256
#: Reasons that may pass: the file comes to be known later, or the runtime writes the name of its code.
_MAY_PASS = {Why.UNMAPPED, Why.GONE, Why.NO_SYMBOLS, Why.UNREADABLE}


@dataclass(frozen=True, slots=True)
class _Named:
    frames: tuple[Frame, ...]
    group: int
    #: What was known when a name was missing; None where none was.
    knowledge: Hashable


@dataclass(frozen=True, slots=True)
class Sites:
    """A snapshot with one row per site; stacks: how many different stacks each row has, i64 (n,).

    frames names the frames of a row, innermost first, inlined ones included.
    """

    snapshot: Snapshot
    stacks: np.ndarray
    frames: Callable[[int], tuple[Frame, ...]]


class StackNamer:
    """Names the stacks of one session."""

    def __init__(
        self,
        symbolizer: Symbolizer,
        tracees: Sequence[Tracee],
        by: GroupBy,
        *,
        raw: bool,
        idle: Callable[[], object] = lambda: None,
    ) -> None:
        """raw: leave stacks as they were recorded. idle: called between batches of stacks."""
        self._symbolizer = symbolizer
        self._tracees = tracees
        self._by = by
        self._raw = raw
        self._idle = idle
        self._named: dict[int, _Named] = {}

    def sites(self, snapshot: Snapshot) -> Sites:
        """Return the sites of a snapshot that has one row per stack."""
        groups = self._groups(snapshot)
        merged, largest = merge_groups(snapshot, groups)
        shown = snapshot.identity[largest]
        stacks = np.unique(groups, return_counts=True)[1]
        return Sites(merged, stacks, lambda row: self._named[int(shown[row])].frames)

    def _groups(self, snapshot: Snapshot) -> np.ndarray:
        """Return for each row the number of its group, u64 (n,): equal for stacks that are one site."""
        identities = snapshot.identity.tolist()
        knowledge = self._knowledge()
        unknown = [row for row, identity in enumerate(identities) if self._is_stale(identity, knowledge)]
        for begin in range(0, len(unknown), BATCH):
            rows = unknown[begin : begin + BATCH]
            places = [self._places(snapshot.stacks[row]) for row in rows]
            self._symbolizer.prepare(
                (object_key(mapping), mapping.offset_of(address) - called)
                for stack in places for address, called, mapping in stack if mapping is not None)
            for row, stack in zip(rows, places, strict=True):
                self._named[identities[row]] = self._name(snapshot.stacks[row], stack, knowledge)
            self._idle()
        self._forget(set(identities))
        return np.array([self._named[identity].group for identity in identities], np.uint64)

    def _knowledge(self) -> Hashable:
        for tracee in self._tracees:
            tracee.jit.find(0)  # looks whether the runtime has written more
        return self._symbolizer.objects, tuple(tracee.jit.table for tracee in self._tracees)

    def _is_stale(self, identity: int, knowledge: Hashable) -> bool:
        known = self._named.get(identity)
        return known is None or (known.knowledge is not None and known.knowledge != knowledge)

    def _forget(self, present: set[int]) -> None:
        if len(self._named) > 2 * len(present) + BATCH:
            self._named = {identity: named for identity, named in self._named.items() if identity in present}

    def _tracee(self, stack: np.void) -> Tracee:
        return self._tracees[int(stack["image"]) % MAX_SLOTS % len(self._tracees)]

    def _places(self, stack: np.void) -> list[tuple[int, bool, Mapping | None]]:
        """Return address, whether it is a return address, and mapping of each frame."""
        tracee, version = self._tracee(stack), int(stack["code"])
        space = tracee.space if version == ANY_VERSION else tracee.space_of(version)
        found = []
        for marked in stack["addresses"][: int(stack["depth"])].tolist():
            address, called = marked & ADDRESS_MASK, not marked & INTERRUPTED
            found.append((address, called, space.locate(address - called)))
        return found

    def _name(self, stack: np.void, places: list[tuple[int, bool, Mapping | None]], knowledge: Hashable) -> _Named:
        frames: list[Frame] = []
        for address, called, mapping in places:
            frames += self._name_one(self._tracee(stack), address, called, mapping)
        incomplete = any(frame.why in _MAY_PASS for frame in frames)
        if StackEnd(int(stack["ended"] or StackEnd.PENDING)) is not StackEnd.COMPLETE:
            frames.append(Frame(places[-1][0] if places else 0, why=Why.UNWIND_STOPPED))
        shown = tuple(frames)
        if not self._raw:
            shown = fold_recursion(drop_allocator_frames(shown))
        by = GroupBy.ADDRESS if self._raw else self._by
        group = hash((int(stack["image"]), key(shown, by))) & (1 << 64) - 1
        return _Named(shown, group, knowledge if incomplete else None)

    def _name_one(self, tracee: Tracee, address: int, called: bool, mapping: Mapping | None) -> Sequence[Frame]:
        of = object_key(mapping) if mapping is not None else None
        if mapping is not None and of is None:
            # Code that no file holds, made at run time.
            frames: Sequence[Frame] = (Frame(address, module=mapping.path or None, why=Why.NO_SYMBOLS),)
        else:
            frames = self._symbolizer.resolve(of, mapping.offset_of(address) if mapping else 0, address, called)
        if frames[-1].why in _MAY_PASS and mapping is not None:
            # Some runtimes keep the code they make in files without names.
            return _jit_frames(tracee.jit, address, called) or frames
        return frames


def _jit_frames(jit: JitNames, address: int, called: bool) -> Sequence[Frame]:
    found = jit.find(address - called)
    if found is None:
        return ()
    symbol = jit_symbol(found[0])
    return (Frame(address, symbol.function, found[1] + called, jit.path, file=symbol.file, line=symbol.line),)
