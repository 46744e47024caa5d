"""One unwind step in C does what its rule says, on a made-up stack and on the stack of a real process."""

import ctypes
import os
import re
import shutil
import struct
import subprocess
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.unwind_info import UnwindInfo
from symbolizer.unwind_rule import BpKind, RuleKind, UnwindRule

HEADER = Path(__file__).parents[3] / "bpf" / "unwind.h"

WRAPPER = """
    #include <stdint.h>
    #include <string.h>
    typedef uint64_t u64; typedef int64_t s64; typedef uint32_t u32; typedef uint8_t u8;
    static const u8 *memory; static u64 start, size; static int reads;
    static int read_user(void *to, u64 count, u64 address)
    {
        reads++;
        if (address < start || address - start > size || count > size - (address - start))
            return -14;
        memcpy(to, memory + (address - start), count);
        return 0;
    }
    #define READ_USER(to, count, address) read_user(to, count, address)
    #include "unwind.h"
    int step(u64 rule, struct unwind_regs *regs, const u8 *bytes, u64 at, u64 count)
    {
        memory = bytes; start = at; size = count; reads = 0;
        struct unwind_window window = {0};
        return unwind_step(rule, regs, &window);
    }
    int reads_of_last_step(void) { return reads; }
"""
LIVE_PROGRAM = """
    #include <alloca.h>
    #include <pthread.h>
    #include <signal.h>
    #include <stdlib.h>
    #define NOIPA __attribute__((noipa))
    volatile long sink;
    NOIPA void innermost(void *p) { sink += (long)p; }
    NOIPA void with_vla(int n) { char a[n]; sink += (long)a; innermost(a); sink++; }
    NOIPA int compare(const void *a, const void *b) { with_vla(*(const int *)a); return *(const int *)a - *(const int *)b; }
    NOIPA void sorts(void) { int n[] = {300, 200}; qsort(n, 2, sizeof(int), compare); sink++; }
    NOIPA void on_signal(int number) { sink += number; sorts(); sink++; }
    NOIPA void drap(int n) {
        char a[64] __attribute__((aligned(64))); char *p = alloca(n); sink += (long)a + (long)p; raise(SIGUSR1); sink++;
    }
    NOIPA void big(int n) { long x[500]; sink += (long)x; drap(n); sink += x[n]; }
    void *thread(void *p) { big(100); sink++; return p; }
    int main(void) {
        pthread_t t; stack_t s = {.ss_sp = malloc(65536), .ss_size = 65536};
        signal(SIGUSR1, on_signal);
        if (ALTERNATE) { struct sigaction a = {.sa_handler = on_signal, .sa_flags = SA_ONSTACK};
                         sigaltstack(&s, 0); sigaction(SIGUSR1, &a, 0); }
        if (THREAD) { pthread_create(&t, 0, thread, 0); pthread_join(t, 0); } else { thread(0); }
        return 0;
    }
"""
STACK = 0x7FFD_0000_1000
SIZE = 0x400


class Step(IntEnum):
    """`enum unwind_result`, in its order."""

    OK = 0
    END = 1
    UNREADABLE = 2
    UNSUPPORTED = 3
    STUCK = 4


class Registers(ctypes.Structure):
    """`struct unwind_regs`."""

    _fields_ = (("pc", ctypes.c_uint64), ("sp", ctypes.c_uint64), ("bp", ctypes.c_uint64))

    def values(self) -> tuple[int, int, int]:
        return self.pc, self.sp, self.bp


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    folder = tmp_path_factory.mktemp("unwind_h")
    (folder / "step.c").write_text(WRAPPER)
    flags = ["-O2", "-Wall", "-Wextra", "-Wno-parentheses", "-Werror", "-fPIC", "-shared", "-I"]
    subprocess.run(["gcc", *flags, HEADER.parent, "-o", folder / "step.so", folder / "step.c"], check=True)
    loaded = ctypes.CDLL(str(folder / "step.so"))
    loaded.step.argtypes = (ctypes.c_uint64, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_uint64, ctypes.c_uint64)
    return loaded


