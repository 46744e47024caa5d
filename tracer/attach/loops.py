"""Makes loops that every kernel's verifier takes: older ones know a loop only by the jump that closes it.

Where the compiler lays out a loop so that its end runs into its beginning without a jump, check_cfg() in the kernel's
kernel/bpf/verifier.c refuses the program ("back-edge"; seen with 5.10). A jump to the next instruction is put there.
"""

from __future__ import annotations

from collections.abc import Iterator

from tracer.attach.bpf_object import INSTRUCTION_BYTES, Code

#: goto +0 (include/uapi/linux/bpf.h: BPF_JMP | BPF_JA).
_NEXT = bytes((0x05, 0, 0, 0, 0, 0, 0, 0))
_JUMP, _JUMP_32 = 5, 6
_ALWAYS, _CALL, _EXIT = 0x00, 0x80, 0x90
_NEW, _UNDER_WAY, _DONE = range(3)


def with_closed_loops(code: Code) -> Code:
    """Return code in which every loop is closed by a jump; the same code if that is so already."""
    instructions = [code.instructions[at : at + INSTRUCTION_BYTES]
                    for at in range(0, len(code.instructions), INSTRUCTION_BYTES)]
    headers = sorted(set(_run_into(instructions)))
    if not headers:
        return code
    moved = _places(len(instructions), headers)
    made = bytearray()
    for index, instruction in enumerate(instructions):
        if index in headers:
            made += _NEXT
        target = _target(instructions, index)
        if target is not None:
            offset = moved[target] - moved[index] - 1
            instruction = instruction[:2] + offset.to_bytes(2, "little", signed=True) + instruction[4:]
        made += instruction
    return Code(bytes(made), tuple((moved[index], name) for index, name in code.maps))


def _places(count: int, headers: list[int]) -> list[int]:
    """Return where each instruction is, and the end, once there is one more before each header."""
    moved, more = [], 0
    wanted = set(headers)
    for index in range(count + 1):
        more += index in wanted
        moved.append(index + more)
    return moved


def _target(instructions: list[bytes], index: int) -> int | None:
    """Return where an instruction jumps to, None for one that does not."""
    opcode = instructions[index][0]
    if opcode & 7 not in (_JUMP, _JUMP_32) or opcode & 0xF0 in (_CALL, _EXIT):
        return None
    return index + 1 + int.from_bytes(instructions[index][2:4], "little", signed=True)


def _successors(instructions: list[bytes], index: int) -> Iterator[tuple[int, bool]]:
    """Give what may come after an instruction, in the verifier's order, and whether it gets there by a jump."""
    opcode = instructions[index][0]
    jumps = opcode & 7 in (_JUMP, _JUMP_32)
    if jumps and opcode & 0xF0 == _EXIT:
        return
    target = _target(instructions, index)
    if target is None:
        yield index + 1, False
    elif opcode & 7 == _JUMP and opcode & 0xF0 == _ALWAYS:
        yield target, True
    else:
        # What a branch falls through to may close a loop.
        yield index + 1, True
        yield target, True


def _run_into(instructions: list[bytes]) -> Iterator[int]:
    """Give each instruction that begins a loop whose end runs into it."""
    state = [_NEW] * len(instructions)
    state[0] = _UNDER_WAY
    stack = [(0, _successors(instructions, 0))]
    while stack:
        index, following = stack[-1]
        for after, by_jump in following:
            if state[after] == _NEW:
                state[after] = _UNDER_WAY
                stack.append((after, _successors(instructions, after)))
                break
            if state[after] == _UNDER_WAY and not by_jump:
                yield after
        else:
            state[index] = _DONE
            stack.pop()
