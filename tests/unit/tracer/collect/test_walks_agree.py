"""Python finishes a stack as the kernel side would have: its walk and that of bpf/unwind.h give the same frames."""

from __future__ import annotations

import ctypes
import struct
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from symbolizer.unwind_rule import BpKind, RuleKind, UnwindRule
from tracer import records
from tracer.collect.rule_table import RuleTable
from tracer.collect.unwind_rules import FRAME_POINTER_RULE, Miss, Unwinder
from tracer.records import ADDRESS_MASK, StackEnd

LIMIT = 12
BASE = 0x7FFD_0000_1000
WORDS = 2 * records.COPY_PIECE // 8
#: The return addresses of a made-up program; each has a rule.
CODE = tuple(range(0x401000, 0x401006))

HARNESS = """
    #include <stdint.h>
    #include <string.h>
    typedef uint64_t u64; typedef int64_t s64; typedef uint32_t u32; typedef uint8_t u8;
    static const u8 *memory; static u64 start, size;
    static int read_user(void *to, u64 count, u64 address)
    {
        if (address < start || address - start > size || count > size - (address - start))
            return -14;
        memcpy(to, memory + (address - start), count);
        return 0;
    }
    #define READ_USER(to, count, address) read_user(to, count, address)
    #include "unwind.h"
    /* code: count pairs of address and rule. Returns the number of frames; how it ended in *result, -1: all were kept. */
    u32 walk(const u64 *code, u32 count, struct unwind_regs *regs, const u8 *bytes, u64 at, u64 length, u64 *frames,
             u32 limit, s64 *result, u64 *last)
    {
        struct unwind_window window = {0};
        u32 depth = 0, i;
        memory = bytes; start = at; size = length;
        for (;;) {
            *last = 0;
            for (i = 0; i < count; i++)
                if (code[2 * i] == regs->pc)
                    *last = code[2 * i + 1];
            *result = unwind_step(*last, regs, &window);
            if (*result != STEP_OK)
                return depth;
            if (depth == limit) {
                *result = -1;
                return depth;
            }
            frames[depth++] = regs->pc;
        }
    }
"""
#: enum unwind_result
END, UNREADABLE, UNSUPPORTED, STUCK = 1, 2, 3, 4


class Registers(ctypes.Structure):
    """struct unwind_regs"""

    _fields_ = (("pc", ctypes.c_uint64), ("sp", ctypes.c_uint64), ("bp", ctypes.c_uint64))


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """Return bpf/unwind.h with a loop around it."""
    folder = tmp_path_factory.mktemp("walk")
    (folder / "walk.c").write_text(HARNESS)
    header = Path(__file__).parents[4] / "bpf"
    subprocess.run(["gcc", "-O1", "-w", "-shared", "-fPIC", f"-I{header}", "-o", folder / "walk.so", folder / "walk.c"],
                   check=True)
    loaded = ctypes.CDLL(str(folder / "walk.so"))
    u32, u64 = ctypes.c_uint32, ctypes.c_uint64
    loaded.walk.argtypes = (ctypes.c_void_p, u32, ctypes.c_void_p, ctypes.c_char_p, u64, u64, ctypes.c_void_p, u32,
                            ctypes.c_void_p, ctypes.c_void_p)
    loaded.walk.restype = u32
    return loaded


class Table:
    """A program's rules, the same for an address that was interrupted."""

    def __init__(self, rules: dict[int, UnwindRule]) -> None:
        self.rules = rules

    def rule_for(self, address: int, *, interrupted: bool) -> UnwindRule:
        return self.rules[address]


def in_python(rules: dict[int, UnwindRule], pc: int, sp: int, bp: int, memory: bytes) -> tuple[list[int], StackEnd]:
    unwinder = Unwinder(0, Table(rules), RuleTable(np.zeros(64, records.RULE_BUCKET)))
    found = unwinder.unwind(Miss(1, pc, sp, bp, memoryview(memory)), LIMIT)
    return [address & ADDRESS_MASK for address in found.addresses], found.ended


