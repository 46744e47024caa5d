"""Unwind rules are what readelf says, in every way an object can carry them, and broken objects do no harm."""

import mmap
import re
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from symbolizer.unwind_info import UnwindInfo
from symbolizer.unwind_rule import BpKind, RuleKind, UnwindRule

LIBC = Path("/usr/lib/x86_64-linux-gnu/libc.so.6")
ROWS_OF_LIBC = 20_000

C_SOURCE = """
    #include <stdlib.h>
    #include <string.h>
    extern __attribute__((noipa)) void use(void *, ...);
    int plain(int n) { return n * 2; }
    long many(long a, long b, long c) {
        long x[40]; use(x, a, b, c); long y = x[0] * a + x[1] * b; use(y ? x : 0); return y + x[c];
    }
    void shrink_wrapped(char *p) { if (p) { char local[300]; use(local, p); use(p); } }
    void with_alloca(int n) { char *p = alloca(n); use(p); use(p, n); }
    void with_vla(int n) { long a[n]; use(a); use(a, a[n - 1]); }
    void realigned(long n) { char a[64] __attribute__((aligned(64))); use(a, n); }
    void drap(int n) { char a[64] __attribute__((aligned(64))); char *p = alloca(n); use(a, p); use(p, a); }
    void drap_too(long a, long b, long c, long d, long e, long f, long g) {
        long x[8] __attribute__((aligned(128))); char y[a]; use(x, y, b, c, d, e, f, g); use(y, g);
    }
    __attribute__((noreturn)) void last(void) { use(0); abort(); }
    void use(void *p, ...) { if (!p) exit(1); }
    int main(int argc, char **argv) { many(argc, 2, 3); with_vla(argc); drap(argc); return plain(argc); }
"""
CXX_SOURCE = """
    #include <map>
    #include <stdexcept>
    #include <string>
    struct Guard { std::string name; ~Guard() { if (name.empty()) throw std::runtime_error("x"); } Guard(): name("g") {} };
    int may_throw(const std::string &key) {
        Guard guard; std::map<std::string, int> table{{key, 1}, {"b", 2}};
        try { return table.at("c" + key); } catch (const std::out_of_range &) { table[key] = 3; throw; }
    }
    int main(int, char **argv) { try { return may_throw(argv[0]); } catch (...) { return 1; } }
"""
# One odd row for each instruction that compilers seldom write.
ASSEMBLY = """
    .text
    .globl _start
    .macro function name, cfi:vararg
    \\name: .cfi_startproc
    nop
    \\cfi
    nop
    .cfi_endproc
    .endm
    _start:
    function f_undefined, .cfi_undefined rip
    function f_cfa_rbx, .cfi_def_cfa rbx, 16
    function f_return_address_moved, .cfi_offset rip, -32
    function f_return_address_in_rdx, .cfi_register rip, rdx
    function f_bp_in_rax, .cfi_register rbp, rax
    function f_bp_undefined, .cfi_undefined rbp
    function f_bp_val_offset, .cfi_val_offset rbp, -16
    function f_sp_saved, .cfi_offset rsp, -24
    function f_bp_far, .cfi_offset rbp, -0x7ffff8
    function f_bp_too_far, .cfi_offset rbp, -0x800008
    function f_cfa_negative, .cfi_def_cfa rbp, -8
    function f_same_value, .cfi_same_value rbp
    function f_val_expression, .cfi_escape 0x16, 6, 2, 0x76, 0
    function f_deref, .cfi_escape 0x0f, 3, 0x76, 0x78, 6
    function f_other_expression, .cfi_escape 0x0f, 4, 0x77, 8, 0x23, 8
    function f_expression, .cfi_escape 0x10, 6, 2, 0x76, 0x70
    function f_negative_extended, .cfi_escape 0x2f, 6, 2
    function f_args_size, .cfi_escape 0x2e, 0x90, 0x01
    function f_offset_extended_sf, .cfi_escape 0x11, 6, 2
    function f_def_cfa_sf, .cfi_escape 0x12, 6, 0x7c
    function f_nonsense, .cfi_escape 0x3f
    function f_truncated_block, .cfi_escape 0x0f, 0x7f
    function f_restore_nothing, .cfi_escape 0x0b
    .macro signal_frame cfi:vararg
    .cfi_signal_frame
    \\cfi
    .endm
    function f_signal, signal_frame .cfi_escape 0x0f, 4, 0x77, 0xa0, 0x01, 6
    function f_signal_frame_only, signal_frame .cfi_def_cfa_offset 16
"""
ODD_ROWS = {
    "f_undefined": UnwindRule(RuleKind.END),
    "f_cfa_rbx": UnwindRule(RuleKind.UNSUPPORTED),
    "f_return_address_moved": UnwindRule(RuleKind.UNSUPPORTED),
    "f_return_address_in_rdx": UnwindRule(RuleKind.UNSUPPORTED),
    "f_bp_in_rax": UnwindRule(RuleKind.UNSUPPORTED),
    "f_bp_undefined": UnwindRule(RuleKind.UNSUPPORTED),
    "f_bp_val_offset": UnwindRule(RuleKind.UNSUPPORTED),
    "f_sp_saved": UnwindRule(RuleKind.UNSUPPORTED),
    "f_bp_far": UnwindRule(RuleKind.CFA_SP, 8, BpKind.AT_CFA, -0x7FFFF8),
    "f_bp_too_far": UnwindRule(RuleKind.UNSUPPORTED),
    "f_cfa_negative": UnwindRule(RuleKind.CFA_BP, -8),
    "f_same_value": UnwindRule(RuleKind.CFA_SP, 8),
    "f_val_expression": UnwindRule(RuleKind.UNSUPPORTED),
    "f_deref": UnwindRule(RuleKind.CFA_DEREF_BP, -8),
    "f_other_expression": UnwindRule(RuleKind.UNSUPPORTED),
    "f_expression": UnwindRule(RuleKind.CFA_SP, 8, BpKind.AT_BP, -16),
    "f_negative_extended": UnwindRule(RuleKind.CFA_SP, 8, BpKind.AT_CFA, 16),
    "f_args_size": UnwindRule(RuleKind.CFA_SP, 8),
    "f_offset_extended_sf": UnwindRule(RuleKind.CFA_SP, 8, BpKind.AT_CFA, -16),
    "f_def_cfa_sf": UnwindRule(RuleKind.CFA_BP, 32),
    "f_nonsense": UnwindRule(RuleKind.UNSUPPORTED),
    "f_truncated_block": UnwindRule(RuleKind.UNSUPPORTED),
    "f_restore_nothing": UnwindRule(RuleKind.UNSUPPORTED),
    "f_signal": UnwindRule(RuleKind.SIGNAL),
    "f_signal_frame_only": UnwindRule(RuleKind.CFA_SP, 16),
}