def step(
    library: ctypes.CDLL, rule: UnwindRule, words: dict[int, int], sp: int = STACK + 0x80, bp: int = 7
) -> tuple[Step, tuple[int, int, int], int]:
    """Return the result, the registers after it and the number of reads, on a stack of zeros and these words."""
    memory = bytearray(SIZE)
    for address, value in words.items():
        struct.pack_into("<Q", memory, address - STACK, value)
    registers = Registers(1, sp, bp)
    result = library.step(rule.encode(), ctypes.byref(registers), bytes(memory), STACK, SIZE)
    return Step(result), registers.values(), library.reads_of_last_step()


@pytest.mark.parametrize(("name", "kinds"), [("rule_kind", RuleKind), ("bp_kind", BpKind)])
def test_kinds_have_the_same_numbers_in_c_and_python(name: str, kinds: type[IntEnum]) -> None:
    """The enumerators in C are those in Python, name by name and number by number."""
    body = re.search(rf"enum {name} {{(.*?)}};", HEADER.read_text(), re.DOTALL)
    assert body
    prefix = name.split("_", maxsplit=1)[0].upper() + "_"
    in_c = {found[0]: int(found[1]) for found in re.findall(r"(\w+) = (\d+),", body[1])}
    assert in_c == {prefix + kind.name: kind.value for kind in kinds}


def test_results_have_the_same_order_in_c_and_here() -> None:
    """This file's names for the results are those of the header."""
    body = re.search(r"enum unwind_result {(.*?)};", HEADER.read_text(), re.DOTALL)
    assert body
    assert re.findall(r"STEP_(\w+),", body[1]) == [result.name for result in Step]


