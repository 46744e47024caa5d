"""Loops whose end runs into their beginning get a jump there, and the program stays what it was.

What programs do is compared by running them: a small machine for some of the kernel's instructions.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracer.attach.bpf_object import INSTRUCTION_BYTES, LOAD_64, PSEUDO_MAP_FD, Code
from tracer.attach.loops import with_closed_loops

#: Opcodes (include/uapi/linux/bpf.h).
MOVE, ADD, ADD_REGISTER = 0xB7, 0x07, 0x0F
GOTO, IF_EQUAL, IF_LESS, IF_GREATER, IF_LESS_32, IF_NOT_REGISTER = 0x05, 0x15, 0xA5, 0x25, 0xA6, 0x5D
CALL, EXIT = 0x85, 0x95
BRANCHES = (IF_EQUAL, IF_LESS, IF_GREATER, IF_LESS_32, IF_NOT_REGISTER)
NEXT = struct.pack("<BBhI", GOTO, 0, 0, 0)
#: Steps after which a run is cut: many programs never end.
STEPS = 200


@dataclass(frozen=True)
class Line:
    """One instruction as it is written: it jumps to the line at to."""

    opcode: int
    immediate: int = 0
    to: int = 0
    target: int = 0
    source: int = 0
    map: str = ""


def assembled(lines: list[Line]) -> Code:
    """Return code; one that loads 64 bits takes two slots."""
    places = [0]
    for line in lines:
        places.append(places[-1] + (2 if line.opcode == LOAD_64 else 1))
    made, maps = bytearray(), []
    for index, line in enumerate(lines):
        jumps = line.opcode == GOTO or line.opcode in BRANCHES
        offset = places[line.to] - places[index] - 1 if jumps else 0
        if line.map:
            maps.append((places[index], line.map))
        source = PSEUDO_MAP_FD if line.map else line.source
        made += struct.pack("<BBhI", line.opcode, source << 4 | line.target, offset, line.immediate)
        if line.opcode == LOAD_64:
            # The upper half; in code as it is compiled its other fields are 0.
            made += struct.pack("<BBhI", 0, 0, 0, line.immediate ^ 0x77)
    return Code(bytes(made), tuple(maps))


def slots(code: Code) -> list[bytes]:
    return [code.instructions[at : at + INSTRUCTION_BYTES] for at in range(0, len(code.instructions), INSTRUCTION_BYTES)]


def run(code: Code, first: int) -> list[tuple[object, ...]]:
    """Return what a program does, beginning with a number in each register: every step but jumps to what follows."""
    instructions, maps, registers = slots(code), dict(code.maps), [first + number for number in range(4)]
    did: list[tuple[object, ...]] = []
    at = 0
    while len(did) < STEPS:
        opcode, both, offset, immediate = struct.unpack("<BBhI", instructions[at])
        target, source = both & 15, both >> 4
        after = at + 1
        if opcode == LOAD_64:
            assert (at in maps) == (source == PSEUDO_MAP_FD), "a map where none is loaded"
            assert instructions[at + 1][:4] == bytes(4), "half of it is missing"
            registers[target] = hash(maps[at]) if at in maps else immediate | instructions[at + 1][4] << 32
            after = at + 2
        elif opcode in (MOVE, ADD, ADD_REGISTER):
            registers[target] = {MOVE: 0, ADD: registers[target], ADD_REGISTER: registers[target]}[opcode] + (
                registers[source] if opcode == ADD_REGISTER else immediate)
        elif opcode == CALL:
            registers[0] = immediate * 3 + registers[1]
        elif opcode == GOTO:
            after += offset
        elif opcode in BRANCHES:
            one, other = registers[target], registers[source] if opcode == IF_NOT_REGISTER else immediate
            if opcode == IF_LESS_32:
                one &= 0xFFFF_FFFF
            taken = {IF_EQUAL: one == other, IF_GREATER: one > other, IF_NOT_REGISTER: one != other}.get(opcode, one < other)
            after += offset if taken else 0
        if instructions[at] != NEXT:
            did.append((opcode, both, immediate, *registers))
        if opcode == EXIT:
            break
        assert opcode in (LOAD_64, MOVE, ADD, ADD_REGISTER, CALL, GOTO, *BRANCHES), f"half an instruction at {at}"
        at = after
    return did


def test_the_machine_counts() -> None:
    """What is compared are steps that were made: from 3 by fours to 50 is twelve times the end, eleven the whole loop."""
    did = run(assembled(TURNED), 0)
    assert len(did) == 1 + 2 * 12 + 2 * 11 + 1 and did[-1] == (EXIT, 0, 0, 0, 12, 24, 51)


def ways(instructions: list[bytes], at: int) -> list[tuple[int, bool]]:
    """Return where an instruction leads, and whether a jump leads there, what a branch leaves out first."""
    opcode, _, offset, _ = struct.unpack("<BBhI", instructions[at])
    if opcode == EXIT:
        return []
    if opcode == GOTO:
        return [(at + 1 + offset, True)]
    return [(at + 1, True), (at + 1 + offset, True)] if opcode in BRANCHES else [(at + 1, False)]


def refused(code: Code) -> set[int]:
    """Return where the older kernels' verifier finds loops that no jump closes: each way into what it has not finished."""
    instructions = slots(code)
    found: set[int] = set()
    begun: set[int] = set()
    finished: set[int] = set()

    def walk(at: int) -> None:
        begun.add(at)
        for after, by_jump in ways(instructions, at):
            if after not in begun:
                walk(after)
            elif after not in finished and not by_jump:
                found.add(after)
        finished.add(at)

    walk(0)
    return found