BUILDS = {
    "c": ("c", "gcc -O2 -fomit-frame-pointer"),
    "c with frame pointers": ("c", "gcc -O1 -fno-omit-frame-pointer"),
    "c at a fixed address": ("c", "gcc -O2 -no-pie"),
    "c static": ("c", "gcc -O2 -static"),
    "c stripped": ("c", "gcc -O2 -s"),
    "c without header table": ("c", "gcc -O2 -Wl,--no-eh-frame-hdr"),
    "c with absolute pointers": ("c", "gcc -O2 -no-pie -mcmodel=large -fno-pic"),
    "c with debug_frame only": ("c", "gcc -O2 -g -shared -fPIC -nostdlib -fno-asynchronous-unwind-tables"),
    "c with compressed debug_frame": ("c", "gcc -O2 -g -gz=zlib -shared -fPIC -nostdlib -fno-asynchronous-unwind-tables"),
    "c with 64-bit debug_frame": (
        "c", "gcc -O2 -g -gdwarf64 -gdwarf-4 -shared -fPIC -nostdlib -fno-asynchronous-unwind-tables"
    ),
    "c++": ("cc", "g++ -O2 -fomit-frame-pointer"),
    "c++ unoptimised and stripped": ("cc", "g++ -O0 -s"),
}


