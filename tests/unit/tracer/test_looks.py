"""Looks at memory: which blocks are pointed at, what is kept of the memory, and when all blocks are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest

from symbolizer.mappings import AddressSpace, parse_maps
from tracer.attach.image_ranges import RED_ZONE
from tracer.attach.memory_image import ImageFacts
from tracer.attach.resident_pages import PAGE
from tracer.attach.stopping import StoppedThread
from tracer.attach.tracee import Inherited, Tracee
from tracer.looks import MOST_STACK, REGISTERS, KeptMemory, apart, began_with_trace, registers_of
from tracer.settings import Settings

#: A program's variables, constants and bss; a stack of 4 MB; a thread's own memory; a heap.
MAPS = b"""\
400000-401000 r--p 00000000 08:01 7 /usr/bin/server
401000-403000 rw-p 00001000 08:01 7 /usr/bin/server
500000-600000 rw-p 00000000 00:00 0 [heap]
7f0000000000-7f0000010000 rw-p 00000000 00:00 0
7fff00000000-7fff00400000 rw-p 00000000 00:00 0 [stack]
"""
STACK, TLS = 0x7FFF_0000_0000, 0x7F00_0000_0000


def thread(tid: int, *, sp: int = 0, fs_base: int = 0) -> StoppedThread:
    """Return a thread that stands, with its stack pointer and thread pointer (struct user_regs_struct)."""
    registers = [0] * 27
    registers[19], registers[21] = sp, fs_base
    return StoppedThread(tid, tuple(registers))


def kept(*threads: StoppedThread, maps: bytes = MAPS) -> KeptMemory:
    """Return what is to keep of a process with these threads."""
    mappings = tuple(parse_maps(maps))
    none = np.zeros((0, 2), np.uint64)
    memory = KeptMemory()
    memory.want(AddressSpace.of(mappings), ImageFacts(threads, (), mappings, none, none))
    return memory


def numbered(start: int, end: int) -> np.ndarray:
    """Return memory of which each word holds its own address."""
    return np.arange(start, end, 8, dtype=np.uint64)


def word(memory: KeptMemory, address: int) -> int | None:
    """Return the word at an address, None where it was not kept."""
    data = memory.read(address, 8)
    return int.from_bytes(data, "little") if len(data) == 8 else None


@pytest.mark.parametrize(("blocks", "outermost"), [
    ([], []),
    ([(16, 8), (32, 8)], [(16, 8), (32, 8)]),
    ([(32, 8), (16, 8)], [(16, 8), (32, 8)]),
    ([(16, 100), (16, 8), (20, 8), (115, 1)], [(16, 100)]),
    ([(20, 8), (16, 8), (16, 100)], [(16, 100)]),
    ([(16, 100), (24, 8), (116, 8)], [(16, 100), (116, 8)]),
    # Inside of the first, though the second has ended before it.
    ([(16, 100), (24, 8), (64, 8)], [(16, 100)]),
    ([(16, 0), (16, 0), (32, 0)], [(16, 0), (32, 0)]),
    ([(16, 16), (32, 0)], [(16, 16), (32, 0)]),
    ([(16, 16), (24, 16)], [(16, 16)]),
    ([(0x7FFF_FFFF_0000, 1 << 12), (16, 1)], [(16, 1), (0x7FFF_FFFF_0000, 1 << 12)]),
])  # fmt: skip
def test_blocks_in_blocks(blocks: list[tuple[int, int]], outermost: list[tuple[int, int]]) -> None:
    """Those that lie in no other one, by address; of two at one address the larger, of two equal ones one."""
    addresses, sizes = np.array(blocks, np.uint64).reshape(-1, 2).T
    chosen = apart(addresses, sizes)
    assert [*zip(addresses[chosen].tolist(), sizes[chosen].tolist(), strict=True)] == outermost


def test_the_scan_takes_what_is_apart() -> None:
    """Whatever blocks there are, those chosen do not overlap, and every other one begins in another that was there."""
    random = np.random.default_rng(11)
    for _ in range(50):
        addresses = random.integers(0, 400, 60).astype(np.uint64)
        sizes = random.integers(1, 30, 60).astype(np.uint64)
        chosen = apart(addresses, sizes)
        ends = addresses + sizes
        assert (addresses[chosen][1:] >= ends[chosen][:-1]).all()
        for at in set(range(60)) - set(chosen.tolist()):
            holders = (addresses <= addresses[at]) & (ends > addresses[at])
            assert holders.sum() > 1


@dataclass
class FakeTracee:
    """What is asked of a process."""

    uid: int = 0
    inherited: Inherited | None = None
    shares_memory: bool = False
    execs: int = 0


def began(tracee: FakeTracee, **settings: Any) -> bool:
    return began_with_trace(cast(Tracee, tracee), Settings(**settings))


def test_who_began_with_the_trace() -> None:
    """The command, and what has executed a program since; nobody who ran before, and no child with its parent's blocks."""
    assert began(FakeTracee(), command=("ls",))
    assert began(FakeTracee(5, execs=1), pids=(7,)) and began(FakeTracee(5, execs=2), command=("sh",))
    assert not began(FakeTracee(), pids=(7,)) and not began(FakeTracee(5), command=("sh",))
    assert not began(FakeTracee(5, Inherited(100, 1), execs=1), command=("sh",))
    assert not began(FakeTracee(inherited=Inherited(0, 0)), command=("sh",)), "what it had was not counted"
    assert not began(FakeTracee(5, shares_memory=True, execs=1), command=("sh",))


