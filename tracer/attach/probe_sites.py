"""Where in a function a probe costs least: on an instruction that the kernel emulates instead of single-stepping.

The kernel emulates nop, near jmp, conditional jmp, near call and push of a register (arch/x86/kernel/uprobes.c:
branch_setup_xol_ops, push_setup_xol_ops); for anything else it needs a second trap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

import capstone
from capstone import x86_const as x86

#: A function whose first emulated instruction is further away than this is probed at its entry.
REACH = 64
#: How much of a function is searched for jumps back before the probe.
BODY_LIMIT = 16384
#: Registers that carry the first six integer arguments (System V ABI, 3.2.3).
ARGUMENT_REGISTERS = ("rdi", "rsi", "rdx", "rcx", "r8", "r9")
_PUSHES = range(0x50, 0x58)
#: The one prefix that push_setup_xol_ops() takes: registers r8 to r15.
_REX_B = 0x41
#: What capstone puts in no group, or does not say that it moves the stack pointer.
_NOT_PASSED = ("push", "pop", "enter", "leave", "hlt", "ud", "iret", "loop", "sys")
_SHORT_CONDITIONAL = range(0x70, 0x80)
_NEAR_CONDITIONAL = range(0x80, 0x90)


@dataclass(frozen=True, slots=True)
class ProbeSite:
    """An offset in bytes from the function's entry, and whether the instruction there is emulated."""

    offset: int
    emulated: bool


@cache
def _decoder() -> capstone.Cs:
    decoder = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
    decoder.detail = True
    return decoder


def is_emulated(code: bytes) -> bool:
    """Return whether the kernel emulates the instruction that code begins with, by its bytes."""
    if not code:
        return False
    first = code[0]
    if first in _PUSHES or first in (0x90, 0xEB, 0xE9, 0xE8) or first in _SHORT_CONDITIONAL:
        return True
    if first == _REX_B:
        return len(code) > 1 and code[1] in _PUSHES
    return first == 0x0F and len(code) > 1 and code[1] in _NEAR_CONDITIONAL


def probe_site(code: bytes, arguments: frozenset[int]) -> ProbeSite:
    """Choose the probe's place in the function whose bytes are code (its whole body, or at least its beginning).

    The first emulated instruction wins that every call passes exactly once, with the given arguments (by number)
    still in their registers and the stack pointer where the caller left it; else the entry.
    """
    if is_emulated(code):
        return ProbeSite(0, True)
    protected = {ARGUMENT_REGISTERS[number] for number in arguments}
    offset = 0
    for instruction in _decoder().disasm(code[:REACH], 0):
        if is_emulated(bytes(instruction.bytes)):
            if _is_jumped_to(code, offset):
                break
            return ProbeSite(offset, True)
        if not _can_be_passed(instruction, protected):
            break
        offset = instruction.address + instruction.size
    return ProbeSite(0, False)


def _can_be_passed(instruction: capstone.CsInsn, protected: set[str]) -> bool:
    """Whether a probe behind this instruction sees all that one before it would."""
    if any(instruction.group(group) for group in (capstone.CS_GRP_JUMP, capstone.CS_GRP_CALL, capstone.CS_GRP_RET,
                                                  capstone.CS_GRP_INT)):
        return False
    if instruction.mnemonic.startswith(_NOT_PASSED):
        return False
    _, written = instruction.regs_access()
    changed = {_whole_register(instruction.reg_name(register)) for register in written}
    return "rsp" not in changed and not changed & protected


def _whole_register(name: str) -> str:
    """Return the 64-bit register that name is a part of."""
    return _parts().get(name, name)


@cache
def _parts() -> dict[str, str]:
    parts = {}
    for letter in "abcd":
        parts.update({f"e{letter}x": f"r{letter}x", f"{letter}x": f"r{letter}x", f"{letter}l": f"r{letter}x",
                      f"{letter}h": f"r{letter}x"})
    for name in ("si", "di", "bp", "sp"):
        parts.update({f"e{name}": f"r{name}", name: f"r{name}", f"{name}l": f"r{name}"})
    for number in range(8, 16):
        parts.update({f"r{number}{size}": f"r{number}" for size in "dwb"})
    return parts


def _is_jumped_to(code: bytes, offset: int) -> bool:
    """Whether a jump in the function may lead to its first offset bytes or the probe: calls would pass it twice."""
    return any(0 < target <= offset for target in _jump_targets(code[:BODY_LIMIT]))


def _jump_targets(code: bytes) -> Iterator[int]:
    """Yield where jumps lead, and 1, which no probe is before, where the code cannot be read to its end."""
    end = 0
    for instruction in _decoder().disasm(code, 0):
        end = instruction.address + instruction.size
        jumps = instruction.group(capstone.CS_GRP_JUMP) or instruction.mnemonic.startswith("loop")
        if jumps and instruction.operands[0].type == x86.X86_OP_IMM:
            yield instruction.operands[0].imm
    if end < len(code):
        yield 1