@dataclass(frozen=True, slots=True)
class Row:
    """A line of readelf's interpreted table."""

    start: int
    end: int
    function: tuple[int, int]
    columns: dict[str, str]


def build(folder: Path, language: str, command: str) -> Path:
    source, binary = folder / f"program.{language}", folder / "program"
    source.write_text({"c": C_SOURCE, "cc": CXX_SOURCE, "S": ASSEMBLY}[language])
    subprocess.run([*command.split(), "-w", "-o", binary, source], check=True)
    return binary


def readelf_rows(binary: Path, limit: int = 1 << 30) -> Iterator[Row]:
    command = ["readelf", "--debug-dump=frames-interp", str(binary)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        names: list[str] = []
        common: dict[str, dict[str, str]] = {}  # the rows of CIEs: an FDE that adds nothing is printed without rows
        function, cie = (0, 0), ""
        block: dict[int, dict[str, str]] = {}  # by address: of equal addresses the last row counts
        for line in process.stdout:
            words = re.sub(r" \(\w+\)", "", line).split()
            if found := re.search(r" FDE cie=(\w+) pc=(\w+)\.\.(\w+)", line):
                function, cie = (int(found[2], 16), int(found[3], 16)), found[1]
                block = {function[0]: common[cie]} if cie in common else {}
            elif words[3:4] == ["CIE"]:
                function, cie, block = (0, 0), words[0], {}
            elif words[:1] == ["LOC"]:
                names = words[1:]
            elif words and re.fullmatch("[0-9a-f]{16}", words[0]):
                block[int(words[0], 16)] = dict(zip(names, words[1:], strict=True))
            elif not words and block and function == (0, 0):
                common[cie] = block[0]
            elif not words and block:
                starts = sorted(block)
                for start, end in zip(starts, [*starts[1:], function[1]], strict=True):
                    if start < end <= function[1]:
                        yield Row(start, end, function, block[start])
                        limit -= 1
                block = {}
            if limit <= 0:
                process.kill()
                return


def agrees(rule: UnwindRule, columns: dict[str, str]) -> bool:
    """Say whether a rule is what readelf's row says, as far as the row says it: expressions are all called `exp`."""
    cfa, return_address, bp = columns["CFA"], columns["ra"], columns.get("rbp", "u")
    if return_address == "u":
        return rule.kind == RuleKind.END
    if cfa == "exp":
        kinds = (RuleKind.CFA_DEREF_BP, RuleKind.UNSUPPORTED, RuleKind.SIGNAL)
        if rule.kind not in kinds or rule.kind != kinds[0]:
            return rule.kind in kinds
    elif return_address != "c-8" or cfa[:3] not in ("rsp", "rbp"):
        return rule.kind == RuleKind.UNSUPPORTED
    elif (rule.kind, rule.cfa_offset) != (RuleKind.CFA_SP if cfa[:3] == "rsp" else RuleKind.CFA_BP, int(cfa[3:])):
        return False
    if bp in ("u", "s"):
        return rule.bp_kind == BpKind.UNCHANGED
    if bp == "exp":
        return rule.bp_kind == BpKind.AT_BP
    return (rule.bp_kind, rule.bp_offset) == (BpKind.AT_CFA, int(bp[1:]))


@pytest.fixture(scope="module")
def realigned(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build(tmp_path_factory.mktemp("realigned"), "c", "gcc -O2 -fomit-frame-pointer").read_bytes()


@pytest.mark.parametrize("name", BUILDS)
def test_every_row_is_what_readelf_says(name: str, tmp_path: Path) -> None:
    """Every row of the object's table is found, at its first and at its last address."""
    binary = build(tmp_path, *BUILDS[name])
    info = UnwindInfo(binary.read_bytes())
    rows = list(readelf_rows(binary))
    assert len(rows) > 20
    for row in rows:
        for address in (row.start, row.end - 1):
            assert agrees(info.rule_at(address), row.columns), (hex(address), row.columns, info.rule_at(address))
            assert info.function_bounds(address) == row.function


@pytest.mark.skipif(not LIBC.exists(), reason="no libc at Debian's place")
def test_libc_is_what_readelf_says() -> None:
    """A large real library agrees with readelf, from a mapping of the file."""
    with LIBC.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        info = UnwindInfo(data)
        wrong = [row for row in readelf_rows(LIBC, ROWS_OF_LIBC) if not agrees(info.rule_at(row.start), row.columns)]
    assert not wrong


def test_realigned_functions_find_their_caller_through_rbp(realigned: bytes) -> None:
    """GCC's functions with a realigned stack of unknown size keep the CFA in memory, at rbp - something."""
    info = UnwindInfo(realigned)
    rules = {info.rule_at(address) for address in range(*text_range(realigned))}
    deref = [rule for rule in rules if rule.kind == RuleKind.CFA_DEREF_BP]
    assert deref
    assert all(rule.bp_kind == BpKind.AT_BP and rule.bp_offset == 0 and rule.cfa_offset < 0 for rule in deref)


def test_start_is_the_outermost_frame(realigned: bytes) -> None:
    """The C library's _start says that nobody called it."""
    entry = struct.unpack_from("<Q", realigned, 24)[0]
    assert UnwindInfo(realigned).rule_at(entry + 8).kind == RuleKind.END


def test_uncovered_addresses_are_unknown(realigned: bytes) -> None:
    """Addresses before, between and behind all functions have no rule and no bounds."""
    info = UnwindInfo(realigned)
    for address in (0, 1, text_range(realigned)[1] + 0x10000, 1 << 63, (1 << 64) - 1, -1, 1 << 70):
        assert info.rule_at(address) == UnwindRule(RuleKind.UNKNOWN)
        assert info.function_bounds(address) is None


def test_seldom_instructions(tmp_path: Path) -> None:
    """Each instruction that compilers seldom write has its effect, and a broken one breaks only its own function."""
    binary = build(tmp_path, "S", "gcc -nostdlib -static")
    symbols = subprocess.run(["nm", binary], check=True, capture_output=True, text=True).stdout
    addresses = {name: int(value, 16) for value, _, name in map(str.split, symbols.splitlines())}
    info = UnwindInfo(binary.read_bytes())
    assert {name: info.rule_at(addresses[name] + 1) for name in ODD_ROWS} == ODD_ROWS


def test_a_long_program_is_refused(realigned: bytes) -> None:
    """The limit of work holds: a program of more bytes than that is not run."""
    entry = struct.unpack_from("<Q", realigned, 24)[0]
    kinds = {UnwindInfo(realigned, limit=2).rule_at(address).kind for address in (entry, entry + 8)}
    assert kinds <= {RuleKind.UNSUPPORTED, RuleKind.UNKNOWN}


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_broken_objects_raise_nothing(realigned: bytes, data: st.DataObject) -> None:
    """Bits flipped where it hurts, and a file cut anywhere, give rules or none, in bounded time."""
    broken = bytearray(realigned)
    targets = st.one_of(*(st.integers(start, end - 1) for start, end in sensitive_ranges(realigned)))
    for at in data.draw(st.lists(targets, max_size=12)):
        broken[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 0x7F, 0x80, 0xFF])))
    cut = data.draw(st.one_of(st.just(len(broken)), st.integers(0, len(broken))))
    first, last = text_range(realigned)
    began = time.perf_counter()
    info = UnwindInfo(bytes(broken[:cut]))
    for address in range(first, last, 7):
        assert info.rule_at(address).kind in RuleKind
        info.function_bounds(address)
    assert time.perf_counter() - began < 5


