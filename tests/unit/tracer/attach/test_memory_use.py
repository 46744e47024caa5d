"""smaps and smaps_rollup as bytes become resident memory by kind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tracer.attach.memory_use import Kind, parse_smaps, read_use, stack_pointers


def entry(line: str, rss: int, anonymous: int = 0, **more: int) -> bytes:
    """Return one mapping of smaps; sizes in kB."""
    figures = {"Size": 999, "Rss": rss, "Pss": rss, "Anonymous": anonymous, "Swap": 0, "Shared_Hugetlb": 0,
               "Private_Hugetlb": 0} | more
    return f"{line}\n".encode() + b"".join(b"%-16s%8d kB\n" % (f"{name}:".encode(), size)
                                           for name, size in figures.items()) + b"VmFlags: rd wr \n"


SMAPS = b"".join([
    entry("400000-401000 r-xp 00000000 fe:00 7 /bin/web", 4),
    entry("401000-402000 rw-p 00001000 fe:00 7 /bin/web", 4, 4),
    entry("402000-404000 rw-p 00000000 00:00 0 ", 8, 8),
    entry("900000-a00000 rw-p 00000000 00:00 0 [heap]", 100, 100, Swap=12),
    entry("7f0000000000-7f0000001000 ---p 00000000 00:00 0 ", 0),
    entry("7f0000001000-7f0000801000 rw-p 00000000 00:00 0 ", 16, 16),
    entry("7f0001000000-7f0001100000 rw-p 00000000 00:00 0 ", 50, 50),
    entry("7f0002000000-7f0002100000 rw-s 00000000 00:01 9 /dev/zero (deleted)", 30),
    entry("7f0003000000-7f0003100000 rw-p 00000000 00:00 0 ", 0, 0, Private_Hugetlb=2048),
    entry("7f0004000000-7f0004100000 rw-p 00000000 00:00 0 [anon: glibc: pthread stack: 12]", 7, 7),
    entry("7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0 [stack]", 12, 12),
    entry("7ffc00100000-7ffc00101000 r-xp 00000000 00:00 0 [vdso]", 4),
])


def test_every_mapping_has_its_kind() -> None:
    """Heap, stacks (by name, by guard page), globals and bss, shared memory and files are told apart."""
    use = parse_smaps(SMAPS)
    assert use.kinds == (Kind.FILE, Kind.FILE, Kind.DATA, Kind.HEAP, Kind.ANONYMOUS, Kind.STACK, Kind.ANONYMOUS,
                         Kind.SHARED, Kind.ANONYMOUS, Kind.STACK, Kind.STACK, Kind.OTHER)
    assert [use.rss_of(kind) // 1024 for kind in (Kind.HEAP, Kind.STACK, Kind.ANONYMOUS)] == [100, 35, 50]
    assert use.written == 4096


def test_kinds_add_up_to_the_whole() -> None:
    """No resident byte is in two kinds or in none, and swap and huge pages are kept apart."""
    use = parse_smaps(SMAPS)
    assert sum(use.rss_of(kind) for kind in Kind) == use.totals.rss == 235 * 1024
    assert (use.totals.swap, use.totals.hugetlb, use.totals.anonymous) == (12 << 10, 2 << 20, 197 << 10)


def test_a_stack_pointer_makes_a_stack() -> None:
    """A mapping without a guard below is a stack if a thread's stack pointer is in it; the heap stays the heap."""
    kinds = parse_smaps(SMAPS, [0x7F0001080000, 0x980000]).kinds
    assert (kinds[6], kinds[3]) == (Kind.STACK, Kind.HEAP)


def test_a_large_hole_is_no_guard() -> None:
    """What an arena has reserved and not made accessible is larger than a guard page, so what follows is no stack."""
    text = (entry("7f0000000000-7f0002000000 ---p 00000000 00:00 0 ", 0)
            + entry("7f0002000000-7f0002100000 rw-p 00000000 00:00 0 ", 5, 5))
    assert parse_smaps(text).kinds[1] is Kind.ANONYMOUS


def test_a_neighbour_of_anonymous_memory_is_no_global() -> None:
    """Only what follows the writable data of a file is its bss; what follows other anonymous memory is not."""
    text = (entry("7f0000000000-7f0000100000 rw-p 00000000 00:00 0 [heap]", 1, 1)
            + entry("7f0000100000-7f0000200000 rw-p 00000000 00:00 0 ", 5, 5))
    assert parse_smaps(text).kinds[1] is Kind.ANONYMOUS


def test_arenas_become_heap() -> None:
    """Mappings that begin in a heap that was found elsewhere count as heap, whatever they looked like."""
    use = parse_smaps(SMAPS).with_heaps(np.array([[0x7F0000000000, 0x7F0004000000]], np.uint64))
    assert use.kinds[5:7] == (Kind.HEAP, Kind.HEAP) and use.kinds[9] is Kind.STACK


def test_a_cut_text_loses_its_last_mapping_only() -> None:
    """A text that ends in the middle of a mapping still gives all mappings before it."""
    use = parse_smaps(SMAPS[: SMAPS.index(b"[vdso]") + 20])
    assert len(use.mappings) == len(use.rss) == 11


def test_an_old_kernel_without_a_figure() -> None:
    """A figure that no mapping has is 0, and the others are read."""
    totals = parse_smaps(b"400000-500000 r--p 00000000 00:00 0 \nRss:   12 kB\nPss:   5 kB\n").totals
    assert (totals.rss, totals.pss, totals.swap) == (12288, 5120, 0)


@given(st.binary(max_size=300))
def test_garbage_is_no_error(text: bytes) -> None:
    """Whatever the bytes are, parsing ends with something consistent."""
    use = parse_smaps(SMAPS[:700] + text)
    assert len(use.mappings) == len(use.kinds) == len(use.rss)


def test_it_reads_below_the_given_root(tmp_path: Path) -> None:
    """Text and stack pointers come from the folder that is passed in; a running thread has no pointer to give."""
    for name, text in (("1", b"0 0x1 0x2 0x3 0x4 0x5 0x6 0x7f0001080000 0x401000\n"), ("2", b"running\n")):
        (tmp_path / "task" / name).mkdir(parents=True)
        (tmp_path / "task" / name / "syscall").write_bytes(text)
    (tmp_path / "smaps").write_bytes(SMAPS)
    assert stack_pointers(tmp_path) == [0x7F0001080000]
    assert read_use(tmp_path).kinds[6] is Kind.STACK
