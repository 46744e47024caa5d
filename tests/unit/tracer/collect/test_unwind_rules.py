"""Unwinder: finishes copied stacks by their rules, teaches the kernel side, and remembers walks only where they hold."""

from __future__ import annotations

import struct
from collections.abc import Callable

import numpy as np
import pytest

from symbolizer.unwind_rule import BpKind, RuleKind, UnwindRule
from tracer import records
from tracer.collect.rule_table import RuleTable, rule_key
from tracer.collect.unwind_rules import (
    FRAME_POINTER_RULE,
    UCONTEXT_BP,
    UCONTEXT_PC,
    UCONTEXT_SP,
    Miss,
    StackTable,
    Unwinder,
    Unwound,
)
from tracer.records import COPY_PIECE, INTERRUPTED, StackEnd

IMAGE, SITE, LIMIT = 65, 3, 16
#: Within a piece, so that the copy begins before it.
SP = 0x7FFD_0000_1000 + 0x100
BASE = SP & -COPY_PIECE
END = UnwindRule(RuleKind.END)
#: Return addresses of made-up functions.
A, B, C, D = 0x401000, 0x402000, 0x403000, 0x404000


def by_sp(size: int, bp_kind: BpKind = BpKind.UNCHANGED, bp_offset: int = 0) -> UnwindRule:
    return UnwindRule(RuleKind.CFA_SP, size, bp_kind, bp_offset)


class Source:
    """Knows rules by marked address, and what it was asked."""

    def __init__(self, rules: dict[int, UnwindRule]) -> None:
        self.rules = rules
        self.asked: list[int] = []

    def rule_for(self, address: int, *, interrupted: bool) -> UnwindRule:
        marked = address | (INTERRUPTED if interrupted else 0)
        self.asked.append(marked)
        return self.rules[marked]


class Counting(Unwinder):
    """Counts the walks that were done, not remembered."""

    walks = 0

    def unwind(self, miss: Miss, limit: int) -> Unwound:
        self.walks += 1
        return super().unwind(miss, limit)


class World:
    """One process's unwinder, with the kernel's tables and a stack to fill."""

    def __init__(self, rules: dict[int, UnwindRule], *, limit: int = LIMIT, size: int = 8 * COPY_PIECE) -> None:
        self.memory = bytearray(size)
        self.source = Source(rules)
        self.buckets = np.zeros(64, records.RULE_BUCKET)
        self.table = RuleTable(self.buckets)
        self.stacks = np.zeros(8, records.stack_dtype(limit))
        # The kernel side wrote down one frame and the one it missed.
        self.stacks["depth"][SITE], self.stacks["ended"][SITE] = 2, StackEnd.PENDING
        self.stacks["addresses"][SITE, :2] = 0x400500, A
        self.unwinder = Counting(IMAGE, self.source, self.table)

    def put(self, words: dict[int, int]) -> None:
        for address, word in words.items():
            struct.pack_into("<Q", self.memory, address - BASE, word)

    def miss(self, pc: int = A, sp: int = SP, bp: int = 0, site: int = SITE, size: int | None = None,
             missing: int = 0) -> Miss:
        return Miss(site, pc, sp, bp, memoryview(bytes(self.memory[:size])), missing)

    def answer(self, miss: Miss | None = None) -> tuple[StackEnd, list[int]]:
        """Return how it ended, and the frames beyond the one that was missed."""
        self.stacks["depth"][SITE] = 2
        ended = self.unwinder.answer(miss or self.miss(), StackTable(self.stacks))
        row = self.stacks[SITE]
        assert row["ended"] == ended
        return ended, row["addresses"][2 : row["depth"]].tolist()

    def rule(self, marked: int) -> int | None:
        key = rule_key(marked, IMAGE)
        place = np.argwhere(self.buckets["keys"] == np.uint64(key))
        return int(self.buckets["rules"][tuple(place[0])]) if len(place) else None


