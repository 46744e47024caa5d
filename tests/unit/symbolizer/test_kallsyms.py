import os
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from symbolizer.frame import Frame, Why
from symbolizer.kallsyms import LONGEST_UNKNOWN, Kallsyms, KernelSymbol, KernelTable

BASE = 0xFFFFFFFF81000000
MODULE = 0xFFFFFFFFC0400000
BPF = 0xFFFFFFFFC0800000


def line(address: int, kind: str, name: str, module: str = "") -> bytes:
    return f"{address:016x} {kind} {name}{f'	[{module}]' if module else ''}\n".encode()


IMAGE = b"".join(
    [
        line(0, "A", "fixed_percpu_data"),
        line(BASE, "T", "_stext"),
        line(BASE, "T", "_text"),
        line(BASE, "T", "startup_64"),
        line(BASE + 0x100, "t", "__pfx_vfs_read"),
        line(BASE + 0x110, "T", "vfs_read"),
        line(BASE + 0x200, "t", "copy.isra.0"),
        line(BASE + 0x300, "W", "arch_weak"),
        line(BASE + 0x1000, "T", "_etext"),
        line(BASE + 0x2000, "D", "jiffies"),
        line(BASE + 0x8000, "T", "_sinittext"),
        line(BASE + 0x8000, "t", "early_setup"),
        line(BASE + 0x9000, "T", "_einittext"),
        line(BASE + 0xA000, "B", "_end"),
    ]
)
NFT = b"".join(
    [
        line(MODULE + 0x10, "t", "nft_first", "nf_tables"),
        line(MODULE + 0x80, "T", "nft_last", "nf_tables"),
        line(MODULE + 0x5000, "d", "nft_data", "nf_tables"),
    ]
)
MODULES = f"nf_tables 12288 1 nft_x,y, Live 0x{MODULE:016x} (OE)\nlost 4096 0 - Live 0x0000000000000000\nbad line\n".encode()


