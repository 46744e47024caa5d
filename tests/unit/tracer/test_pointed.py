"""Who points at a site or an address: which blocks are meant, and their chains in words."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from symbolizer.frame import Frame
from symbolizer.mappings import AddressSpace, parse_maps
from symbolizer.symbolizer import Symbolizer
from tests.unit.tracer.report.conftest import FINDING
from tracer.attach.objects import Objects
from tracer.attach.stopping import StoppedThread
from tracer.collect.snapshot import Snapshot
from tracer.holdings import Shares, Sites
from tracer.judge.pointers import PointerScan
from tracer.looks import IN_KERNEL, KeptMemory, Look, Looked
from tracer.pointed import BLOCKS, CHAINS, Pointed
from tracer.report.model import Finding
from tracer.settings import Settings

#: Where blocks and roots are; nothing has a name there.
HEAP, ROOTS = 0x5500_0000_0000, 0x7F00_0000_0000
MAPS = b"%x-%x rw-p 00000000 00:00 0 [heap]\n%x-%x rw-p 00000000 00:00 0 \n" % (HEAP, HEAP + (1 << 24), ROOTS, ROOTS + 4096)
SIZE = 32


def at(number: int) -> int:
    """Return where a block of 32 bytes is."""
    return HEAP + SIZE * number


def look(count: int, pointers: dict[int, int], roots: tuple[int, ...] = (), registers: tuple[int, ...] = (),
         kernel: tuple[int, ...] = ()) -> Look:
    """Return a look at blocks; pointers: from the second word of one to another. roots, registers: what they hold."""
    scan = PointerScan(np.array([at(number) for number in range(count)], np.uint64), np.full(count, SIZE, np.uint64))
    words = np.zeros((count, SIZE // 8), np.uint64)
    for holder, target in pointers.items():
        words[holder, 1] = at(target)
    scan.add(ROOTS, np.array([*roots, 0], np.uint64))
    scan.add(HEAP, words.reshape(-1))
    for values, label in ((registers, "7 rbx"), (kernel, IN_KERNEL)):
        scan.add_root_values(np.array(values, np.uint64), label)
    facts = SimpleNamespace(threads=(StoppedThread(7, (0,) * 27),))
    return Look(3, cast(Any, None), scan.finish(), cast(Any, facts), AddressSpace.of(parse_maps(MAPS)), KeptMemory())


def answers(asked: tuple[str, ...], looks: tuple[Look, ...], placed: dict[int, list[int]] | None = None,
            findings: tuple[tuple[int, Finding], ...] = ()) -> list[tuple[str, ...]]:
    """Return the answers; placed: by row of a site, the numbers of its blocks. Row n is allocated in make_n()."""
    pairs = [(at(number), row) for row, numbers in (placed or {}).items() for number in numbers]
    where = np.array([address for address, _ in pairs], np.uint64), np.array([row for _, row in pairs], np.int64)
    none = np.zeros(0, np.int64)
    sites = Sites(cast(Snapshot, None), none, lambda row: (Frame(1, f"make_{row}", line=3),), Shares(none, none, none, none), {},
                  np.zeros((0, 4, 2), np.int64), none, where)
    pointed = Pointed(Settings(who_points_at=asked), cast(Symbolizer, SimpleNamespace(object_file=lambda key: None)),
                      cast(Objects, None), sites, Looked(looks, [], ()))
    notes = pointed.notes(findings)
    assert [note.asked for note in notes] == [*asked]
    return [note.chain for note in notes]


def site(rank: int, *functions: str | None) -> Finding:
    return replace(FINDING, rank=rank, frames=tuple(Frame(1, function) for function in functions))


def test_an_address_from_its_root() -> None:
    """The root, then each block on the way with who allocated it and where in it the pointer stands, then its own."""
    made = look(3, {0: 1, 1: 2}, (at(0),))
    (chain,) = answers((f"{at(2):#x}",), (made,), {5: [0], 6: [1]})
    assert chain == (
        f"untracked anonymous memory at {ROOTS:#x}", "block of 32 bytes allocated by make_5() at +0x8",
        "block of 32 bytes allocated by make_6() at +0x8", f"block of 32 bytes at {at(2):#x}")


@pytest.mark.parametrize(("address", "inside"), [
    (at(1), True), (at(1) + 1, True), (at(1) + 31, True), (at(2), False), (at(0) - 1, False), (0, False), ((1 << 64) - 1, False),
])
def test_an_address_in_a_block(address: int, inside: bool) -> None:
    """Any address in a block means that block; in none, it says so."""
    (chain,) = answers((f"0X{address:X}",), (look(2, {}, (at(1),)),))
    assert (chain[-1] == f"block of 32 bytes at {at(1):#x}") == inside
    assert inside or chain == ("it lies in no block that was allocated while leaktrace traced",)


def test_what_nobody_points_at() -> None:
    """A block without a pointer is named, with that."""
    (chain,) = answers((f"{at(1):#x}",), (look(2, {1: 0}),), {5: [1]})
    assert chain == ("block of 32 bytes allocated by make_5()", "nobody points at it")


def test_registers_and_the_kernel_are_roots() -> None:
    """A thread's register is named with its thread; what epoll or a timer keeps is the kernel's."""
    made = look(3, {0: 1}, registers=(at(0),), kernel=(at(2),))
    first, second = answers((f"{at(1):#x}", f"{at(2):#x}"), (made,))
    assert first[0] == "register rbx of thread 7" and len(first) == 3
    assert second == ("kept by the kernel (epoll or a timer)", f"block of 32 bytes at {at(2):#x}")


def test_the_way_from_the_kernel() -> None:
    """Blocks between what the kernel keeps and the one asked for are on the way, as from any other root."""
    (chain,) = answers((f"{at(2):#x}",), (look(3, {0: 1, 1: 2}, kernel=(at(0),)),))
    assert len(chain) == 4


def test_equal_blocks_in_a_row_are_one_line() -> None:
    """A list of a thousand blocks of one site is a line with their number."""
    count = 1000
    made = look(count + 1, {n: n + 1 for n in range(count)}, (at(0),))
    (chain,) = answers((f"{at(count):#x}",), (made,), {5: [*range(count + 1)]})
    assert chain[1:] == ("block of 32 bytes allocated by make_5() at +0x8 (1000 in a row)", "block of 32 bytes allocated by make_5()")


def test_sites_by_rank_and_by_function() -> None:
    """A number is a rank; anything else a function anywhere in the stack, with or without its parameters."""
    findings = ((5, site(1, "malloc", "make(int)")), (6, site(2, None, "other")))
    made = look(2, {}, (at(0), at(1)))
    asked = ("1", "2", "make", "make(int)", "malloc", "3", "nothing")
    lines = answers(asked, (made,), {5: [0], 6: [1]}, findings)
    assert [chain[-1] for chain in lines] == [f"block of 32 bytes allocated by make_{row}()" for row in (5, 6, 5, 5, 5)] + [
        "no site of this report has that rank or function"] * 2


def test_a_function_of_several_sites() -> None:
    """All sites that it is part of are answered, one after the other."""
    findings = ((5, site(1, "a", "main")), (6, site(2, "b", "main")))
    (chain,) = answers(("main",), (look(2, {}, (at(0), at(1))),), {5: [0], 6: [1]}, findings)
    assert [line for line in chain if "allocated" in line] == [f"block of 32 bytes allocated by make_{row}()" for row in (5, 6)]


def test_chains_of_a_sites_blocks_are_counted() -> None:
    """Equal chains are told once with how many blocks hang on them, the most first, and not more than some."""
    # Blocks 10 to 15 hang on block 0's site, 20 and 21 on nobody; each of 30 to 34 on a site of its own.
    pointers = {n: 10 + n for n in range(6)} | {n: 20 + n for n in range(10, 15)}
    made = look(40, pointers, tuple(at(n) for n in range(6)))
    asked = [*range(10, 16), 36, 37]
    (chain,) = answers(("1",), (made,), {5: asked, 6: [*range(6)]}, ((5, site(1, "f")),))
    counts = [line for line in chain if "blocks looked at" in line]
    assert len(counts) == CHAINS and counts[0] == "2 of 8 blocks looked at:"
    assert chain[1] == "  nobody points at them" and all(line.startswith("  ") for line in chain if line not in counts)


def test_a_lists_blocks_hang_on_one_chain() -> None:
    """Chains that differ in length only are one, of which the longest is shown."""
    made = look(50, {n: n + 1 for n in range(49)}, (at(0),))
    (chain,) = answers(("1",), (made,), {5: [*range(50)]}, ((5, site(1, "f")),))
    # The first block hangs on the root itself.
    assert chain[0] == "49 of 50 blocks looked at:" and chain[2].endswith("(49 in a row)")


def test_of_many_blocks_some_are_followed() -> None:
    """They are spread over all addresses, the first and the last among them."""
    count = 10 * BLOCKS
    made = look(count, {}, (at(0), at(count - 1)))
    (chain,) = answers(("1",), (made,), {5: [*range(count)]}, ((5, site(1, "f")),))
    assert chain[0] == f"{BLOCKS - 2} of {BLOCKS} blocks looked at:" and chain[1] == "  nobody points at them"
    assert sum(line.startswith(f"1 of {BLOCKS}") for line in chain) == 2


def test_blocks_of_several_processes() -> None:
    """Each look is asked for the blocks that it has; a site without blocks has no answer."""
    far = look(4, {}, (at(3),))
    first, second, third = answers(("1", "2", f"{at(3):#x}"), (look(2, {}, (at(1),)), far), {5: [3]}, ((5, site(1, "f")), (6, site(2, "g"))))
    assert first == (f"untracked anonymous memory at {ROOTS:#x}", "block of 32 bytes allocated by make_5()") == third
    assert second == ()


def test_nothing_was_looked_at() -> None:
    """Without a look there is no answer, and it says why."""
    assert answers(("1", "0x10"), ()) == [("no memory was looked at",)] * 2
