"""Answers the kernel's unwind misses: finishes the copied stack with the full call frame information, and puts a rule
for every address on the way where the kernel side finds it."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from symbolizer.unwind_info import BpKind, RuleKind, UnwindRule
from tracer.records import ADDRESS_BITS, ADDRESS_MASK, COPY_PIECE, IMAGE_MASK, INTERRUPTED, StackEnd

#: 2^64 / golden ratio, as in bpf/stack.c.
SPREAD = 0x9E3779B97F4A7C15
_WORD = struct.Struct("<Q")
#: struct ucontext of a signal frame: where rbp, rsp and rip were saved (sys/ucontext.h, x86-64).
UCONTEXT_BP, UCONTEXT_SP, UCONTEXT_PC = 120, 160, 168

FRAME_POINTER_RULE = UnwindRule(RuleKind.FRAME_POINTER, 16, BpKind.AT_CFA, -16)


def rule_key(address: int, image: int) -> int:
    """Return the key of an address (with INTERRUPTED where a signal stopped it) in a process image."""
    return address | (image & IMAGE_MASK) << ADDRESS_BITS


class RuleTable:
    """The kernel side's rules: buckets of one cache line, written by this object alone."""

    def __init__(self, buckets: np.ndarray) -> None:
        """buckets: the mapped array of RULE_BUCKET, shape (a power of two,)."""
        self._keys, self._rules = buckets["keys"], buckets["rules"]
        self._shift = 64 - (len(buckets).bit_length() - 1)
        self._places: dict[int, tuple[int, int]] = {}
        self.evicted = 0

    def install(self, key: int, rule: int) -> None:
        """Make rule findable under key; in a full pair of buckets the oldest place is taken from another."""
        if key in self._places:
            bucket, place = self._places[key]
            self._rules[bucket, place] = rule
            return
        home = (key * SPREAD & (1 << 64) - 1) >> self._shift
        for bucket in (home, home ^ 1):
            for place in range(self._keys.shape[1]):
                if not self._keys[bucket, place]:
                    self._put(bucket, place, key, rule)
                    return
        self.evicted += 1
        place = self.evicted % self._keys.shape[1]
        old = int(self._keys[home, place])
        self._keys[home, place] = 0
        self._places.pop(old, None)
        self._put(home, place, key, rule)

    def _put(self, bucket: int, place: int, key: int, rule: int) -> None:
        # The rule first: whoever finds the key must find it too. Stores of 8 bytes are whole on x86-64.
        self._rules[bucket, place] = rule
        self._keys[bucket, place] = key
        self._places[key] = (bucket, place)

    def remove(self, unwanted: Callable[[int], bool]) -> None:
        """Take away the rules of all keys for which unwanted is true."""
        for key in [key for key in self._places if unwanted(key)]:
            bucket, place = self._places.pop(key)
            self._keys[bucket, place] = 0


class RuleSource(Protocol):
    """Who knows the rule for an address of one process image."""

    def rule_for(self, address: int, *, interrupted: bool) -> UnwindRule:
        """Return the rule at an address: of the call before it, or of it itself where a signal interrupted it."""


@dataclass(frozen=True, slots=True)
class Miss:
    """A stack that stopped at pc: registers there, and the memory from the piece that holds sp upwards."""

    image: int
    site: int
    pc: int
    sp: int
    bp: int
    memory: memoryview


@dataclass(frozen=True, slots=True)
class Unwound:
    """The frames beyond the one that was missed (outwards), how it ended, and the rules learnt on the way."""

    addresses: tuple[int, ...]
    ended: StackEnd
    rules: tuple[tuple[int, int], ...]