def check(code: Code) -> Code:
    """Return the code with closed loops, once it is seen to be right in all that is said of it."""
    made = with_closed_loops(code)
    headers = refused(code)
    assert not refused(made)
    assert (made is code) == (not headers)
    assert with_closed_loops(made) is made
    assert len(made.instructions) == len(code.instructions) + len(headers) * INSTRUCTION_BYTES
    assert [name for _, name in made.maps] == [name for _, name in code.maps]
    for index, _ in made.maps:
        assert slots(made)[index][0] == LOAD_64 and slots(made)[index][1] >> 4 == PSEUDO_MAP_FD
    for first in (0, 1, 5, 100):
        assert run(made, first) == run(code, first)
    return made


def opcodes(code: Code) -> list[int]:
    return [instruction[0] for instruction in slots(code)]


#: A loop that is entered in its middle: its last instruction, at 2, runs into its first, at 3.
TURNED = [Line(GOTO, to=3), Line(ADD, 1, target=1), Line(ADD, 2, target=2), Line(ADD, 4, target=3), Line(IF_LESS, 50, to=1, target=3), Line(EXIT)]


def test_a_loop_whose_end_runs_into_its_beginning() -> None:
    """It gets one jump, to what follows anyway, just before its beginning; all else is what it was."""
    code = assembled(TURNED)
    assert refused(code) == {3}
    made = check(code)
    assert slots(made)[3] == NEXT
    assert opcodes(made) == [GOTO, ADD, ADD, GOTO, ADD, IF_LESS, EXIT]


def test_a_jump_to_the_beginning_goes_past_what_was_put_there() -> None:
    """The first jump still leads to the loop's first instruction: else the added one would close no loop."""
    made = slots(check(assembled(TURNED)))
    assert struct.unpack_from("<h", made[0], 2) == (3,)
    assert struct.unpack_from("<h", made[5], 2) == (-5,)


@pytest.mark.parametrize("lines", [
    [Line(EXIT)],
    [Line(MOVE, 1), Line(CALL, 6), Line(EXIT)],
    [Line(ADD, 1, target=1), Line(IF_LESS, 50, to=0, target=1), Line(EXIT)],
    [Line(ADD, 1, target=1), Line(IF_GREATER, 50, to=3, target=1), Line(GOTO, to=0), Line(EXIT)],
    [Line(IF_EQUAL, 1, to=2, target=1), Line(ADD, 1, target=1), Line(ADD, 2, target=2), Line(EXIT)],
    [Line(GOTO, to=2), Line(EXIT), Line(LOAD_64, 7, target=1, map="sites"), Line(GOTO, to=1)],
], ids=["end", "call", "do", "while", "if", "jumps"])  # fmt: skip
def test_code_without_such_loops_is_the_same(lines: list[Line]) -> None:
    """No loops, loops that a jump or a branch closes, and ways that only meet again: the same object."""
    code = assembled(lines)
    assert check(code) is code


def test_a_branch_that_leaves_a_loop_into_its_beginning_is_a_jump() -> None:
    """What a branch leads to when it is not taken is known to the verifier as a loop already."""
    code = assembled([Line(GOTO, to=2), Line(IF_EQUAL, 9, to=4, target=1), Line(ADD, 1, target=1), Line(GOTO, to=1), Line(EXIT)])
    assert check(code) is code


def test_jumps_over_the_place_are_longer() -> None:
    """Forward and backward over it, by each kind of branch; those on one side of it are as they were."""
    code = assembled([
        Line(IF_LESS_32, 3, to=7, target=1), Line(GOTO, to=4), Line(IF_GREATER, 70, to=6, target=1), Line(ADD, 1, target=1),
        Line(ADD, 2, target=1), Line(IF_NOT_REGISTER, to=2, target=1, source=2), Line(GOTO, to=7), Line(EXIT),
    ])  # fmt: skip
    before, after = slots(code), slots(check(code))
    assert refused(code) == {4}
    offsets = [struct.unpack_from("<h", instruction, 2)[0] for instruction in after]
    assert offsets == [7, 3, 4, 0, 0, 0, -5, 0, 0]
    assert [struct.unpack_from("<h", instruction, 2)[0] for instruction in before] == [6, 2, 3, 0, 0, -4, 0, 0]


