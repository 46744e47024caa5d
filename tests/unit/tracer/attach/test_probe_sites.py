"""Where in a function the probe goes: on hand-assembled bytes, whose answer is known, and on compiled functions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from symbolizer.elf import Elf
from symbolizer.unwind_info import UnwindInfo
from tracer.attach.probe_sites import ARGUMENT_REGISTERS, ProbeSite, is_emulated, probe_site

ENTRY = ProbeSite(0, False)
FIRST = frozenset({0})
#: push %rbx, and the ret that ends every function here.
PUSH, RET = "53", "c3"


def code(*parts: str) -> bytes:
    return bytes.fromhex("".join(parts))


def emulated_among(prefix: str) -> set[int]:
    """Return the bytes that make an emulated instruction when they follow prefix; zeroes come behind."""
    return {byte for byte in range(256) if is_emulated(bytes.fromhex(prefix) + bytes([byte, 0, 0, 0, 0, 0]))}


def test_the_first_byte_says_what_the_kernel_emulates() -> None:
    """nop, jmp, call, short jcc and push of a register are emulated, and no other one-byte opcode."""
    assert emulated_among("") == {0x90, 0xE8, 0xE9, 0xEB, *range(0x50, 0x58), *range(0x70, 0x80)}


def test_two_byte_opcodes() -> None:
    """Of the opcodes behind 0F, the near conditional jumps alone are emulated."""
    assert emulated_among("0f") == set(range(0x80, 0x90))


def test_pushes_of_the_upper_registers() -> None:
    """Behind REX.B, push of r8 to r15 is emulated, and nothing else: 41 90 is no nop but an exchange."""
    assert emulated_among("41") == set(range(0x50, 0x58))


@pytest.mark.parametrize("text", ["f30f1efa", "66e80000", "f2e900000000", "ff2500000000", "ff30", "6a00", "0f", "41", ""])
def test_what_looks_like_it_is_not_emulated(text: str) -> None:
    """endbr64, prefixed calls and jumps, jumps and pushes of memory and constants, and cut-off bytes are not."""
    assert not is_emulated(bytes.fromhex(text))


def test_an_emulated_entry_is_best() -> None:
    """A function that begins with a push is probed at its entry, without a second trap."""
    assert probe_site(code(PUSH, RET), FIRST) == ProbeSite(0, True)


def test_free_of_glibc() -> None:
    """test %rdi,%rdi; je: the je, at offset 3, as no register has changed."""
    assert probe_site(code("4885ff", "7402", PUSH, "5b", RET), FIRST) == ProbeSite(3, True)


def test_behind_endbr64() -> None:
    """A function made for CET is probed behind its endbr64."""
    assert probe_site(code("f30f1efa", PUSH, RET), FIRST) == ProbeSite(4, True)


@pytest.mark.parametrize(
    ("text", "argument"),
    [
        ("89f7", 0), ("6689f7", 0), ("4088f7", 0), ("4831ff", 0),  # edi, di, dil, rdi
        ("89fe", 1), ("6689fe", 1), ("4088fe", 1),  # esi, si, sil
        ("89fa", 2), ("b201", 2), ("b601", 2), ("4899", 2), ("f7e0", 2),  # edx, dl, dh, and cqo and mul without naming it
        ("89f9", 3), ("b101", 3), ("b501", 3),  # ecx, cl, ch
        ("4531c0", 4), ("4188c0", 4), ("664189c0", 4),  # r8d, r8b, r8w
        ("4531c9", 5), ("4188c1", 5), ("664189c1", 5),  # r9d, r9b, r9w
    ],
)  # fmt: skip
def test_an_argument_that_changes_first(text: str, argument: int) -> None:
    """Once any part of an argument's register is written, only the entry has the argument; others do not mind."""
    body = code(text, PUSH, RET)
    others = frozenset(range(len(ARGUMENT_REGISTERS))) - {argument}
    assert probe_site(body, frozenset({argument})) == ENTRY
    assert probe_site(body, others) == ProbeSite(len(bytes.fromhex(text)), True)


@pytest.mark.parametrize("text", ["4883ec08", "6a01", "4883e4f0", "488d6424f8", "5c"])
def test_the_stack_pointer_moves_first(text: str) -> None:
    """A return probe looks for the return address at rsp: behind sub, push 1, and, lea, pop it is gone."""
    assert probe_site(code(text, PUSH, RET), frozenset()) == ENTRY


