"""Answers the kernel's unwind misses: finishes the copied stack with the full call frame information, and puts a rule
for every address on the way where the kernel side finds it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Protocol

import numpy as np

from symbolizer.unwind_rule import BpKind, RuleKind, UnwindRule
from tracer.collect.rule_table import RuleTable, rule_key
from tracer.records import ADDRESS_BITS, ADDRESS_MASK, COPY_PIECE, INTERRUPTED, StackEnd

#: struct ucontext of a signal frame: where rbp, rsp and rip were saved (sys/ucontext.h, x86-64).
UCONTEXT_BP, UCONTEXT_SP, UCONTEXT_PC = 120, 160, 168

#: Walks remembered per process image; at some hundred frames each, 10 MB.
KNOWN_WALKS = 4096
#: Frames between looks for a tail that is known.
TAIL_EVERY = 3

#: For an address where no code is, and for the outermost frame.
NO_CODE, END_RULE = UnwindRule(RuleKind.UNSUPPORTED), UnwindRule(RuleKind.END)
FRAME_POINTER_RULE = UnwindRule(RuleKind.FRAME_POINTER, 16, BpKind.AT_CFA, -16)


class RuleSource(Protocol):
    """Who knows the rule for an address of one process image."""

    def rule_for(self, address: int, *, interrupted: bool) -> UnwindRule:
        """Return the rule at an address: of the call before it, or of it itself where a signal interrupted it."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A stack that stopped at pc: registers there, and the memory from the piece that holds sp upwards.

    missing has a bit for each piece of memory (of COPY_PIECE bytes) that could not be read.
    """

    site: int
    pc: int
    sp: int
    bp: int
    memory: memoryview
    missing: int = 0


@dataclass(frozen=True, slots=True)
class Unwound:
    """The frames beyond the one that was missed, outwards, and how the stack ended.

    slots are the words of the copied memory that the walk depended on, in its order.
    """

    addresses: tuple[int, ...]
    ended: StackEnd
    slots: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class _Known:
    """A walk that was done before: where the words in its slots are the same, so is its result."""

    slots: Callable[[Sequence[int]], object]
    words: object
    addresses: np.ndarray
    ended: StackEnd
    missing: int
    size: int


@dataclass(frozen=True, slots=True)
class _Tail:
    """The outer part of a walk: where the words at these addresses are the same, so is what follows."""

    slots: np.ndarray
    words: np.ndarray
    addresses: list[int]


class StackTable:
    """The kernel side's stacks, by field."""

    def __init__(self, stacks: np.ndarray) -> None:
        """stacks: the mapped array of struct stack."""
        self.addresses, self.depth, self.ended = stacks["addresses"], stacks["depth"], stacks["ended"]
        self.code = stacks["code"]
        self.limit = self.addresses.shape[1]