@pytest.fixture(scope="module", params=["c without header table", "c with debug_frame only", "c with compressed debug_frame"])
def indexed(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    return build(tmp_path_factory.mktemp("indexed"), *BUILDS[request.param]).read_bytes()


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_broken_objects_that_need_an_index_raise_nothing(indexed: bytes, data: st.DataObject) -> None:
    """The same for objects that are read through their section headers, broken there and in their call frames."""
    headers = struct.unpack_from("<Q", indexed, 40)[0]
    frames = max(indexed.find(b"\xff\xff\xff\xff\1"), 64)  # a CIE of .debug_frame
    broken = bytearray(indexed)
    targets = st.one_of(st.integers(headers, len(broken) - 1), st.integers(frames, len(broken) - 1), st.integers(32, 64))
    for at in data.draw(st.lists(targets, max_size=12)):
        broken[at] = data.draw(st.one_of(st.integers(0, 255), st.sampled_from([0, 0x7F, 0x80, 0xFF])))
    info = UnwindInfo(bytes(broken))
    for address in range(*text_range(indexed), 11):
        assert info.rule_at(address).kind in RuleKind


def test_an_index_at_the_end_of_the_address_space_raises_nothing(tmp_path: Path) -> None:
    """A section whose address leaves no room for its own bytes is read all the same."""
    elf = bytearray(build(tmp_path, *BUILDS["c without header table"]).read_bytes())
    table, size, count = *struct.unpack_from("<Q", elf, 40), *struct.unpack_from("<HH", elf, 58)
    for at in range(table, table + size * count, size):
        struct.pack_into("<Q", elf, at + 16, (1 << 64) - 1)
    assert UnwindInfo(bytes(elf)).rule_at(0x1000).kind in RuleKind


@given(st.binary(max_size=400))
def test_noise_raises_nothing(noise: bytes) -> None:
    """What is no ELF file, or only its first bytes, has no rules."""
    for data in (noise, b"\x7fELF\x02\x01" + noise, b"\x7fELF\x02\x01" + bytes(12) + b"\x3e\x00" + noise):
        assert UnwindInfo(data).rule_at(0x1000).kind in RuleKind


@pytest.mark.skipif(not LIBC.exists(), reason="no libc at Debian's place")
def test_nothing_is_decoded_ahead() -> None:
    """Opening a library and asking for one rule costs next to nothing, so no table can have been decoded."""
    with LIBC.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as data:
        entry = struct.unpack_from("<Q", data, 24)[0]
        costs = []
        for _ in range(20):
            began = time.perf_counter()
            UnwindInfo(data).rule_at(entry)
            costs.append(time.perf_counter() - began)
    assert min(costs) < 0.002


def text_range(elf: bytes) -> tuple[int, int]:
    """Return the addresses of the executable segment."""
    for kind, flags, _, vaddr, _, size, _, _ in program_headers(elf):
        if kind == 1 and flags & 1:
            return vaddr, vaddr + size
    raise AssertionError("no executable segment")


def sensitive_ranges(elf: bytes) -> list[tuple[int, int]]:
    """Return the file positions of the headers and of the call frame information."""
    frame_header = next(header for header in program_headers(elf) if header[0] == 0x6474E550)
    return [(0, 64), (64, 64 + 56 * len(program_headers(elf))), (frame_header[2], frame_header[2] + 0x400)]


def program_headers(elf: bytes) -> list[tuple[int, ...]]:
    return [struct.unpack_from("<IIQQQQQQ", elf, 64 + 56 * i) for i in range(struct.unpack_from("<H", elf, 56)[0])]


def test_an_object_for_another_processor_has_no_rules(realigned: bytes) -> None:
    """An object for another processor has no rules, however well-formed it is."""
    arm = bytearray(realigned)
    arm[18:20] = struct.pack("<H", 183)
    assert UnwindInfo(bytes(arm)).rule_at(struct.unpack_from("<Q", realigned, 24)[0]).kind == RuleKind.UNKNOWN