def unwind(miss: Miss, source: RuleSource, limit: int) -> Unwound:
    """Return the rest of a missed stack, at most limit further frames."""
    base = miss.sp & -COPY_PIECE
    memory, size = miss.memory, len(miss.memory)
    pc, sp, bp = miss.pc & ADDRESS_MASK, miss.sp, miss.bp
    mark = miss.pc & INTERRUPTED
    addresses: list[int] = []
    rules: list[tuple[int, int]] = []

    def read(address: int) -> int:
        at = address - base
        if not 0 <= at <= size - 8:
            raise IndexError(address)
        word: int = _WORD.unpack_from(memory, at)[0]
        return word

    def done(ended: StackEnd) -> Unwound:
        return Unwound(tuple(addresses), ended, tuple(rules))

    while True:
        rule = source.rule_for(pc, interrupted=bool(mark))
        rules.append((rule_key(pc | mark, miss.image), rule.encode()))
        if rule.kind is RuleKind.END:
            return done(StackEnd.COMPLETE)
        if rule.kind in (RuleKind.UNSUPPORTED, RuleKind.UNKNOWN):
            return done(StackEnd.UNSUPPORTED)
        by_chain = rule.kind is RuleKind.FRAME_POINTER
        try:
            if rule.kind is RuleKind.SIGNAL:
                pc, sp, bp, mark = read(sp + UCONTEXT_PC), read(sp + UCONTEXT_SP), read(sp + UCONTEXT_BP), INTERRUPTED
            else:
                cfa = canonical_frame_address(rule, sp, bp, read)
                if cfa <= sp or (by_chain and bp < sp):
                    return done(StackEnd.COMPLETE if by_chain else StackEnd.UNREADABLE)
                pc, mark = read(cfa - 8), 0
                bp, sp = saved_frame_pointer(rule, cfa, bp, read), cfa
        except IndexError:
            # Beyond the copy the stack goes on; the rules so far let the next miss begin further out.
            return done(StackEnd.COMPLETE if by_chain else StackEnd.NO_COPY)
        if not pc:
            return done(StackEnd.COMPLETE)
        if pc >> ADDRESS_BITS:
            return done(StackEnd.COMPLETE if by_chain else StackEnd.UNREADABLE)
        if len(addresses) >= limit:
            return done(StackEnd.DEPTH)
        addresses.append(pc | mark)


def canonical_frame_address(rule: UnwindRule, sp: int, bp: int, read: Callable[[int], int]) -> int:
    """Return the CFA that a rule gives, as unwind_step() in bpf/unwind.h does."""
    if rule.kind is RuleKind.CFA_SP:
        return sp + rule.cfa_offset
    if rule.kind is RuleKind.CFA_DEREF_BP:
        return read(bp + rule.cfa_offset)
    return bp + rule.cfa_offset


def saved_frame_pointer(rule: UnwindRule, cfa: int, bp: int, read: Callable[[int], int]) -> int:
    """Return the caller's rbp."""
    if rule.bp_kind is BpKind.AT_CFA:
        return read(cfa + rule.bp_offset)
    if rule.bp_kind is BpKind.AT_BP:
        return read(bp + rule.bp_offset)
    return bp


def answer(miss: Miss, source: RuleSource, table: RuleTable, stacks: np.ndarray) -> StackEnd:
    """Finish the stack of a missed allocation in place, and install what was learnt; return how it ended.

    stacks: the mapped array of struct stack. A stack that never got a site (miss.site 0) only teaches.
    """
    depth_limit = stacks["addresses"].shape[1]
    stack = stacks[miss.site]
    known = int(stack["depth"]) if miss.site else 0
    unwound = unwind(miss, source, depth_limit - known)
    install_all(table, unwound.rules)
    if miss.site:
        stack["addresses"][known : known + len(unwound.addresses)] = unwound.addresses
        stack["depth"] = known + len(unwound.addresses)
        stack["ended"] = unwound.ended
    return unwound.ended


def install_all(table: RuleTable, rules: Iterable[tuple[int, int]]) -> None:
    """Put rules (key, encoded rule) into the table."""
    for key, rule in rules:
        table.install(key, rule)