def test_maps_are_found_where_they_went() -> None:
    """A map that is loaded before the place, at it, or behind it; what takes two slots stays together."""
    code = assembled([
        Line(LOAD_64, 5, target=1, map="sites"), Line(GOTO, to=3), Line(LOAD_64, 9, target=2),
        Line(LOAD_64, 6, target=3, map="stacks"), Line(ADD, 1, target=0), Line(IF_LESS, 40, to=2), Line(LOAD_64, 7, map="rules"), Line(EXIT),
    ])  # fmt: skip
    assert code.maps == ((0, "sites"), (5, "stacks"), (9, "rules"))
    assert check(code).maps == ((0, "sites"), (6, "stacks"), (10, "rules"))


def test_calls_and_ends_are_no_jumps() -> None:
    """Both have the class of jumps, and their offset says nothing: it stays, and is not followed."""
    code = assembled([Line(GOTO, to=3), Line(CALL, 14), Line(IF_EQUAL, 1, to=5), Line(ADD, 1, target=1), Line(IF_LESS, 30, to=1, target=1), Line(EXIT)])
    assert check(code) is code
    code = assembled([Line(GOTO, to=2), Line(CALL, 14), Line(ADD, 1, target=1), Line(IF_LESS, 30, to=1, target=1), Line(EXIT)])
    odd = bytearray(code.instructions)
    odd[INSTRUCTION_BYTES + 2] = 9
    made = slots(with_closed_loops(Code(bytes(odd), ())))
    assert refused(code) == {2} and made[1] == bytes(odd[8:16]) and made[2] == NEXT
    check(code)


def test_loops_in_loops() -> None:
    """Each beginning gets its own jump, and what lies between two of them moves by one, behind both by two."""
    code = assembled([
        Line(GOTO, to=6), Line(GOTO, to=3), Line(ADD, 1, target=2), Line(ADD, 1, target=2), Line(IF_LESS, 9, to=2, target=2),
        Line(ADD, 1, target=1), Line(MOVE, 0, target=2), Line(IF_LESS, 9, to=1, target=1), Line(EXIT),
    ])  # fmt: skip
    assert refused(code) == {3, 6}
    assert opcodes(check(code)) == [GOTO, GOTO, ADD, GOTO, ADD, IF_LESS, ADD, GOTO, MOVE, IF_LESS, EXIT]
    twice = assembled([*TURNED[:-1], *moved(TURNED, 5)])
    assert refused(twice) == {3, 8}
    assert opcodes(check(twice))[3] == opcodes(check(twice))[9] == GOTO


def moved(lines: list[Line], by: int) -> list[Line]:
    return [Line(line.opcode, line.immediate, line.to + by, line.target, line.source, line.map) for line in lines]


def test_what_nothing_leads_to_is_left_alone() -> None:
    """Code behind an end that no jump reaches is no loop, and goes where its place goes."""
    code = assembled([*TURNED, *moved(TURNED, 6)])
    assert refused(code) == {3}
    assert slots(check(code))[7:] == slots(assembled(TURNED))


def any_lines(dice: Random) -> list[Line]:
    """Return a program of any shape that does not run beyond its end."""
    count = dice.randint(2, 16)

    def one() -> Line:
        target, source, immediate, to = dice.randrange(4), dice.randrange(4), dice.randrange(9), dice.randrange(count + 1)
        opcode = dice.choice((MOVE, ADD, ADD, ADD_REGISTER, LOAD_64, LOAD_64, CALL, GOTO, *BRANCHES))
        name = dice.choice(("", "sites", "stacks")) if opcode == LOAD_64 else ""
        return Line(opcode, immediate, to, target, 0 if opcode == LOAD_64 else source, name)

    lines = [*(one() for _ in range(count)), Line(EXIT)]
    if dice.random() < 0.7:
        # As compilers begin loops that they have turned.
        lines[0] = Line(GOTO, to=dice.randrange(count))
    if dice.random() < 0.5:
        lines[dice.randrange(count)] = Line(EXIT)
    return lines


def programs() -> Iterator[Code]:
    for seed in range(1000):
        yield assembled(any_lines(Random(seed)))


@settings(deadline=None, max_examples=300)
@given(dice=st.randoms(use_true_random=False))
def test_any_program_does_what_it_did(dice: Random) -> None:
    """Whatever the ways through it: the same steps with the same numbers, and no loop is left that no jump closes."""
    check(assembled(any_lines(dice)))


def test_many_programs_have_such_loops() -> None:
    """What programs are made of here is such that the test of any program is one: of a thousand, fifty have loops to close."""
    made = [check(code) is not code for code in programs()]
    assert sum(made) > 50