def in_c(library: ctypes.CDLL, rules: dict[int, UnwindRule], pc: int, sp: int, bp: int,
         memory: bytes) -> tuple[list[int], StackEnd]:
    code = (ctypes.c_uint64 * (2 * len(rules)))(*(word for pc, rule in rules.items() for word in (pc, rule.encode())))
    frames, result, last = (ctypes.c_uint64 * LIMIT)(), ctypes.c_int64(), ctypes.c_uint64()
    registers = Registers(pc, sp, bp)
    depth = library.walk(code, len(rules), ctypes.byref(registers), memory, BASE, len(memory), frames, LIMIT,
                         ctypes.byref(result), ctypes.byref(last))
    ends = {-1: StackEnd.DEPTH, END: StackEnd.COMPLETE, UNREADABLE: StackEnd.NO_COPY, UNSUPPORTED: StackEnd.UNSUPPORTED,
            STUCK: StackEnd.UNREADABLE}
    # Here the two differ: see test_a_frame_pointer_below_the_stack.
    ended = ends[result.value]
    # As end_of() of bpf/stack.c has it: a chain of frame pointers ends where it leads nowhere.
    if last.value & 0xF == RuleKind.FRAME_POINTER and result.value in (UNREADABLE, STUCK):
        ended = StackEnd.COMPLETE
    return list(frames[:depth]), ended


offsets = st.integers(-3, 12).map(lambda n: 8 * n)
rules = st.one_of(
    st.builds(UnwindRule, st.sampled_from([RuleKind.CFA_SP, RuleKind.CFA_BP, RuleKind.CFA_DEREF_BP]), offsets,
              st.sampled_from(BpKind), offsets),
    st.builds(UnwindRule, st.just(RuleKind.CFA_SP), st.integers(1, 90).map(lambda n: 8 * n)),
    st.just(FRAME_POINTER_RULE), st.just(UnwindRule(RuleKind.SIGNAL)),
    st.just(UnwindRule(RuleKind.END)), st.just(UnwindRule(RuleKind.UNSUPPORTED)),
)  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(program=st.lists(rules, min_size=len(CODE), max_size=len(CODE)), sp=st.integers(2, 100), bp=st.one_of(st.integers(-2, 20), st.integers(0, WORDS)),
       seed=st.integers(0, 1 << 32))
def test_both_walk_alike(library: ctypes.CDLL, program: list[UnwindRule], sp: int, bp: int, seed: int) -> None:
    """Whatever rules and stack, both find the same frames and the same end."""
    table = dict(zip(CODE, program, strict=True))
    random = np.random.default_rng(seed)
    # No zeroes where a signal frame could take one for rsp: no program has its stack there.
    zeroes = 0.0 if any(rule.kind is RuleKind.SIGNAL for rule in program) else 0.1
    words = np.where(random.random(WORDS) < 0.6, random.choice(CODE, WORDS),
                     np.where(random.random(WORDS) < zeroes, 0, BASE + 8 * random.integers(0, WORDS, WORDS)))
    memory = struct.pack(f"<{WORDS}Q", *words.tolist())
    start = (CODE[0], BASE + 8 * sp, BASE + 8 * (sp + bp), memory)
    expected = in_c(library, table, *start)
    # An address of no code has no rule to walk by.
    assume(all(address in CODE for address in expected[0]))
    assert in_python(table, *start) == expected


def test_a_frame_pointer_below_the_stack() -> None:
    """A frame pointer just below rsp is an ordinary number in that register: the chain ends there."""
    memory = struct.pack("<4Q", 0, 0, CODE[1], 0)
    table = {CODE[0]: FRAME_POINTER_RULE, CODE[1]: UnwindRule(RuleKind.END)}
    assert in_python(table, CODE[0], BASE + 16, BASE + 8, memory) == ([], StackEnd.COMPLETE)
