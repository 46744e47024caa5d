"""Gives stacks their names, and says which of them are one site; each stack is looked at once, however many reports."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from symbolizer.choices import GroupBy
from symbolizer.frame import Frame, Why
from symbolizer.grouping import drop_allocator_frames, fold_recursion, key
from symbolizer.jit_names import JitNames
from symbolizer.jit_symbol import jit_symbol
from symbolizer.mappings import Mapping, object_key
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


@dataclass(frozen=True, slots=True)
class _Stack:
    image: int
    keys: list[tuple[int, int, int]]
    complete: bool


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
        self._known: Hashable = None
        #: Names of addresses that many stacks share: (image, code, marked address).
        self._addresses: dict[tuple[int, int, int], tuple[Frame, ...]] = {}

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
        if knowledge != self._known:
            # What has no name may have one now.
            self._known = knowledge
            self._addresses = {place: of for place, of in self._addresses.items() if of[-1].why not in _MAY_PASS}
        unknown = [row for row, identity in enumerate(identities) if self._is_stale(identity, knowledge)]
        for begin in range(0, len(unknown), BATCH):
            rows = unknown[begin : begin + BATCH]
            stacks = [self._read(snapshot.stacks[row]) for row in rows]
            self._name_addresses({place for stack in stacks for place in stack.keys} - self._addresses.keys())
            for row, stack in zip(rows, stacks, strict=True):
                self._named[identities[row]] = self._name(stack, knowledge)
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
            self._addresses.clear()

    def _tracee(self, image: int) -> Tracee:
        return self._tracees[image % MAX_SLOTS % len(self._tracees)]

    def _read(self, stack: np.void) -> _Stack:
        image, code = int(stack["image"]), int(stack["code"])
        marked = stack["addresses"][: int(stack["depth"])].tolist()
        complete = StackEnd(int(stack["ended"] or StackEnd.PENDING)) is StackEnd.COMPLETE
        return _Stack(image, [(image, code, each) for each in marked], complete)

    def _name_addresses(self, wanted: set[tuple[int, int, int]]) -> None:
        """Name addresses that no stack had before, their tables made together."""
        places = []
        for image, code, marked in wanted:
            tracee = self._tracee(image)
            space = tracee.space if code == ANY_VERSION else tracee.space_of(code)
            address, called = marked & ADDRESS_MASK, not marked & INTERRUPTED
            places.append((address, called, space.locate(address - called)))
        self._symbolizer.prepare(
            (object_key(mapping), mapping.offset_of(address) - called)
            for address, called, mapping in places if mapping is not None)
        for wanted_place, (address, called, mapping) in zip(wanted, places, strict=True):
            found = self._name_one(self._tracee(wanted_place[0]), address, called, mapping)
            self._addresses[wanted_place] = tuple(found)

    def _name(self, stack: _Stack, knowledge: Hashable) -> _Named:
        named = [self._addresses[place] for place in stack.keys]
        incomplete = any(of[-1].why in _MAY_PASS for of in named)
        frames = tuple(chain.from_iterable(named))
        if not stack.complete:
            frames += (Frame(stack.keys[-1][2] & ADDRESS_MASK if stack.keys else 0, why=Why.UNWIND_STOPPED),)
        shown = frames if self._raw else fold_recursion(drop_allocator_frames(frames), self._by)
        group = hash((stack.image, key(shown, GroupBy.ADDRESS if self._raw else self._by))) & (1 << 64) - 1
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