class Unwinder:
    """Finishes the stacks of one version of a process's code.

    Rules are looked up once; thousands of misses pass the same ones.
    """

    def __init__(self, image: int, source: RuleSource, table: RuleTable) -> None:
        self._image = image
        self._source = source
        self._table = table
        self._rules: dict[int, UnwindRule] = {}
        self._known: dict[tuple[int, int, int, int], _Known] = {}
        self._tails: dict[tuple[int, int, int], _Tail] = {}

    def adopt(self, other: Unwinder, keep: Callable[[int], bool]) -> None:
        """Take over the rules of another version of the code for the addresses (marked) that keep names."""
        for marked, rule in other._rules.items():
            if keep(marked):
                self._rules[marked] = rule
                self._table.install(rule_key(marked, self._image), rule.encode())

    def seed(self, rules: dict[int, UnwindRule], encoded: np.ndarray) -> None:
        """Take rules for addresses (marked), and the same encoded, u64 (n,), that are known without asking."""
        self._rules.update(rules)
        self._table.install_many(
            np.fromiter(rules, np.uint64, len(rules)) | np.uint64(rule_key(0, self._image)), encoded)

    def forget(self, marked: Iterable[int]) -> None:
        """Ask again for these addresses when they come up."""
        keys = {rule_key(each, self._image) for each in marked if self._rules.pop(each, None)}
        self._known.clear()
        self._table.remove(keys)

    def knows(self, marked: int) -> bool:
        """Return whether the rule at an address has been looked up."""
        return marked in self._rules

    def _learn(self, marked: int, *, by_chain: bool = False) -> UnwindRule:
        """Look a rule up; by_chain: a frame pointer led there, which may be no frame pointer any more."""
        rule = self._source.rule_for(marked & ADDRESS_MASK, interrupted=bool(marked & INTERRUPTED))
        if by_chain and rule is NO_CODE:
            rule = END_RULE
        self._rules[marked] = rule
        self._table.install(rule_key(marked, self._image), rule.encode())
        return rule

    def answer(self, miss: Miss, stacks: StackTable) -> StackEnd:
        """Finish the stack of a missed allocation in place; return how it ended.

        A stack that never got a site (miss.site 0) only teaches.
        """
        # The kernel side has lost this rule if it asks again.
        rule = self._rules.get(miss.pc)
        if rule:
            self._table.install(rule_key(miss.pc, self._image), rule.encode())
        depth = int(stacks.depth[miss.site]) if miss.site else 0
        tail = self._finish(miss, stacks.limit - depth)
        if miss.site:
            end = depth + len(tail.addresses)
            stacks.addresses[miss.site, depth:end] = tail.addresses
            stacks.depth[miss.site] = end
            stacks.ended[miss.site] = tail.ended
        return tail.ended

    def _remember(self, passed: list[tuple[int, int, int, int, int]], slots: list[int], addresses: list[int],
                  base: int, words: memoryview) -> None:
        """Keep the outer parts of a walk that began at the frames passed."""
        if len(self._tails) >= KNOWN_WALKS * 4:
            self._tails.clear()
        at = np.array(slots, np.int64)
        values = np.frombuffer(words, np.uint64)[at]
        for marked, sp, bp, taken, read in passed:
            self._tails[marked, sp, bp] = _Tail(at[read:] * 8 + base, values[read:], addresses[taken:])

    def _finish(self, miss: Miss, limit: int) -> _Known:
        """Return the rest of the stack: a hot path misses a thousand times before its first answer, always the same."""
        request = (miss.pc, miss.sp, miss.bp, limit)
        known = self._known.get(request)
        words = miss.memory.cast("Q")
        if known and known.missing == miss.missing and known.size == len(words) and known.slots(words) == known.words:
            return known
        found = self.unwind(miss, limit)
        # itemgetter of one index gives no tuple: ask for the first word too, which does no harm.
        slots = itemgetter(*found.slots, *found.slots[:1]) if found.slots else _no_words
        known = _Known(slots, slots(words), np.array(found.addresses, np.uint64), found.ended, miss.missing, len(words))
        if len(self._known) >= KNOWN_WALKS:
            self._known.clear()
        self._known[request] = known
        return known

    def unwind(self, miss: Miss, limit: int) -> Unwound:
        """Return the rest of a missed stack, at most limit further frames."""
        base = miss.sp & -COPY_PIECE
        words = miss.memory.cast("Q")
        count, missing, rules = len(words), miss.missing, self._rules
        marked, sp, bp = miss.pc, miss.sp, miss.bp
        kind = RuleKind.UNKNOWN
        addresses: list[int] = []
        slots: list[int] = []
        passed: list[tuple[int, int, int, int, int]] = []

        def read(address: int) -> int:
            slot = (address - base) >> 3
            if not 0 <= slot < count or address & 7 or missing >> (slot * 8 // COPY_PIECE) & 1:
                raise IndexError(address)
            slots.append(slot)
            return words[slot]

        def done(ended: StackEnd) -> Unwound:
            if ended is StackEnd.COMPLETE and passed:
                self._remember(passed, slots, addresses, base, words)
            return Unwound(tuple(addresses), ended, tuple(slots))

        while True:
            if not len(addresses) % TAIL_EVERY:
                # New paths differ in their inner frames; the outer ones have mostly been walked before.
                tail = self._tails.get((marked, sp, bp))
                if tail and len(addresses) + len(tail.addresses) <= limit and _is_there(tail, base, words, missing):
                    addresses += tail.addresses
                    slots += ((tail.slots - base) >> 3).tolist()
                    return done(StackEnd.COMPLETE)
                passed.append((marked, sp, bp, len(addresses), len(slots)))
            rule = rules.get(marked) or self._learn(marked, by_chain=kind is _FRAME_POINTER)
            kind, mark = rule.kind, 0
            try:
                if kind is _CFA_SP:
                    cfa = sp + rule.cfa_offset
                elif kind is _CFA_BP or kind is _FRAME_POINTER:
                    cfa = bp + rule.cfa_offset
                    if cfa < 0:
                        # As the kernel side has it: rbp holds anything there.
                        cfa += 1 << 64
                elif kind is RuleKind.CFA_DEREF_BP:
                    cfa = read(bp + rule.cfa_offset)
                elif kind is RuleKind.SIGNAL:
                    marked, cfa, bp = read(sp + UCONTEXT_PC), read(sp + UCONTEXT_SP), read(sp + UCONTEXT_BP)
                    mark = INTERRUPTED
                else:
                    return done(StackEnd.COMPLETE if kind is RuleKind.END else StackEnd.UNSUPPORTED)
                if not mark:
                    if cfa <= sp or (kind is _FRAME_POINTER and bp < sp):
                        return done(_end_of_chain(kind, StackEnd.UNREADABLE))
                    marked = read(cfa - 8)
                    if rule.bp_kind is _AT_CFA:
                        bp = read(cfa + rule.bp_offset)
                    elif rule.bp_kind is BpKind.AT_BP:
                        bp = read(bp + rule.bp_offset)
            except IndexError:
                # Beyond the copy the stack goes on; the rules so far let the next miss begin further out.
                return done(_end_of_chain(kind, StackEnd.NO_COPY))
            sp = cfa
            if not marked:
                return done(StackEnd.COMPLETE)
            if marked >> ADDRESS_BITS:
                return done(_end_of_chain(kind, StackEnd.UNREADABLE))
            if len(addresses) >= limit:
                return done(StackEnd.DEPTH)
            marked |= mark
            addresses.append(marked)


_CFA_SP, _CFA_BP, _FRAME_POINTER, _AT_CFA = RuleKind.CFA_SP, RuleKind.CFA_BP, RuleKind.FRAME_POINTER, BpKind.AT_CFA


def _is_there(tail: _Tail, base: int, words: memoryview, missing: int) -> bool:
    """Return whether the copy that begins at base has all words of a tail."""
    slots = (tail.slots - base) >> 3
    if len(slots) and (slots[0] < 0 or int(slots.min()) < 0 or int(slots.max()) >= len(words)):
        return False
    if missing and ((missing >> (slots * 8 // COPY_PIECE)) & 1).any():
        return False
    return bool((np.frombuffer(words, np.uint64)[slots] == tail.words).all())


def _no_words(_: Sequence[int]) -> object:
    return ()


def _end_of_chain(kind: RuleKind, otherwise: StackEnd) -> StackEnd:
    """How a stack ends that leads nowhere: a chain of frame pointers has no other end than that."""
    return StackEnd.COMPLETE if kind is _FRAME_POINTER else otherwise