@pytest.mark.parametrize("partial", [
    {"sample_rate": 2}, {"sample_bytes": 4096}, {"min_size": 0}, {"max_size": 100}, {"object_path": "c"}, {"symbols_prefix": "je_"},
])
def test_not_every_block_is_on_record(partial: dict[str, Any]) -> None:
    """With samples, some sizes or one allocator only, what is not on record is not free."""
    assert not began(FakeTracee(), command=("ls",), **partial)


def test_registers() -> None:
    """Each register that can hold a pointer by its name, and the vector registers together; no flags or segments."""
    found = dict(registers_of(StoppedThread(7, tuple(range(100, 127)), (1, 2, 3))))
    assert found.pop("xmm") == (1, 2, 3)
    assert tuple(found) == REGISTERS and [*found.values()] == [(value,) for value in range(100, 115)]
    # In the order of struct user_regs_struct (sys/user.h).
    assert (found["r15"], found["rbp"], found["rax"], found["rdi"]) == ((100,), (104,), (110,), (114,))


def test_variables_are_kept() -> None:
    """What a file's writable mapping holds is there; constants, the heap and what is nowhere are not."""
    memory = kept()
    for start, end in ((0x400000, 0x403000), (0x500000, 0x501000)):
        memory.add(start, numbered(start, end))
    assert [word(memory, at) for at in (0x401000, 0x402FF8, 0x400FF8, 0x500000, 0x403000, 0, 1 << 47)] == [
        0x401000, 0x402FF8, None, None, None, None, None]
    assert len(memory.read(0x402FF8, 100)) == 8, "more than was kept"


def test_stacks_are_kept_up_to_a_limit() -> None:
    """From the red zone below the stack pointer up, as much as is kept of a stack, and no more than its mapping."""
    sp = STACK + 0x10000
    memory = kept(thread(7, sp=sp))
    memory.add(STACK, numbered(STACK, STACK + 0x200000))
    first, last = sp - RED_ZONE, sp - RED_ZONE + MOST_STACK
    assert [word(memory, at) for at in (first, sp, last - 8, first - 8, last)] == [first, sp, last - 8, None, None]
    low, high = kept(thread(7, sp=STACK)), kept(thread(7, sp=STACK + 0x400000 - 16))
    assert low._wanted[-1].tolist() == [STACK, STACK + MOST_STACK - RED_ZONE]
    assert high._wanted[-1].tolist() == [STACK + 0x400000 - 16 - RED_ZONE, STACK + 0x400000]


def test_what_a_thread_has_of_its_own_is_kept() -> None:
    """A page before the thread pointer, where its variables are, and one from there on; nothing for one without any."""
    memory = kept(thread(7, fs_base=TLS + 0x8010))
    memory.add(TLS, numbered(TLS, TLS + 0x10000))
    # Whole words are kept.
    first, last = TLS + 0x8010 - PAGE, TLS + 0x8010 + PAGE
    assert [word(memory, at) for at in (first, last - 8, first - 8, last)] == [first, last - 8, None, None]
    assert kept(thread(7))._wanted.tolist() == [[0x401000, 0x403000]]


def test_pieces_in_any_order() -> None:
    """A part that comes in pieces is read from each; a word that begins between two is cut."""
    memory = kept()
    for start in (0x402000, 0x401000):
        memory.add(start, numbered(start, start + 0x1000))
    assert [word(memory, at) for at in (0x401000, 0x401FF8, 0x402000)] == [0x401000, 0x401FF8, 0x402000]
    assert memory.read(0x401004, 4) == bytes(4)


def test_a_thread_on_its_own_stack() -> None:
    """Where thread-local variables lie at the end of a thread's stack, both are there once."""
    memory = kept(thread(7, sp=TLS + 0x100, fs_base=TLS + 0xF000))
    memory.add(TLS, numbered(TLS, TLS + 0x10000))
    assert [word(memory, at) for at in range(TLS + 0x100, TLS + 0x10000, 0x700)] == [*range(TLS + 0x100, TLS + 0x10000, 0x700)]


def test_what_is_wanted_twice() -> None:
    """What is kept of a stack above another thread's own memory is found, too."""
    memory = kept(thread(7, sp=TLS + 0x100), thread(8, fs_base=TLS + 0x4000))
    memory.add(TLS, numbered(TLS, TLS + 0x10000))
    assert word(memory, TLS + 0x8000) == TLS + 0x8000
