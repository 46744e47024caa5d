"""Every stack once, whichever process it was seen in: by files and offsets in them, not by addresses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from symbolizer.jit_names import JitNames
from symbolizer.mappings import AddressSpace, ObjectKey, object_key
from tracer.collect.sites import ANY_VERSION
from tracer.records import ADDRESS_MASK, INTERRUPTED, StackEnd

#: Identities remembered beyond twice those of the last look.
SPARE = 256


class Mapped(Protocol):
    """The process a stack was seen in."""

    @property
    def uid(self) -> int:
        """Its number, which no other process of this trace gets."""

    @property
    def space(self) -> AddressSpace:
        """What it has mapped now."""

    @property
    def jit(self) -> JitNames:
        """The names of code that its runtime made."""

    def space_of(self, version: int) -> AddressSpace:
        """Return what was mapped in a version of its code."""


class _Nobody:
    """Whose stacks are those that found no room, which have no frames, and those of a process that is gone."""

    uid = -1
    space = AddressSpace.of(())

    @property
    def jit(self) -> JitNames:
        raise LookupError("there is nothing to name")

    def space_of(self, version: int) -> AddressSpace:
        return self.space


NOBODY: Mapped = _Nobody()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a frame's code is: the offset in a file; or, where there is none, the address (of) in one process.

    called: it is a return address.
    """

    file: ObjectKey | None
    at: int
    called: bool
    uid: int = -1
    code: int = -1


@dataclass(frozen=True, slots=True)
class PooledStack:
    """A stack as it was first seen: its places, and its addresses (marked) in that process, innermost first."""

    places: tuple[int, ...]
    addresses: tuple[int, ...]
    complete: bool
    tracee: Mapped
    code: int


class StackPool:
    """Numbers stacks that are the same in all processes alike."""

    def __init__(self, tracee_of: Callable[[int], Mapped]) -> None:
        """tracee_of: the process with an image number."""
        self._tracee_of = tracee_of
        self.clear()

    def clear(self) -> None:
        """Forget all; numbers begin anew."""
        self.stacks: list[PooledStack] = []
        self.places: list[Place] = []
        self._numbers: dict[tuple[int, tuple[int, ...]], int] = {}
        self._place_numbers: dict[Place, int] = {}
        self._known: dict[tuple[int, int], dict[int, int]] = {}
        self._by_identity: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self.stacks)

    def intern(self, identity: np.ndarray, stacks: np.ndarray) -> np.ndarray:
        """Return the numbers of stacks (struct stack, (n,)) whose identities, u64 (n,), tell them apart: i64 (n,)."""
        found = []
        for row, one in enumerate(identity.tolist()):
            number = self._by_identity.get(one)
            if number is None:
                number = self._by_identity[one] = self._number(stacks[row])
            found.append(number)
        if len(self._by_identity) > 2 * len(found) + SPARE:
            # Most of these have not been seen for long: of processes that have ended, or of memory that was given back.
            self._by_identity = dict(zip(identity.tolist(), found, strict=True))
            images = set(stacks["image"].tolist())
            self._known = {key: places for key, places in self._known.items() if key[0] in images}
        return np.array(found, np.int64)

    def intern_last(self, stacks: np.ndarray) -> np.ndarray:
        """Return the numbers of stacks (struct stack, (n,)) of images that are gone, i64 (n,); only these stay."""
        found = np.array([self._number(stack) for stack in stacks], np.int64)
        images = set(stacks["image"].tolist())
        self._known = {key: places for key, places in self._known.items() if key[0] not in images}
        return found

    def _number(self, stack: np.void) -> int:
        tracee, code = self._tracee_of(int(stack["image"])), int(stack["code"])
        marked = stack["addresses"][: int(stack["depth"])].tolist()
        known = self._known.setdefault((int(stack["image"]), code), {})
        places = tuple([known[each] if each in known else self._place(tracee, code, each, known) for each in marked])
        ended = StackEnd(int(stack["ended"] or StackEnd.PENDING))
        key = (int(ended is StackEnd.COMPLETE), places)
        number = self._numbers.get(key)
        if number is None:
            number = self._numbers[key] = len(self.stacks)
            self.stacks.append(PooledStack(places, tuple(marked), ended is StackEnd.COMPLETE, tracee, code))
        return number

    def _place(self, tracee: Mapped, code: int, marked: int, known: dict[int, int]) -> int:
        address, called = marked & ADDRESS_MASK, not marked & INTERRUPTED
        mapping = space_of(tracee, code).locate(address - called)
        file = object_key(mapping) if mapping is not None else None
        if mapping is not None and file is not None:
            place = Place(file, mapping.offset_of(address) - called, called)
        else:
            place = Place(None, address, called, tracee.uid, code)
        number = self._place_numbers.setdefault(place, len(self.places))
        if number == len(self.places):
            self.places.append(place)
        known[marked] = number
        return number


def space_of(tracee: Mapped, code: int) -> AddressSpace:
    """Return what a process had mapped in a version of its code, ANY_VERSION for what was the same in all."""
    return tracee.space if code == ANY_VERSION else tracee.space_of(code)