def simple() -> World:
    """A calls from B, B from C, which is the outermost."""
    world = World({A: by_sp(32), B: by_sp(64), C: END})
    world.put({SP + 24: B, SP + 88: C})
    return world


def test_complete() -> None:
    """Frames go behind those that the kernel side wrote, and the stack ends where its rule says so."""
    world = simple()
    assert world.answer() == (StackEnd.COMPLETE, [B, C])
    assert world.stacks["addresses"][SITE, :2].tolist() == [0x400500, A]
    assert world.stacks["depth"].tolist() == [0, 0, 0, 4, 0, 0, 0, 0], "another site was written"


def test_a_return_address_of_zero() -> None:
    """What program starters leave below the first frame ends the stack as well."""
    world = simple()
    world.put({SP + 88: 0})
    assert world.answer() == (StackEnd.COMPLETE, [B])


def test_rules_on_the_way_are_installed() -> None:
    """Each address that was passed gets its rule under its process image, also the outermost."""
    world = simple()
    world.answer()
    assert {at: world.rule(at) for at in (A, B, C)} == {A: by_sp(32).encode(), B: by_sp(64).encode(), C: END.encode()}
    assert np.count_nonzero(world.buckets["keys"]) == 3
    assert world.source.asked == [A, B, C]


def test_rules_are_looked_up_once() -> None:
    """A second stack through the same addresses asks for none; knows() says which are known."""
    world = simple()
    assert not world.unwinder.knows(A)
    world.answer()
    world.put({SP + 88: 0})
    world.answer()
    assert world.source.asked == [A, B, C]
    assert world.unwinder.knows(A) and world.unwinder.knows(B) and not world.unwinder.knows(D)


def test_a_rule_that_the_kernel_side_lost() -> None:
    """A miss at an address whose rule is known means that it is no longer in the table: it is put there again."""
    world = simple()
    world.answer()
    world.table.drop(IMAGE)
    assert world.rule(A) is None
    world.answer()
    assert world.rule(A) == by_sp(32).encode()


def test_without_a_site() -> None:
    """A stack that got no site teaches, and writes no stack."""
    world = simple()
    before = world.stacks.copy()
    assert world.unwinder.answer(world.miss(site=0), StackTable(world.stacks)) is StackEnd.COMPLETE
    assert world.stacks.tobytes() == before.tobytes()
    assert world.rule(B) == by_sp(64).encode()


def test_every_kind_of_rule() -> None:
    """CFA by rsp, by rbp, behind a pointer at rbp; rbp saved at the CFA or at rbp: the registers go along."""
    at_cfa, at_bp = BpKind.AT_CFA, BpKind.AT_BP
    world = World({
        A: by_sp(32, at_cfa, -16),
        B: UnwindRule(RuleKind.CFA_BP, 16, at_bp, -8),
        C: UnwindRule(RuleKind.CFA_DEREF_BP, -24, BpKind.UNCHANGED),
        D: UnwindRule(RuleKind.CFA_BP, 48, BpKind.UNCHANGED),
        A + 1: END,
    })
    bp1, bp2, cfa3 = SP + 0x100, SP + 0x200, SP + 0x180
    world.put({
        SP + 24: B, SP + 16: bp1,  # A's frame
        bp1 + 8: C, bp1 - 8: bp2,  # B's
        bp2 - 24: cfa3, cfa3 - 8: D,  # C's
        bp2 + 40: A + 1,  # D's
    })  # fmt: skip
    assert world.answer() == (StackEnd.COMPLETE, [B, C, D, A + 1])


def test_signal_frame() -> None:
    """Behind a signal frame the interrupted instruction itself is looked up; its stack may lie below (sigaltstack)."""
    low = BASE + 16
    world = World({A: by_sp(16), B: UnwindRule(RuleKind.SIGNAL), C | INTERRUPTED: by_sp(8), D: END}, size=2 * COPY_PIECE)
    context = SP + 16
    world.put({SP + 8: B, context + UCONTEXT_PC: C, context + UCONTEXT_SP: low, context + UCONTEXT_BP: 77, low: D})
    assert world.answer() == (StackEnd.COMPLETE, [B, C | INTERRUPTED, D])
    assert world.source.asked == [A, B, C | INTERRUPTED, D]
    assert world.rule(C | INTERRUPTED) == by_sp(8).encode() and world.rule(C) is None


