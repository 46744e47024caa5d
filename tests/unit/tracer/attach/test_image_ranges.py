"""What a scan reads of an address space, which stack is dead, and what is glibc's: from written maps."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from symbolizer.mappings import Mapping, parse_maps
from tracer.attach.image_ranges import ARENA, dead_stack, heap_ranges, is_arena, to_scan
from tracer.attach.stopping import StoppedThread

STACK, TOP = 0x7F0000001000, 0x7F0000801000


def maps(*lines: str) -> tuple[Mapping, ...]:
    found = parse_maps("\n".join(lines).encode())
    assert len(found) == len(lines)
    return found


def thread(sp: int, fs_base: int = 0, tid: int = 1) -> StoppedThread:
    registers = [0] * 27
    registers[19], registers[21] = sp, fs_base
    return StoppedThread(tid, tuple(registers))


@pytest.mark.parametrize(("line", "expected"), [
    ("1000-2000 rw-p 00000000 00:00 0", "written"),
    ("1000-2000 rw-s 00000000 00:01 5 /dev/zero (deleted)", "written"),
    ("1000-2000 rw-s 00000000 00:01 5 /memfd:pool (deleted)", "written"),
    ("1000-2000 rw-s 00000000 00:01 5 /dev/shm/pool", "written"),
    ("1000-2000 rw-s 00000000 08:01 5 /var/lib/base", "written"),
    ("1000-2000 rw-s 00000000 00:06 5 /dev/dri/card0", "left out"),
    ("1000-2000 ---p 00000000 00:00 0", "left out"),
    ("1000-2000 r--p 00000000 08:01 5 /usr/lib/x.so", "protected"),
    ("1000-2000 r--s 00000000 08:01 5 /usr/lib/cache", "left out"),
    ("1000-2000 r--p 00000000 00:00 0 [vvar]", "left out"),
    ("1000-2000 r-xp 00000000 00:00 0 [vdso]", "left out"),
    ("1000-2000 --xp 00000000 00:00 0 [vsyscall]", "left out"),
    ("1000-2000 -w-p 00000000 00:00 0", "left out"),
])
def test_what_is_read(line: str, expected: str) -> None:
    """Memory that the program can write is read, of what it could write before only its own pages, devices never."""
    written, protected = to_scan(maps(line))
    found = "written" if len(written) else "protected" if len(protected) else "left out"
    assert found == expected
    assert [each for part in (written, protected) for each in part.tolist()] in ([], [[0x1000, 0x2000]])


def test_main_stack_is_dead_below_the_red_zone() -> None:
    """Of [stack], all is dead that lies more than the red zone below the stack pointer."""
    mappings = maps(f"{STACK:x}-{TOP:x} rw-p 00000000 00:00 0 [stack]")
    assert dead_stack(mappings, [thread(TOP - 0x1004)], all_stopped=True).tolist() == [[STACK, TOP - 0x1008 - 0x80]]


def test_lowest_of_two_stack_pointers_counts() -> None:
    """Where two threads use [stack], only what is dead for both is."""
    mappings = maps(f"{STACK:x}-{TOP:x} rw-p 00000000 00:00 0 [stack]")
    threads = [thread(TOP - 0x2000), thread(TOP - 0x1000)]
    assert dead_stack(mappings, threads, all_stopped=True).tolist() == [[STACK, TOP - 0x2080]]


def guarded(guard: str = "---p", rights: str = "rw-p", between: int = 0) -> tuple[Mapping, ...]:
    return maps(f"{STACK - 0x1000:x}-{STACK - between:x} {guard} 00000000 00:00 0",
                f"{STACK:x}-{TOP:x} {rights} 00000000 00:00 0")


@pytest.mark.parametrize(("mappings", "threads", "all_stopped", "is_dead"), [
    pytest.param(guarded(), [thread(TOP - 0x1000, TOP - 0x800)], True, True, id="a thread's stack"),
    pytest.param(guarded(), [thread(TOP - 0x1000, TOP + 0x800)], True, False, id="a coroutine's: control block elsewhere"),
    pytest.param(guarded(), [thread(TOP - 0x1000, TOP - 0x2000)], True, False, id="control block below"),
    pytest.param(guarded(), [thread(TOP - 0x1000, TOP - 0x800), thread(TOP - 0x3000, TOP - 0x2000)], True, False, id="two threads"),
    pytest.param(guarded("rw-p"), [thread(TOP - 0x1000, TOP - 0x800)], True, False, id="no guard"),
    pytest.param(guarded(between=0x800), [thread(TOP - 0x1000, TOP - 0x800)], True, False, id="a gap below"),
    pytest.param(guarded(rights="rw-s"), [thread(TOP - 0x1000, TOP - 0x800)], True, False, id="shared memory"),
    pytest.param(guarded(), [thread(TOP - 0x1000, TOP - 0x800)], False, False, id="another runs"),
    pytest.param(guarded(), [thread(STACK + 0x40, TOP - 0x800)], True, False, id="used to its end"),
    pytest.param(guarded(), [thread(0x123, TOP - 0x800)], True, False, id="no stack pointer"),
])
def test_other_stacks(mappings: Sequence[Mapping], threads: list[StoppedThread], all_stopped: bool, is_dead: bool) -> None:
    """A stack beside the main one is dead below its stack pointer only where nothing else can be in its mapping."""
    found = dead_stack(mappings, threads, all_stopped=all_stopped).tolist()
    assert found == ([[STACK, TOP - 0x1080]] if is_dead else [])


BASE = 0x7F0004000000
FIRST = (BASE + 0x30, 0, 0x21000, 0x21000)


def words_of(table: dict[int, Sequence[int]]) -> object:
    return lambda address, count: table.get(address, (0,) * count)


def arena_maps(rw: int = 0x21000, reserved: int = ARENA) -> tuple[Mapping, ...]:
    return maps("1000-5000 rw-p 00000000 00:00 0 [heap]",
                f"{BASE:x}-{BASE + rw:x} rw-p 00000000 00:00 0",
                f"{BASE + rw:x}-{BASE + reserved:x} ---p 00000000 00:00 0")


@pytest.mark.parametrize(("mappings", "table", "expected"), [
    pytest.param(arena_maps(), {BASE: FIRST}, [[BASE, BASE + 0x21000]], id="an arena"),
    pytest.param(arena_maps(), {}, [], id="something else that is aligned"),
    pytest.param(arena_maps(), {BASE: (BASE + 0x30, 0, 0x22000, 0x22000)}, [], id="another size"),
    pytest.param(arena_maps(reserved=ARENA // 2), {BASE: FIRST}, [], id="a small reserve"),
    pytest.param(arena_maps(ARENA + 0x1000, 2 * ARENA),
                 {BASE: (BASE + 0x30, 0, ARENA, ARENA), BASE + ARENA: (BASE + 0x30, BASE, 0x800, 0x1000)},
                 [[BASE, BASE + ARENA], [BASE + ARENA, BASE + ARENA + 0x1000]], id="a full part and the next"),
])
def test_glibc_arenas(mappings: Sequence[Mapping], table: dict[int, Sequence[int]], expected: list[list[int]]) -> None:
    """[heap] and what has glibc's header at a multiple of 64 MB are malloc's; what only looks aligned is not."""
    assert heap_ranges(mappings, words_of(table)).tolist() == [[0x1000, 0x5000], *expected]  # type: ignore[arg-type]


@pytest.mark.parametrize("words", [(), (BASE + 0x30, 0), (BASE + 0x38, 0, 0x1000, 0x21000), (BASE + 0x200, 0, 0x1000, 0x21000),
                                   (BASE + 0x30, 0x1000, 0x1000, 0x21000), (BASE + 0x30, 0, 0, 0x21000),
                                   (BASE + 0x30, 0, 0x31000, 0x21000)])
def test_no_header(words: Sequence[int]) -> None:
    """Each field of the header that is not as glibc writes it makes the range somebody else's."""
    assert is_arena(FIRST, BASE, BASE + 0x21000)
    assert not is_arena(words, BASE, BASE + 0x21000)
