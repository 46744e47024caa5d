"""Walks the stack of a stopped thread and says which part of it belongs to which frame."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from symbolizer.unwind_rule import BpKind, RuleKind, UnwindRule
from tracer.collect.unwind_rules import UCONTEXT_BP, UCONTEXT_PC, UCONTEXT_SP
from tracer.records import ADDRESS_BITS

#: Bytes of process memory at an address; fewer or none where it cannot be read.
Read = Callable[[int, int], bytes]
#: The rule at an address; interrupted: of the instruction there, not of the call before it.
RuleFor = Callable[[int, bool], UnwindRule]

#: Deep recursion is cut there; each frame costs some 10 µs, and the rest is still named by its thread.
MOST_FRAMES = 4096
#: System V ABI, x86-64, 3.2.2: a function may use so many bytes below its stack pointer.
RED_ZONE = 128


@dataclass(frozen=True, slots=True)
class StackFrame:
    """One frame: its memory is [sp, cfa). called: ip is a return address, the call lies before it."""

    ip: int
    called: bool
    sp: int
    cfa: int


@dataclass(frozen=True, slots=True)
class StackFrames:
    """The frames of one thread, innermost first."""

    frames: tuple[StackFrame, ...]
    #: Whether the walk came to the outermost frame.
    complete: bool

    @property
    def top(self) -> int:
        """Return the first address above all frames, 0 without frames."""
        return self.frames[-1].cfa if self.frames else 0

    def at(self, address: int) -> StackFrame | None:
        """Return the frame that holds the address; the innermost one has the red zone too."""
        for index, frame in enumerate(self.frames):
            if frame.sp - (0 if index else RED_ZONE) <= address < frame.cfa:
                return frame
        return None


def walk(sp: int, bp: int, ip: int, rule_for: RuleFor, read: Read) -> StackFrames:
    """Return the frames from these registers outwards, as far as rules and memory reach."""
    frames: list[StackFrame] = []
    called = False
    while len(frames) < MOST_FRAMES:
        rule = rule_for(ip, not called)
        try:
            step = _step(rule, sp, bp, read)
        except LookupError:
            return StackFrames(tuple(frames), False)
        if step is None:
            return StackFrames(tuple(frames), rule.kind is RuleKind.END)
        ip_next, bp, cfa, end = step
        frames.append(StackFrame(ip, called, sp, end))
        # A frame pointer leads out of the stack where rbp holds something else, and an address of 0 is the end.
        if not ip_next or ip_next >> ADDRESS_BITS:
            return StackFrames(tuple(frames), not ip_next)
        called = rule.kind is not RuleKind.SIGNAL
        ip, sp = ip_next, cfa
    return StackFrames(tuple(frames), False)


def _step(rule: UnwindRule, sp: int, bp: int, read: Read) -> tuple[int, int, int, int] | None:
    """Return the caller's ip, bp and sp, and where the frame ends; None if the rule leads no further.

    Raises LookupError where the walk leaves the stack or its memory.
    """
    if rule.kind is RuleKind.SIGNAL:
        after = sp + UCONTEXT_PC + 8
        return _word(read, sp + UCONTEXT_PC), _word(read, sp + UCONTEXT_BP), _word(read, sp + UCONTEXT_SP), after
    if rule.kind is RuleKind.CFA_SP:
        cfa = sp + rule.cfa_offset
    elif rule.kind in (RuleKind.CFA_BP, RuleKind.FRAME_POINTER):
        cfa = bp + rule.cfa_offset
    elif rule.kind is RuleKind.CFA_DEREF_BP:
        cfa = _word(read, bp + rule.cfa_offset)
    else:
        return None
    if cfa <= sp or (rule.kind is RuleKind.FRAME_POINTER and bp < sp):
        raise LookupError("a frame that does not grow")
    if rule.bp_kind is BpKind.AT_CFA:
        bp = _word(read, cfa + rule.bp_offset)
    elif rule.bp_kind is BpKind.AT_BP:
        bp = _word(read, bp + rule.bp_offset)
    return _word(read, cfa - 8), bp, cfa, cfa


def _word(read: Read, address: int) -> int:
    if not 0 <= address < 1 << ADDRESS_BITS:
        raise LookupError(address)
    found = read(address, 8)
    if len(found) != 8:
        raise LookupError(address)
    return int.from_bytes(found, "little")