def test_a_miss_at_an_interrupted_instruction() -> None:
    """The kernel side sends the mark along where it missed behind a signal frame."""
    world = World({A | INTERRUPTED: by_sp(8), B: END})
    world.put({SP: B})
    assert world.answer(world.miss(pc=A | INTERRUPTED)) == (StackEnd.COMPLETE, [B])


@pytest.mark.parametrize(
    ("rule", "ended"),
    [
        (UnwindRule(RuleKind.UNSUPPORTED), StackEnd.UNSUPPORTED),
        (UnwindRule(RuleKind.UNKNOWN), StackEnd.UNSUPPORTED),
        (by_sp(0), StackEnd.UNREADABLE),
        (by_sp(-8), StackEnd.UNREADABLE),
        (UnwindRule(RuleKind.CFA_BP, 16), StackEnd.UNREADABLE),  # rbp is 0 here
        (by_sp(20), StackEnd.NO_COPY),  # no multiple of 8
        (by_sp(1 << 20), StackEnd.NO_COPY),
    ],
)
def test_rules_that_lead_nowhere(rule: UnwindRule, ended: StackEnd) -> None:
    """A rule that is not followed, a frame that would not lie higher, memory that was not copied: each ends the stack."""
    world = World({A: by_sp(32), B: rule})
    world.put({SP + 24: B})
    assert world.answer() == (ended, [B])


def test_an_address_that_is_none() -> None:
    """A return address with upper bits is a sign of a wrong rule or a damaged stack."""
    world = simple()
    world.put({SP + 88: 1 << 48 | C})
    assert world.answer() == (StackEnd.UNREADABLE, [B])


def test_short_copy() -> None:
    """Beyond the copy the stack goes on: the frames so far count, and their rules let the next miss begin further out."""
    world = World({A: by_sp(32), B: by_sp(8 * COPY_PIECE)})
    world.put({SP + 24: B})
    assert world.answer(world.miss(size=COPY_PIECE)) == (StackEnd.NO_COPY, [B])
    assert world.rule(B) == by_sp(8 * COPY_PIECE).encode()
    assert world.answer(world.miss(size=0)) == (StackEnd.NO_COPY, [])


@pytest.mark.parametrize(("piece", "expected"), [
    (0, (StackEnd.NO_COPY, [])), (1, (StackEnd.COMPLETE, [B, C])), (2, (StackEnd.NO_COPY, [B])),
    (3, (StackEnd.COMPLETE, [B, C])),
])
def test_missing_pieces(piece: int, expected: tuple[StackEnd, list[int]]) -> None:
    """A piece that could not be read matters only if a frame has its words there."""
    world = World({A: by_sp(32), B: by_sp(2 * COPY_PIECE), C: END})
    world.put({SP + 24: B, SP + 24 + 2 * COPY_PIECE: C})
    assert world.answer(world.miss(missing=1 << piece)) == expected


def test_frame_pointers() -> None:
    """Code without call frame information keeps frame pointers; the chain is complete where it leads nowhere."""
    world = World({at: FRAME_POINTER_RULE for at in (A, B, C)})
    first, second = SP + 0x40, SP + 0x90
    world.put({first: second, first + 8: B, second: 0, second + 8: C})
    assert world.answer(world.miss(bp=first)) == (StackEnd.COMPLETE, [B, C])
    world.put({second: 5})
    assert world.answer(world.miss(bp=first)) == (StackEnd.COMPLETE, [B, C])
    world.put({second: SP + (1 << 30)})
    assert world.answer(world.miss(bp=first)) == (StackEnd.COMPLETE, [B, C])
    world.put({second + 8: 1 << 60})
    assert world.answer(world.miss(bp=first)) == (StackEnd.COMPLETE, [B])