def test_a_loop_back_to_the_probe() -> None:
    """What a call passes twice would count twice: push %rbx at 3, and a jump back to it."""
    assert probe_site(code("4885ff", PUSH, "7502", RET), FIRST) == ProbeSite(3, True)
    assert probe_site(code("4885ff", PUSH, "75fd", RET), FIRST) == ENTRY


def test_a_loop_back_to_before_the_probe() -> None:
    """A jump to what leads to the probed instruction passes it again too."""
    # 0: test; 3: mov %eax,%eax; 5: push; 6: jne 3
    assert probe_site(code("4885ff", "89c0", PUSH, "75fb", RET), FIRST) == ENTRY


def test_a_loop_behind_the_probe() -> None:
    """A loop that does not lead back to the probe is no matter."""
    # 3: je over; 5: push; 6: jne 5
    assert probe_site(code("4885ff", "7403", PUSH, "75fd", RET), FIRST) == ProbeSite(3, True)


def test_a_loop_far_away_is_seen() -> None:
    """The jump back may come thousands of bytes later."""
    body = code("4885ff", PUSH, "4885ff" * 1000)
    back = 3 - (len(body) + 6)
    assert probe_site(body + b"\x0f\x85" + back.to_bytes(4, "little", signed=True) + b"\xc3", FIRST) == ENTRY


@pytest.mark.parametrize("text", ["e302", "ffe0", "ff15000000", "c3", "cc", "06"])
def test_what_cannot_be_passed(text: str) -> None:
    """Not every call comes by behind a jrcxz, an indirect jump, a return, a trap, or bytes that are no instruction."""
    assert probe_site(code(text, PUSH, PUSH, RET), frozenset()) == ENTRY


def test_reach() -> None:
    """An emulated instruction that is far away is not looked for."""
    assert probe_site(code("4885ff" * 20, PUSH, RET), FIRST) == ProbeSite(60, True)
    assert probe_site(code("4885ff" * 22, PUSH, RET), FIRST) == ENTRY


def test_nothing_to_read() -> None:
    """Without bytes there is the entry."""
    assert probe_site(b"", FIRST) == ENTRY


COMPILED = """
long other(long, long);
long guarded(void *p) { if (!p) return 0; return other((long)p, 1) + 1; }
long saves(long a, long b) { long c = other(b, a); return c + a + b + other(a, c); }
long first_changed(long a, long b) { return other(b, a) + 1; }
void loops(volatile long *p, long n) { do *p = n; while (--n); }
"""


def site_of(path: Path, name: str, arguments: frozenset[int]) -> ProbeSite:
    data = path.read_bytes()
    elf = Elf.parse(data)
    vaddr = elf.symbols().defined([name])[name]
    bounds = UnwindInfo(data).function_bounds(vaddr)
    offset = elf.vaddr_to_file_offset(vaddr)
    assert bounds is not None and offset is not None
    return probe_site(data[offset : offset + bounds[1] - vaddr], arguments)


@pytest.mark.parametrize("protection", ["none", "full"])
def test_compiled_functions(compile_shared: Callable[..., Path], protection: str) -> None:
    """Compiled functions are probed as their source leads one to expect, with CET and without."""
    made = compile_shared(COMPILED, "-fomit-frame-pointer", f"-fcf-protection={protection}")
    start = 4 if protection == "full" else 0
    assert site_of(made, "guarded", FIRST) == ProbeSite(start + 3, True)
    assert site_of(made, "saves", frozenset({0, 1})) == ProbeSite(start, True)
    assert site_of(made, "first_changed", frozenset({0, 1})) == ENTRY
    assert site_of(made, "loops", frozenset({0, 1})) == ENTRY


def test_places_in_compiled_functions(compile_shared: Callable[..., Path],
                                      disassemble: Callable[..., dict[str, list[tuple[int, str]]]]) -> None:
    """The place is the beginning of an instruction, and of a kind that is emulated, as objdump names it."""
    made = compile_shared(COMPILED, "-fcf-protection=full")
    functions = disassemble(made)
    for name in ("guarded", "saves"):
        start = functions[name][0][0]
        words = dict(functions[name])[start + site_of(made, name, frozenset({0, 1})).offset]
        assert words.split()[0] in {"push", "je", "jne", "jmp", "call", "nop"}
