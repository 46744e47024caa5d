"""A stack's memory is dealt out to its frames, as far as the walk comes."""

from __future__ import annotations

from symbolizer.unwind_rule import END, SIGNAL, UNSUPPORTED, BpKind, RuleKind, UnwindRule
from tracer.collect.unwind_rules import FRAME_POINTER_RULE, UCONTEXT_BP, UCONTEXT_PC, UCONTEXT_SP
from tracer.stack_frames import MOST_FRAMES, RED_ZONE, StackFrames, walk

STACK = 0x7FFE0000


class Memory:
    """Words at addresses, and nothing elsewhere."""

    def __init__(self, words: dict[int, int]) -> None:
        self.words = words

    def __call__(self, address: int, size: int) -> bytes:
        return self.words[address].to_bytes(size, "little") if address in self.words else b""


def by_sp(offset: int, bp_kind: BpKind = BpKind.UNCHANGED, bp_offset: int = 0) -> UnwindRule:
    return UnwindRule(RuleKind.CFA_SP, offset, bp_kind, bp_offset)


def walked(rules: dict[int, UnwindRule], words: dict[int, int], *, sp: int = STACK, bp: int = 0, ip: int = 1) -> StackFrames:
    return walk(sp, bp, ip, lambda address, _: rules.get(address, UNSUPPORTED), Memory(words))


def bounds(found: StackFrames) -> list[tuple[int, int, int]]:
    return [(frame.ip, frame.sp - STACK, frame.cfa - STACK) for frame in found.frames]


def test_frames_lie_next_to_each_other() -> None:
    """Each ends at its CFA, where its caller's begins, by stack pointer and by a saved frame pointer."""
    rules = {1: by_sp(0x20, BpKind.AT_CFA, -16), 2: UnwindRule(RuleKind.CFA_BP, 16), 3: END}
    found = walked(rules, {STACK + 0x10: STACK + 0x50, STACK + 0x18: 2, STACK + 0x58: 3})
    assert bounds(found) == [(1, 0, 0x20), (2, 0x20, 0x60)]
    assert found.complete
    assert found.top == STACK + 0x60
    assert [frame.called for frame in found.frames] == [False, True]


def test_an_address_belongs_to_the_frame_around_it() -> None:
    """From a frame's stack pointer to just below its CFA; below the innermost there is the red zone."""
    found = walked({1: by_sp(0x20), 2: by_sp(0x40), 3: END}, {STACK + 0x18: 2, STACK + 0x58: 3})
    for offset, ip in ((-RED_ZONE - 1, 0), (-RED_ZONE, 1), (0, 1), (0x1F, 1), (0x20, 2), (0x5F, 2), (0x60, 0)):
        frame = found.at(STACK + offset)
        assert (frame.ip if frame else 0) == ip, hex(offset)


def test_a_realigned_stack() -> None:
    """The CFA stands in memory, and the caller's frame pointer at this one's."""
    rules = {1: UnwindRule(RuleKind.CFA_DEREF_BP, -8, BpKind.AT_BP, 0), 2: UnwindRule(RuleKind.CFA_BP, 16), 3: END}
    bp = STACK + 0x40
    found = walked(rules, {bp - 8: STACK + 0x80, STACK + 0x78: 2, bp: STACK + 0xA0, STACK + 0xA8: 3}, bp=bp)
    assert bounds(found) == [(1, 0, 0x80), (2, 0x80, 0xB0)]


def test_what_a_signal_interrupted() -> None:
    """Behind a signal's frame the interrupted function goes on where it was, not behind a call."""
    asked: list[tuple[int, bool]] = []

    def rule_for(address: int, interrupted: bool) -> UnwindRule:
        asked.append((address, interrupted))
        return {1: by_sp(0x10), 2: SIGNAL, 3: by_sp(0x18), 4: END}[address]

    at = STACK + 0x10
    memory = Memory({STACK + 8: 2, at + UCONTEXT_PC: 3, at + UCONTEXT_SP: STACK + 0x800, at + UCONTEXT_BP: 5,
                     STACK + 0x810: 4})
    found = walk(STACK, 0, 1, rule_for, memory)
    assert bounds(found) == [(1, 0, 0x10), (2, 0x10, 0x10 + UCONTEXT_PC + 8), (3, 0x800, 0x818)]
    assert asked == [(1, True), (2, False), (3, True), (4, False)]
    assert found.complete


def test_memory_that_cannot_be_read_ends_the_walk() -> None:
    """The frames up to there stay, and it is said that there are more."""
    found = walked({1: by_sp(0x20), 2: by_sp(0x40)}, {STACK + 0x18: 2})
    assert bounds(found) == [(1, 0, 0x20)]
    assert not found.complete


def test_code_without_rules_ends_the_walk() -> None:
    """There is no telling where its frame ends."""
    found = walked({1: by_sp(0x20)}, {STACK + 0x18: 2})
    assert bounds(found) == [(1, 0, 0x20)]
    assert not found.complete


def test_a_register_that_is_no_frame_pointer() -> None:
    """It leads below the stack pointer or to no address at all, and the frame has no end then."""
    for bp in (0, 5, STACK - 16, 2**63, 2**64 - 8):
        found = walked({1: FRAME_POINTER_RULE}, {STACK - 8: 1, 8: 1}, bp=bp)
        assert not found.frames
        assert not found.complete


def test_a_frame_that_does_not_grow_ends_the_walk() -> None:
    """Call frame information may say so where rbp was overwritten."""
    found = walked({1: UnwindRule(RuleKind.CFA_BP, 16), 2: END}, {STACK - 0x18: 2, STACK - 8: 2}, bp=STACK - 0x20)
    assert not found.frames
    assert not walked({1: UnwindRule(RuleKind.CFA_BP, 16), 2: END}, {STACK - 8: 2}, bp=STACK - 16).frames


def test_a_return_address_that_is_none_ends_the_walk() -> None:
    """No code lies beyond 48 bits; a zero is how outermost functions mark their end."""
    assert not walked({1: by_sp(0x20)}, {STACK + 0x18: 1 << 60}).complete
    assert walked({1: by_sp(0x20)}, {STACK + 0x18: 0}).complete


def test_a_walk_in_a_circle_ends() -> None:
    """A signal's frame that points at itself."""
    found = walked({1: SIGNAL}, {STACK + UCONTEXT_PC: 1, STACK + UCONTEXT_SP: STACK, STACK + UCONTEXT_BP: 0})
    assert len(found.frames) == MOST_FRAMES
    assert not found.complete