def deep(frames: int, limit: int) -> World:
    """A stack of A again and again, frames of them beyond the one that was missed; then it ends."""
    world = World({A: by_sp(16)}, limit=limit)
    world.put({SP + 8 + 16 * n: A for n in range(frames)})
    return world


@pytest.mark.parametrize(("frames", "expected"), [(5, StackEnd.COMPLETE), (6, StackEnd.COMPLETE), (7, StackEnd.DEPTH),
                                                  (99, StackEnd.DEPTH)])
def test_depth(frames: int, expected: StackEnd) -> None:
    """No more frames than a stack has room for; one that fills it exactly is complete."""
    ended, found = deep(frames, limit=8).answer()
    assert (ended, len(found)) == (expected, min(frames, 6))


def test_a_full_stack() -> None:
    """Where the kernel side has filled the stack already, nothing is written, and that it goes on is said."""
    world = deep(5, limit=2)
    assert world.answer() == (StackEnd.DEPTH, [])


def test_a_walk_is_remembered() -> None:
    """An equal miss has the same answer without another walk; words that were not used do not matter."""
    world = simple()
    first = world.answer()
    assert world.answer() == first
    world.put({SP: 1, SP + 16: 2, SP + 96: 3})
    assert world.answer() == first
    assert world.unwinder.walks == 1


CHANGES: dict[str, tuple[Callable[[World], None], dict[str, int], tuple[StackEnd, list[int]]]] = {
    "first word": (lambda world: world.put({SP + 24: C}), {}, (StackEnd.COMPLETE, [C])),
    "last word": (lambda world: world.put({SP + 88: D}), {}, (StackEnd.UNSUPPORTED, [B, D])),
    "missing": (lambda _: None, {"missing": 1}, (StackEnd.NO_COPY, [])),
    "shorter": (lambda _: None, {"size": 0x100 + 32}, (StackEnd.NO_COPY, [B])),
    "other sp": (lambda world: world.put({SP + 40: C}), {"sp": SP + 16}, (StackEnd.COMPLETE, [C])),
    "other pc": (lambda world: world.put({SP + 56: C}), {"pc": B}, (StackEnd.COMPLETE, [C])),
}


@pytest.mark.parametrize(("change", "more", "expected"), CHANGES.values(), ids=CHANGES)
def test_a_walk_that_no_longer_holds(change: Callable[[World], None], more: dict[str, int],
                                     expected: tuple[StackEnd, list[int]]) -> None:
    """Where a word that the walk depended on differs, or a register, or what was copied, the stack is walked anew."""
    world = simple()
    world.source.rules[D] = UnwindRule(RuleKind.UNSUPPORTED)
    first = world.answer()
    change(world)
    assert world.answer(world.miss(**more)) == expected
    assert expected != first and world.unwinder.walks == 2


def test_words_that_only_rbp_depends_on() -> None:
    """The saved rbp decides about a later frame: it is one of the words that must be the same."""
    world = World({A: by_sp(32, BpKind.AT_CFA, -16), B: UnwindRule(RuleKind.CFA_BP, 16), C: END, D: END})
    world.put({SP + 24: B, SP + 16: SP + 0x80, SP + 0x88: C, SP + 0xA8: D})
    assert world.answer() == (StackEnd.COMPLETE, [B, C])
    world.put({SP + 16: SP + 0xA0})
    assert world.answer() == (StackEnd.COMPLETE, [B, D])


def test_room_is_part_of_the_question() -> None:
    """A walk that was cut for want of room is no answer for a stack that has more."""
    world = deep(5, limit=8)
    world.stacks["depth"][SITE] = 6
    assert world.unwinder.answer(world.miss(), StackTable(world.stacks)) is StackEnd.DEPTH
    assert world.stacks["depth"][SITE] == 8
    assert world.answer() == (StackEnd.COMPLETE, [A] * 5)
