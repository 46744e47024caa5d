"""When a program has mapped what it starts with, told from its system calls; on a made-up /proc."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tracer.attach.loading import AT_BASE, LOADER_CALLS, PROT_EXEC, SYS_MMAP, Loading
from tracer.attach.ptrace import ARCH_X86_64, SyscallInfo

PID = 42
LOADER, LOADER_END, LIBRARY, PROGRAM = 0x7F00_0000_0000, 0x7F00_0003_4000, 0x7F00_1000_0000, 0x5555_0000_1000
ARCH_I386 = 0x40000003
MPROTECT, WRITE, CLONE, EXIT_GROUP, OPENAT = 10, 1, 56, 231, 257
MAPS = b"""\
555500000000-555500002000 r-xp 00000000 08:01 11 /usr/bin/program
7f0000000000-7f0000001000 r--p 00000000 08:01 22 /usr/lib/ld-linux-x86-64.so.2
7f0000001000-7f0000030000 r-xp 00001000 08:01 22 /usr/lib/ld-linux-x86-64.so.2
7f0000032000-7f0000034000 rw-p 00031000 08:01 22 /usr/lib/ld-linux-x86-64.so.2
7f0000034000-7f0000035000 rw-p 00000000 00:00 0
7f0010000000-7f0010100000 r-xp 00000000 08:01 33 /usr/lib/libc.so.6
"""


def loading(proc: Path, base: int = LOADER, maps: bytes = MAPS, auxv: bytes | None = None) -> Loading:
    """Return what watches a process of these maps whose loader the kernel mapped at base."""
    folder = proc / str(PID)
    folder.mkdir()
    (folder / "maps").write_bytes(maps)
    (folder / "auxv").write_bytes(struct.pack("<8Q", 6, 4096, AT_BASE, base, 9, PROGRAM, 0, 0) if auxv is None else auxv)
    return Loading(PID, proc)


def entry(number: int, third: int = 0, ip: int = LOADER + 0x1500, arch: int = ARCH_X86_64) -> SyscallInfo:
    return SyscallInfo(arch, ip, number, third)


LEAVE = SyscallInfo(ARCH_X86_64, LOADER + 0x1500, -1, 0)
CODE = PROT_EXEC | 1


def test_code_that_was_mapped_is_told_when_the_call_ends(tmp_path: Path) -> None:
    """Only then is it there: not at the call's entry, once, and not for a call after it."""
    one = loading(tmp_path)
    assert [one.at_syscall(each) for each in (LEAVE, entry(SYS_MMAP, CODE), LEAVE, entry(OPENAT, CODE), LEAVE)] == [
        False, False, True, False, False]
    assert not one.is_over


@pytest.mark.parametrize("call", [entry(SYS_MMAP, 3), entry(MPROTECT, CODE), entry(OPENAT)])
def test_what_maps_no_code(tmp_path: Path, call: SyscallInfo) -> None:
    """Data, protection that is changed, files that are opened: nothing to attach to."""
    one = loading(tmp_path)
    assert [one.at_syscall(each) for each in (call, LEAVE)] == [False, False] and not one.is_over


@pytest.mark.parametrize("ip", [LOADER, LOADER + 0x2FFFF, LOADER_END])
def test_the_loader_goes_from_its_first_mapping_to_its_last(tmp_path: Path, ip: int) -> None:
    """Calls from anywhere in its file are its own; the address after the call may be the first behind it."""
    one = loading(tmp_path)
    one.at_syscall(entry(OPENAT, ip=ip))
    assert not one.is_over


@pytest.mark.parametrize("ip", [LIBRARY + 0x500, PROGRAM, LOADER - 1, LOADER_END + 1])
def test_over_with_the_first_call_from_elsewhere(tmp_path: Path, ip: int) -> None:
    """A constructor or the program itself calls from its own code, whatever the call: all is mapped by then."""
    one = loading(tmp_path)
    one.at_syscall(entry(OPENAT, ip=ip))
    assert one.is_over
    one.at_syscall(entry(OPENAT))
    assert one.is_over, "what is over does not begin again"


@pytest.mark.parametrize("number", [WRITE, CLONE, EXIT_GROUP])
def test_over_with_a_call_that_loaders_do_not_make(tmp_path: Path, number: int) -> None:
    """In musl the loader is the C library, so that the program calls from the same file: what it calls tells."""
    one = loading(tmp_path)
    one.at_syscall(entry(number))
    assert one.is_over


def test_calls_of_loaders(tmp_path: Path) -> None:
    """All that a loader calls while it maps leaves it going on."""
    one = loading(tmp_path)
    for number in LOADER_CALLS:
        one.at_syscall(entry(number))
        one.at_syscall(LEAVE)
    assert not one.is_over and SYS_MMAP in LOADER_CALLS


def test_a_call_of_32_bits(tmp_path: Path) -> None:
    """The numbers of calls mean something else there: it is not looked into."""
    one = loading(tmp_path)
    one.at_syscall(entry(OPENAT, arch=ARCH_I386))
    assert one.is_over


@pytest.mark.parametrize("base", [0, 0x7E00_0000_0000])
def test_a_program_without_a_loader(tmp_path: Path, base: int) -> None:
    """A static program has no loader, or none that is mapped where it is said to be: over at once."""
    assert loading(tmp_path, base=base).is_over


def test_a_program_of_32_bits(tmp_path: Path) -> None:
    """Its auxiliary vector has words of four bytes, of which no pair says AT_BASE as one of eight does."""
    words = struct.pack("<8I", 6, 4096, AT_BASE, 0xF7FC_0000, 9, 0x8048000, 0, 0)
    assert loading(tmp_path, auxv=words).is_over


@pytest.mark.parametrize("auxv", [b"", b"\x07", bytes(24)])
def test_a_vector_that_is_none(tmp_path: Path, auxv: bytes) -> None:
    """A process that is just ending has none, or half of it."""
    assert loading(tmp_path, auxv=auxv).is_over


def test_a_process_that_is_gone(tmp_path: Path) -> None:
    """Nothing is waited for."""
    assert Loading(PID, tmp_path).is_over


def test_another_file_of_the_loaders_path(tmp_path: Path) -> None:
    """Only what is mapped of the loader's own file is its range: a replaced one of the same name is not."""
    newer = b"7f0020000000-7f0020001000 r-xp 00000000 08:01 23 /usr/lib/ld-linux-x86-64.so.2\n"
    one = loading(tmp_path, maps=MAPS + newer)
    one.at_syscall(entry(OPENAT, ip=0x7F00_2000_0500))
    assert one.is_over
