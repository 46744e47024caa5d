"""One step of a stack walk from a frame to its caller, as a value, and as the u64 that bpf/unwind.h reads."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final


class RuleKind(IntEnum):
    """Say how to find the canonical frame address (CFA); the numbers are `enum rule_kind` of bpf/unwind.h."""

    UNKNOWN = 0
    """No call frame information covers the address."""
    CFA_SP = 1
    """CFA = rsp + cfa_offset."""
    CFA_BP = 2
    """CFA = rbp + cfa_offset."""
    CFA_DEREF_BP = 3
    """CFA = the 8 bytes at rbp + cfa_offset: what GCC does in functions that realign their stack."""
    END = 4
    """The outermost frame: it has no return address."""
    SIGNAL = 5
    """The return trampoline of a signal handler: rsp points at a ucontext."""
    FRAME_POINTER = 6
    """CFA = rbp + 16 with rbp saved at CFA - 16. Never found in call frame information; for code without any."""
    UNSUPPORTED = 7
    """There is call frame information, and it is not one of the above."""


class BpKind(IntEnum):
    """Say where the caller's rbp is; the numbers are `enum bp_kind` of bpf/unwind.h."""

    UNCHANGED = 0
    """Still in rbp."""
    AT_CFA = 1
    """Saved at CFA + bp_offset."""
    AT_BP = 2
    """Saved at rbp + bp_offset."""


@dataclass(frozen=True, slots=True)
class UnwindRule:
    """One step from a frame to its caller, offsets in bytes. The return address is at CFA - 8."""

    kind: RuleKind
    cfa_offset: int = 0
    bp_kind: BpKind = BpKind.UNCHANGED
    bp_offset: int = 0

    @property
    def fits(self) -> bool:
        """Return whether both offsets fit their fields of the u64."""
        return -(1 << 31) <= self.cfa_offset < 1 << 31 and -(1 << 23) <= self.bp_offset < 1 << 23

    def encode(self) -> int:
        """Return the rule as the u64 that bpf/unwind.h reads; UNSUPPORTED if an offset does not fit.

        Bits 0-3 kind, 4-7 bp_kind, 8-31 bp_offset (signed), 32-63 cfa_offset (signed).
        """
        if not self.fits:
            return RuleKind.UNSUPPORTED
        return (self.cfa_offset & 0xFFFFFFFF) << 32 | (self.bp_offset & 0xFFFFFF) << 8 | self.bp_kind << 4 | self.kind

    @classmethod
    def decode(cls, encoded: int) -> "UnwindRule":
        """Return the rule in a u64 made by `encode`; UNSUPPORTED for a kind that does not exist."""
        kind, bp_kind = encoded & 0xF, encoded >> 4 & 0xF
        if kind > max(RuleKind) or bp_kind > max(BpKind):
            return UNSUPPORTED
        cfa_offset, bp_offset = encoded >> 32 & 0xFFFFFFFF, encoded >> 8 & 0xFFFFFF
        return cls(
            RuleKind(kind),
            cfa_offset - (cfa_offset >> 31 << 32),
            BpKind(bp_kind),
            bp_offset - (bp_offset >> 23 << 24),
        )


UNKNOWN: Final = UnwindRule(RuleKind.UNKNOWN)
UNSUPPORTED: Final = UnwindRule(RuleKind.UNSUPPORTED)
END: Final = UnwindRule(RuleKind.END)
SIGNAL: Final = UnwindRule(RuleKind.SIGNAL)
