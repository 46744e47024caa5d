"""Gives stacks their names, and says which of them are one site; each stack is looked at once, however many reports."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import chain

import numpy as np

from symbolizer.choices import GroupBy
from symbolizer.frame import Frame, Why
from symbolizer.grouping import drop_allocator_frames, fold_recursion, key
from symbolizer.jit_names import JitNames
from symbolizer.jit_symbol import jit_symbol
from symbolizer.mappings import Mapping, object_key
from symbolizer.symbolizer import Symbolizer
from tracer.records import ADDRESS_MASK, INTERRUPTED
from tracer.stack_pool import Mapped, PooledStack, StackPool, space_of

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


class StackNamer:
    """Names the stacks of one session."""

    def __init__(
        self,
        symbolizer: Symbolizer,
        pool: StackPool,
        jits: Callable[[], Iterable[JitNames]],
        by: GroupBy,
        *,
        raw: bool,
        idle: Callable[[], object] = lambda: None,
    ) -> None:
        """jits: of every process that runs. raw: leave stacks as recorded. idle: called between batches of stacks."""
        self._symbolizer = symbolizer
        self._pool = pool
        self._jits = jits
        self._by = GroupBy.ADDRESS if raw else by
        self._raw = raw
        self._idle = idle
        self._named: dict[int, _Named] = {}
        self._known: Hashable = None
        #: Names of addresses that many stacks share, by place and address.
        self._addresses: dict[tuple[int, int], tuple[Frame, ...]] = {}

    def frames(self, number: int) -> tuple[Frame, ...]:
        """Return the frames of a stack that groups() has named, innermost first, inlined ones included."""
        return self._named[number].frames

    def groups(self, numbers: np.ndarray) -> np.ndarray:
        """Return for each stack (i64 (n,), the pool's numbers) that of its group, u64 (n,): equal if one site."""
        knowledge = self._knowledge()
        if knowledge != self._known:
            # What has no name may have one now.
            self._known = knowledge
            self._addresses = {at: of for at, of in self._addresses.items() if of[-1].why not in _MAY_PASS}
        wanted = numbers.tolist()
        unknown = [number for number in dict.fromkeys(wanted) if self._is_stale(number, knowledge)]
        for begin in range(0, len(unknown), BATCH):
            batch = unknown[begin : begin + BATCH]
            self._name_addresses(batch)
            for number in batch:
                self._named[number] = self._name(self._pool.stacks[number], knowledge)
            self._idle()
        return np.array([self._named[number].group for number in wanted], np.uint64)

    def clear(self) -> None:
        """Forget all names: the pool has begun anew."""
        self._named.clear()
        self._addresses.clear()

    def _knowledge(self) -> Hashable:
        jits = list(self._jits())
        for jit in jits:
            jit.find(0)  # looks whether the runtime has written more
        return self._symbolizer.objects, tuple(jit.table for jit in jits)

    def _is_stale(self, number: int, knowledge: Hashable) -> bool:
        known = self._named.get(number)
        return known is None or (known.knowledge is not None and known.knowledge != knowledge)

    def _name_addresses(self, numbers: Iterable[int]) -> None:
        """Name addresses that no stack had before, their tables made together."""
        wanted: dict[tuple[int, int], tuple[Mapped, int]] = {}
        for number in numbers:
            stack = self._pool.stacks[number]
            for at in zip(stack.places, stack.addresses, strict=True):
                if at not in self._addresses:
                    wanted[at] = (stack.tracee, stack.code)
        found = [(at, tracee, space_of(tracee, code).locate((at[1] & ADDRESS_MASK) - (not at[1] & INTERRUPTED)))
                 for at, (tracee, code) in wanted.items() if self._pool.places[at[0]].file is None]
        self._symbolizer.prepare(
            [(place.file, place.at) for number, _ in wanted if (place := self._pool.places[number]).file is not None]
            + [(file, mapping.offset_of(at[1] & ADDRESS_MASK) - (not at[1] & INTERRUPTED)) for at, _, mapping in found
               if mapping is not None and (file := object_key(mapping)) is not None])
        late = {at: mapping for at, _, mapping in found}
        for at, (tracee, _) in wanted.items():
            self._addresses[at] = tuple(self._name_one(at, tracee, late.get(at)))

    def _name(self, stack: PooledStack, knowledge: Hashable) -> _Named:
        named = [self._addresses[at] for at in zip(stack.places, stack.addresses, strict=True)]
        incomplete = any(of[-1].why in _MAY_PASS for of in named)
        end: tuple[Frame, ...] = ()
        if not stack.complete:
            end = (Frame(stack.addresses[-1] & ADDRESS_MASK if stack.addresses else 0, why=Why.UNWIND_STOPPED),)
        shown = self._shape((*chain.from_iterable(named), *end))
        by_address = self._by is GroupBy.ADDRESS
        if by_address or any(frame.function is None for frame in shown):
            # In another process the same code has other addresses: its place stands for it.
            placed = [replace(frame, address=hash(self._pool.places[place])) if by_address or not frame.function
                      else frame for place, frames in zip(stack.places, named, strict=True) for frame in frames]
            group = key(self._shape((*placed, *(replace(frame, address=0) for frame in end))), self._by)
        else:
            group = key(shown, self._by)
        return _Named(shown, hash(group) & (1 << 64) - 1, knowledge if incomplete else None)

    def _shape(self, frames: tuple[Frame, ...]) -> tuple[Frame, ...]:
        return frames if self._raw else tuple(fold_recursion(drop_allocator_frames(frames), self._by))

    def _name_one(self, at: tuple[int, int], tracee: Mapped, late: Mapping | None) -> Sequence[Frame]:
        """Name an address (marked) at a place; late: what holds it now, where that was not known to be a file."""
        place, address = self._pool.places[at[0]], at[1] & ADDRESS_MASK
        file, offset = place.file, place.at
        if file is None:
            file = object_key(late) if late is not None else None
            offset = late.offset_of(address) - place.called if late is not None else 0
        if file is None and late is not None:
            # Code that no file holds, made at run time.
            frames: Sequence[Frame] = (Frame(address, module=late.path or None, why=Why.NO_SYMBOLS),)
        else:
            frames = self._symbolizer.resolve(file, offset + place.called if file else 0, address, place.called)
        if frames[-1].why in _MAY_PASS and (file is not None or late is not None):
            # Some runtimes keep the code they make in files without names.
            return _jit_frames(tracee.jit, address, place.called) or frames
        return frames


def _jit_frames(jit: JitNames, address: int, called: bool) -> Sequence[Frame]:
    found = jit.find(address - called)
    if found is None:
        return ()
    symbol = jit_symbol(found[0])
    return (Frame(address, symbol.function, found[1] + called, jit.path, file=symbol.file, line=symbol.line),)