CFA = STACK + 0x100
ONE_STEP = {
    "rsp, rbp untouched": (UnwindRule(RuleKind.CFA_SP, 0x80), {CFA - 8: 0xABC}, {}, 7),
    "rsp, rbp below the return address": (
        UnwindRule(RuleKind.CFA_SP, 0x80, BpKind.AT_CFA, -16), {CFA - 8: 0xABC, CFA - 16: 0xB9}, {}, 0xB9
    ),
    "rsp, rbp further down": (
        UnwindRule(RuleKind.CFA_SP, 0x80, BpKind.AT_CFA, -48), {CFA - 8: 0xABC, CFA - 48: 0xB9}, {}, 0xB9
    ),
    "rbp": (
        UnwindRule(RuleKind.CFA_BP, 16, BpKind.AT_CFA, -16), {CFA - 8: 0xABC, CFA - 16: 0xB9}, {"bp": CFA - 16}, 0xB9
    ),
    "rbp, from below": (
        UnwindRule(RuleKind.CFA_BP, -64, BpKind.AT_BP, -8), {CFA - 8: 0xABC, CFA + 56: 0xB9}, {"bp": CFA + 64}, 0xB9
    ),
    "realigned": (
        UnwindRule(RuleKind.CFA_DEREF_BP, -8, BpKind.AT_BP, 0),
        {STACK + 0x98: CFA, STACK + 0xA0: 0xB9, CFA - 8: 0xABC}, {"bp": STACK + 0xA0}, 0xB9,
    ),
    "frame pointer, offsets ignored": (
        UnwindRule(RuleKind.FRAME_POINTER, 4, BpKind.AT_BP, 99),
        {CFA - 8: 0xABC, CFA - 16: 0xB9}, {"bp": CFA - 16}, 0xB9,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", ONE_STEP)
def test_one_step(library: ctypes.CDLL, name: str) -> None:
    """Each kind of rule finds the CFA, the return address and rbp."""
    rule, words, registers, bp = ONE_STEP[name]
    assert step(library, rule, words, **registers)[:2] == (Step.OK, (0xABC, CFA, bp))


def test_signal_frame(library: ctypes.CDLL) -> None:
    """A signal frame continues with the interrupted registers, also on a stack that lies lower."""
    sp = STACK + 0x80
    words = {sp + 120: 0xB9, sp + 160: STACK + 8, sp + 168: 0xABC}
    assert step(library, UnwindRule(RuleKind.SIGNAL), words) == (Step.OK, (0xABC, STACK + 8, 0xB9), 2)


FRAME_POINTER = UnwindRule(RuleKind.FRAME_POINTER)
REFUSED = {
    "the outermost frame": (UnwindRule(RuleKind.END), {}, {}, Step.END),
    "no rule": (UnwindRule(RuleKind.UNKNOWN), {}, {}, Step.UNSUPPORTED),
    "another rule": (UnwindRule(RuleKind.UNSUPPORTED), {}, {}, Step.UNSUPPORTED),
    "return address zero": (UnwindRule(RuleKind.CFA_SP, 0x80), {}, {}, Step.END),
    "frame pointers, return address zero": (FRAME_POINTER, {}, {"bp": CFA}, Step.END),
    "signal frame that interrupted zero": (UnwindRule(RuleKind.SIGNAL), {}, {}, Step.END),
    "signal frame past the stack": (UnwindRule(RuleKind.SIGNAL), {}, {"sp": STACK + SIZE - 168}, Step.UNREADABLE),
    "past the stack": (UnwindRule(RuleKind.CFA_SP, SIZE), {}, {}, Step.UNREADABLE),
    "realigned, rbp wild": (UnwindRule(RuleKind.CFA_DEREF_BP, -8), {}, {"bp": 0}, Step.UNREADABLE),
    "realigned, CFA wild": (UnwindRule(RuleKind.CFA_DEREF_BP, 0), {CFA: 3}, {"bp": CFA}, Step.STUCK),
    "rbp's place wild": (
        UnwindRule(RuleKind.CFA_SP, 0x80, BpKind.AT_CFA, -0x8000), {CFA - 8: 1}, {}, Step.UNREADABLE
    ),
    "CFA where it was": (UnwindRule(RuleKind.CFA_SP, 0), {}, {}, Step.STUCK),
    "CFA below": (UnwindRule(RuleKind.CFA_BP, 16), {}, {"bp": STACK}, Step.STUCK),
    "CFA around the end of the address space": (UnwindRule(RuleKind.CFA_BP, 16), {}, {"bp": (1 << 64) - 8}, Step.STUCK),
    "frame pointer below sp": (FRAME_POINTER, {}, {"bp": STACK + 0x7F}, Step.STUCK),
    "frame pointer zero": (FRAME_POINTER, {}, {"bp": 0}, Step.STUCK),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_refused_steps_say_why_and_change_nothing(library: ctypes.CDLL, name: str) -> None:
    """A step that cannot be made names its reason, and leaves the registers as they were."""
    rule, words, changed, reason = REFUSED[name]
    registers = {"sp": STACK + 0x80, "bp": 7} | changed
    result, after, _ = step(library, rule, words, **registers)
    assert (result, after) == (reason, (1, registers["sp"], registers["bp"]))


@given(st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), st.integers(0, (1 << 64) - 1), st.binary(max_size=512))
def test_steps_always_climb(library: ctypes.CDLL, rule: int, sp: int, bp: int, memory: bytes) -> None:
    """Whatever rule and registers are, a step that is not a signal frame's goes up the stack or is refused."""
    registers = Registers(1, sp, bp)
    result = Step(library.step(rule, ctypes.byref(registers), memory, sp, len(memory)))
    if result == Step.OK and rule & 0xF != RuleKind.SIGNAL:
        assert registers.sp > sp
    if result != Step.OK:
        assert registers.values() == (1, sp, bp)


@given(st.integers(-(1 << 31), (1 << 31) - 1), st.integers(-(1 << 23), (1 << 23) - 1))
def test_offsets_are_read_with_their_signs(library: ctypes.CDLL, cfa_offset: int, bp_offset: int) -> None:
    """The bits that Python writes are the offsets that C adds."""
    rule = UnwindRule(RuleKind.CFA_BP, cfa_offset, BpKind.AT_BP, bp_offset)
    bp = 1 << 40
    low = min(bp + bp_offset, bp + cfa_offset - 8)
    high = max(bp + bp_offset + 8, bp + cfa_offset)
    if high - low > 1 << 24:
        return
    memory = bytearray(high - low)
    struct.pack_into("<Q", memory, bp + cfa_offset - 8 - low, 0x1111)
    apart = abs(bp_offset - (cfa_offset - 8)) >= 8
    if apart:
        struct.pack_into("<Q", memory, bp + bp_offset - low, 0x2222)
    registers = Registers(1, 8, bp)
    assert library.step(rule.encode(), ctypes.byref(registers), bytes(memory), low, len(memory)) == Step.OK
    assert registers.sp == bp + cfa_offset
    assert not apart or registers.values() == (0x1111, bp + cfa_offset, 0x2222)


@dataclass(frozen=True, slots=True)
class Stopped:
    """A process as gdb saw it."""

    registers: tuple[int, int, int]
    frames: list[int]
    memory: dict[int, bytes]
    mappings: list[tuple[int, int, int, str]]


def stopped_in_innermost(folder: Path, flags: list[str]) -> Stopped:
    """Run the program under gdb up to `innermost`, and take a copy of it."""
    (folder / "live.c").write_text(LIVE_PROGRAM)
    subprocess.run(["gcc", "-pthread", *flags, "-o", folder / "live", folder / "live.c"], check=True)
    core = folder / "core"
    commands = [
        "set debug-file-directory /nonexistent",  # or gdb adds frames for inlined functions and tail calls
        "set debuginfod enabled off", "set confirm off", "set backtrace past-main on", "set backtrace past-entry on",
        "handle SIGUSR1 nostop noprint pass", "break *innermost", "run", 'printf "registers %lx %lx %lx\\n", $pc, $sp, $rbp',
        'frame apply all -q printf "frame %lx\\n", $pc', "info proc mappings", f"generate-core-file {core}", "kill",
    ]  # fmt: skip
    arguments = [word for command in commands for word in ("-ex", command)]
    output = subprocess.run(
        ["gdb", "-nx", "-batch", *arguments, folder / "live"], capture_output=True, text=True, timeout=120, check=False
    ).stdout
    registers = re.search(r"registers (\w+) (\w+) (\w+)", output)
    assert registers, output
    mappings = re.findall(r"^\s*0x(\w+)\s+0x(\w+)\s+0x\w+\s+0x(\w+)\s+\S+\s+(/\S+)", output, re.MULTILINE)
    with core.open("rb") as file:
        loads = [part for part in ELFFile(file).iter_segments("PT_LOAD") if part["p_filesz"]]
        memory = {part["p_vaddr"]: part.data() for part in loads}
    return Stopped(
        (int(registers[1], 16), int(registers[2], 16), int(registers[3], 16)),
        [int(pc, 16) for pc in re.findall(r"^frame (\w+)", output, re.MULTILINE)],
        memory,
        [(int(start, 16), int(end, 16), int(offset, 16), path) for start, end, offset, path in mappings],
    )


def elf_vaddr(path: str, offset: int) -> int:
    with open(path, "rb") as file:
        for part in ELFFile(file).iter_segments("PT_LOAD"):
            if part["p_offset"] <= offset < part["p_offset"] + part["p_filesz"]:
                return int(offset - part["p_offset"] + part["p_vaddr"])
    raise AssertionError(f"{path} has nothing at {offset:#x}")


def unwound(library: ctypes.CDLL, process: Stopped) -> tuple[list[int], Step]:
    """Unwind the copy with the rules of the objects, and return all addresses and why it ended."""
    registers = Registers(*process.registers)
    infos: dict[str, UnwindInfo] = {}
    frames, lookup = [registers.pc], registers.pc
    while len(frames) < 100:
        start, _, offset, path = next(m for m in process.mappings if m[0] <= lookup < m[1])
        info = infos.setdefault(path, UnwindInfo(Path(path).read_bytes()))
        rule = info.rule_at(elf_vaddr(path, lookup - start + offset))
        base = max(address for address in process.memory if address <= registers.sp)
        stack = process.memory[base]
        result = Step(library.step(rule.encode(), ctypes.byref(registers), stack, base, len(stack)))
        if result != Step.OK:
            return frames, result
        frames.append(registers.pc)
        lookup = registers.pc - (rule.kind != RuleKind.SIGNAL)
    raise AssertionError("no end")


@pytest.mark.skipif(shutil.which("gdb") is None and "CI" not in os.environ, reason="gdb is not installed")
@pytest.mark.parametrize("optimise", ["-O2 -fomit-frame-pointer", "-O1 -fno-omit-frame-pointer -static", "-O2 -s -rdynamic -no-pie"])
@pytest.mark.parametrize(("thread", "alternate"), [(0, 0), (1, 0), (0, 1)])
def test_a_real_stack(library: ctypes.CDLL, tmp_path: Path, optimise: str, thread: int, alternate: int) -> None:
    """A stack through libc, a signal handler, realigned and variable frames is gdb's stack, to its very end."""
    process = stopped_in_innermost(tmp_path, [*optimise.split(), f"-DTHREAD={thread}", f"-DALTERNATE={alternate}"])
    frames, result = unwound(library, process)
    assert len(frames) > 10
    assert frames == process.frames
    assert result == Step.END