class Clock:
    """Shows what it is set to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class FakeKernel:
    """A /proc of two files."""

    def __init__(self, folder: Path, symbols: bytes = IMAGE, modules: bytes | None = None) -> None:
        self.proc = folder
        self.clock = Clock()
        self.show(symbols, modules)

    def show(self, symbols: bytes, modules: bytes | None = None) -> None:
        (self.proc / "kallsyms").write_bytes(symbols)
        if modules is not None:
            (self.proc / "modules").write_bytes(modules)

    def names(self) -> Kallsyms:
        return Kallsyms.read(self.proc, self.clock)


def name_of(table: KernelTable | Kallsyms, address: int) -> str | None:
    found = table.find(address)
    return found.name if found is not None else None


def test_a_function_covers_every_byte_up_to_the_next_one() -> None:
    table = KernelTable.parse(IMAGE)
    assert table.find(BASE + 0x110) == KernelSymbol("vfs_read", 0, None)
    assert table.find(BASE + 0x1FF) == KernelSymbol("vfs_read", 0xEF, None)
    assert name_of(table, BASE + 0x200) == "copy.isra.0"
    assert name_of(table, BASE + 0x10F) == "__pfx_vfs_read"
    assert name_of(table, BASE + 0x350) == "arch_weak"
    assert name_of(table, BASE - 1) is None


def test_nothing_is_named_behind_the_end_of_the_kernels_code() -> None:
    table = KernelTable.parse(IMAGE)
    assert name_of(table, BASE + 0xFFF) == "arch_weak"
    assert [name_of(table, BASE + offset) for offset in (0x1000, 0x1FFF, 0x2000, 0x7FFF, 0x9000, 0xA001)] == [None] * 6
    assert name_of(table, BASE + 0x8FFF) == "early_setup"


def test_a_megabyte_of_padding_is_not_named_by_the_label_before_it() -> None:
    table = KernelTable.parse(line(BASE, "T", "_stext") + line(BASE, "T", "f") + line(BASE + 0x100000, "T", "_etext"))
    assert name_of(table, BASE + 0x1000) == "f"
    assert name_of(table, BASE + 0xFFFFF) is None


def test_data_names_no_code() -> None:
    assert name_of(KernelTable.parse(IMAGE), BASE + 0x2000) is None
    assert len(KernelTable.parse(line(BASE, "D", "data") + line(BASE + 8, "A", "absolute") + line(BASE + 9, "U", "u"))) == 0


@pytest.mark.parametrize(
    ("aliases", "shown"),
    [
        ((("t", "local"), ("T", "exported_name")), "exported_name"),
        ((("T", "__x64_sys_x"), ("T", "sys_read")), "sys_read"),
        ((("T", ".Llabel"), ("T", "real")), "real"),
        ((("W", "longer_name"), ("T", "short")), "short"),
        ((("T", "b"), ("T", "a")), "a"),
        ((("t", "f"), ("T", "_exported")), "_exported"),
    ],
)
def test_of_several_names_the_one_for_people_is_shown(aliases: tuple[tuple[str, str], ...], shown: str) -> None:
    for order in (aliases, aliases[::-1]):
        table = KernelTable.parse(b"".join(line(BASE, kind, name) for kind, name in order))
        assert name_of(table, BASE + 4) == shown


def test_a_modules_last_function_ends_where_the_module_or_its_data_does() -> None:
    table = KernelTable.parse(IMAGE + NFT, MODULES)
    assert table.find(MODULE + 0x90) == KernelSymbol("nft_last", 0x10, "nf_tables")
    assert name_of(table, MODULE + 0x2FFF) == "nft_last"
    assert name_of(table, MODULE + 0x3000) is None
    assert name_of(table, MODULE + 0x5000) is None
    unread = KernelTable.parse(IMAGE + NFT)
    assert name_of(unread, MODULE + 0x4FFF) == "nft_last"
    assert name_of(unread, MODULE + 0x5000) is None


def test_a_modules_size_that_counts_data_elsewhere_does_not_cut_its_neighbours_functions() -> None:
    symbols = line(MODULE, "t", "a", "m1") + line(MODULE + 0x1000, "t", "b", "m2")
    table = KernelTable.parse(symbols, b"m1 8192 0 - Live 0x%x\nm2 20480 0 - Live 0x%x\n" % (MODULE, MODULE + 0x1000))
    assert table.find(MODULE + 0x3000) == KernelSymbol("b", 0x2000, "m2")
    assert name_of(table, MODULE + 0x1000 + 20480) is None


def test_a_modules_function_does_not_reach_into_a_module_without_symbols_behind_it() -> None:
    table = KernelTable.parse(line(MODULE, "t", "a", "m1"), b"m2 4096 0 - Live 0x%x\n" % (MODULE + 0x1000))
    assert name_of(table, MODULE + 0xFFF) == "a"
    assert name_of(table, MODULE + 0x1000) is None


def test_code_of_unknown_length_names_no_address_far_behind_it() -> None:
    table = KernelTable.parse(IMAGE + line(BPF, "t", "bpf_prog_1b2c_count", "bpf"))
    assert table.find(BPF + 5) == KernelSymbol("bpf_prog_1b2c_count", 5, "bpf")
    assert name_of(table, BPF + LONGEST_UNKNOWN - 1) == "bpf_prog_1b2c_count"
    assert name_of(table, BPF + LONGEST_UNKNOWN) is None
    pages = line(BPF, "t", "ftrace_trampoline", "__builtin__ftrace") + line(BPF + 0x10000, "t", "bpf_trampoline_9", "bpf")
    for start in (BPF, BPF + 0x10000):
        assert name_of(KernelTable.parse(pages), start + 0xFFF) is not None
        assert name_of(KernelTable.parse(pages), start + 0x1000) is None


def test_bad_lines_are_skipped_and_a_last_one_without_newline_too() -> None:
    bad = b"\n\nxyz T f\nffffffff81000000\nffffffff81000000 T\nffffffff81000000 T \nffffffff81000000  T f\n12345678901234567 T long\n"
    table = KernelTable.parse(bad + line(BASE, "T", "good") + b"ffffffff81000004 T half")
    assert len(table) == 1
    assert table.find(BASE + 8) == KernelSymbol("good", 8, None)


def test_a_name_cannot_disturb_the_terminal_and_rusts_names_are_readable() -> None:
    rust = "_RNvNtCs5ab_4core3fmt5write"
    table = KernelTable.parse(line(BASE, "T", "a\x1b[31m") + line(BASE + 16, "t", "f", "m\x9b") + line(BASE + 32, "T", rust))
    assert name_of(table, BASE) == r"a\x1b[31m"
    assert table.find(BASE + 16) == KernelSymbol("f", 0, r"m\x9b")
    assert name_of(table, BASE + 32) == "core::fmt::write"


@settings(deadline=500)
@given(
    st.binary(max_size=300) | st.text("0123456789abcftTdw \n\t[]", max_size=300).map(str.encode),
    st.binary(max_size=200) | st.text("m 0x19af-\n", max_size=200).map(str.encode),
    st.integers(-2, 2**64 + 2),
)
def test_garbage_never_raises(symbols: bytes, modules: bytes, address: int) -> None:
    for data in (symbols, IMAGE + symbols + NFT):
        table = KernelTable.parse(data, modules)
        for probe in (address, 0, 2**64 - 1, BASE + 0x150, *table.start[:5].tolist()):
            found = table.find(probe)
            assert found is None or (found.name.isprintable() and found.offset >= 0)
            table.region(probe)


def test_a_distributions_kernel_takes_no_noticeable_time() -> None:
    text = b"".join(line(BASE + n * 32, "tTdw"[n % 4], f"a_function_{n}", f"m{n // 999}" if n > 120_000 else "") for n in range(250_000))
    began = time.process_time()
    table = KernelTable.parse(text)
    assert time.process_time() - began < 1  # 0.08 s here; other tests may share the processor
    assert len(table) == 187_500


@pytest.mark.parametrize("symbols", [line(0, "T", "_stext") + line(0, "t", "f") + line(0, "t", "g", "m"), b"0 T f\n"])
def test_hidden_addresses_are_said_and_never_used(tmp_path: Path, symbols: bytes) -> None:
    names = FakeKernel(tmp_path, symbols).names()
    assert names.hidden
    assert names.why_not is not None
    assert "sysctl kernel.kptr_restrict=1" in names.why_not
    assert names.find(0) is None
    assert names.find(BASE) is None
    assert names.frame(BASE) == Frame(BASE, module="[kernel]", why=Why.NO_SYMBOLS)


def test_a_kernel_without_names_says_why(tmp_path: Path) -> None:
    missing = Kallsyms.read(tmp_path)
    assert missing.why_not == (
        f"{tmp_path}/kallsyms could not be read (No such file or directory): run leaktrace as root, with /proc mounted."
    )
    assert missing.frame(BASE).why is Why.NO_SYMBOLS
    empty = FakeKernel(tmp_path, b"").names()
    assert not empty.hidden
    assert empty.why_not == f"{tmp_path}/kallsyms lists no functions: the kernel was built without CONFIG_KALLSYMS."


def test_a_frame_names_the_kernel_the_module_or_the_reason(tmp_path: Path) -> None:
    names = FakeKernel(tmp_path, IMAGE + NFT + line(BPF, "t", "bpf_prog_1_f", "bpf"), MODULES).names()
    assert names.why_not is None
    assert names.frame(BASE + 0x114) == Frame(BASE + 0x114, "vfs_read", 4, "[kernel]")
    assert names.frame(MODULE + 0x84) == Frame(MODULE + 0x84, "nft_last", 4, "[nf_tables]")
    assert names.frame(BPF + 1) == Frame(BPF + 1, "bpf_prog_1_f", 1, "[bpf]")
    assert names.frame(MODULE + 0x4) == Frame(MODULE + 0x4, module="[nf_tables]", why=Why.NOT_COVERED)
    assert names.frame(BASE + 0x3000) == Frame(BASE + 0x3000, why=Why.UNMAPPED)
    assert names.frame(0x401000) == Frame(0x401000, why=Why.UNMAPPED)


def test_a_return_address_behind_a_functions_last_call_belongs_to_that_function(tmp_path: Path) -> None:
    names = FakeKernel(tmp_path).names()
    assert names.frame(BASE + 0x200, is_return_address=True) == Frame(BASE + 0x200, "vfs_read", 0xF0, "[kernel]")
    assert names.frame(BASE + 0x1000, is_return_address=True).function == "arch_weak"


def test_code_that_came_later_is_found_in_a_new_reading_at_most_once_a_second(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    names = kernel.names()
    kernel.show(IMAGE + NFT, MODULES)
    kernel.clock.now += 0.9
    assert names.find(MODULE + 0x90) is None
    kernel.clock.now += 0.2
    assert name_of(names, MODULE + 0x90) == "nft_last"
    table = names.table
    names.find(BPF)
    assert names.table is table
    kernel.clock.now += 1.1
    names.find(BPF)
    assert names.table is not table


def test_an_address_far_behind_a_programs_start_is_looked_for_among_newer_programs(tmp_path: Path) -> None:
    old, new = line(BPF, "t", "old", "bpf"), line(BPF + 0x3000, "t", "new", "bpf")
    kernel = FakeKernel(tmp_path, IMAGE + old)
    names = kernel.names()
    kernel.show(IMAGE + old + new)
    kernel.clock.now += 2
    assert name_of(names, BPF + 0x10) == "old"
    assert names.find(BPF + 0x3010) == KernelSymbol("new", 0x10, "bpf")


@pytest.mark.parametrize("address", [0, 0x401000, BASE + 0xFFFFF, BASE + 0xFFFF_FFFF_FFFF, -1])
def test_an_address_that_cannot_be_new_kernel_code_is_not_looked_for_again(tmp_path: Path, address: int) -> None:
    kernel = FakeKernel(tmp_path, line(BASE, "T", "_stext") + line(BASE, "T", "f") + line(BASE + 0x100000, "T", "_etext"))
    names = kernel.names()
    table = names.table
    kernel.clock.now += 10
    assert names.find(address) is None
    assert names.table is table


def test_names_of_modules_and_programs_outlive_them(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path, IMAGE + NFT + line(BPF, "t", "bpf_prog_1_old", "bpf"), MODULES)
    names = kernel.names()
    for other in range(3):
        kernel.show(IMAGE + line(BPF + 0x100000, "t", f"bpf_prog_{other}", "bpf"), b"")
        kernel.clock.now += 2
        names.find(BPF + 0x200000)
        assert names.find(MODULE + 0x90) == KernelSymbol("nft_last", 0x10, "nf_tables")
        assert name_of(names, MODULE + 0x3000) is None
        assert name_of(names, BPF + 8) == "bpf_prog_1_old"
        assert name_of(names, BPF + 0x100000) == f"bpf_prog_{other}"


def test_a_program_that_is_gone_is_told_from_the_one_before_it_and_from_the_one_that_took_its_room(tmp_path: Path) -> None:
    before, later = line(BPF, "t", "before", "bpf"), line(BPF + 0x900, "t", "later", "bpf")
    kernel = FakeKernel(tmp_path, IMAGE + before + line(BPF + 0x400, "t", "gone", "bpf"))
    names = kernel.names()

    def read_again(symbols: bytes) -> None:
        kernel.show(IMAGE + symbols)
        kernel.clock.now += 2
        names.find(BPF + 0x900000)

    read_again(before)
    assert names.find(BPF + 0x450) == KernelSymbol("gone", 0x50, "bpf")
    assert name_of(names, BPF + 0x350) == "before"
    read_again(before + later)
    assert name_of(names, BPF + 0x450) == "gone"
    read_again(before + line(BPF + 0x380, "t", "new", "bpf") + later)
    assert names.find(BPF + 0x450) == KernelSymbol("new", 0xD0, "bpf")
    assert name_of(names, BPF + 0x950) == "later"


def test_what_was_known_stays_known_when_it_can_no_longer_be_read(tmp_path: Path) -> None:
    kernel = FakeKernel(tmp_path)
    names = kernel.names()
    (tmp_path / "kallsyms").unlink()
    kernel.clock.now += 2
    assert names.find(BPF) is None
    assert names.why_not is not None
    assert name_of(names, BASE + 0x114) == "vfs_read"


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel shows its addresses to root only")
def test_the_running_kernels_own_names_are_found() -> None:
    names = Kallsyms.read()
    assert (names.hidden, names.why_not) == (False, None)
    assert len(names.table) > 10_000
    assert np.all(names.table.start[:-1] <= names.table.start[1:])
    expected: dict[int, set[str]] = {}
    for row in Path("/proc/kallsyms").read_text().splitlines()[:20_000]:
        digits, kind, name = row.partition("\t")[0].split(" ")
        if kind in "tTwW" and int(digits, 16):
            expected.setdefault(int(digits, 16), set()).add(name)
    for address, known in list(expected.items())[::7]:
        frame = names.frame(address)
        assert (frame.function in known, frame.offset, frame.module) == (True, 0, "[kernel]")


@pytest.mark.skipif(os.geteuid() != 0, reason="the kernel shows its addresses to root only")
def test_a_user_without_rights_is_told_that_the_running_kernel_hides_its_addresses() -> None:
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
        names = Kallsyms.read()
        os.write(write_end, f"{names.hidden} {len(names.table)} {names.why_not}".encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with open(read_end) as answer:
        text = answer.read()
    if not text.startswith("False"):  # kernel.kptr_restrict=0 and kernel.perf_event_paranoid<=1 show them to everybody
        assert text.startswith("True 0 The kernel hides its addresses")
