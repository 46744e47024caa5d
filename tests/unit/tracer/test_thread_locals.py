"""Each thread's copy of thread-local variables is found from its thread pointer."""

from __future__ import annotations

from dataclasses import dataclass

from symbolizer.data_symbols import DataPlace, TlsSegment
from symbolizer.tls_slots import SlotKind, TlsSlot
from tracer.stack_frames import Read
from tracer.thread_locals import THREAD_RECORD, Copies, TlsObject

FS, BIAS, VECTOR, LATER = 0x7F0000001000, 0x7F1000000000, 0x555500000000, 0x555500002000
MASK = (1 << 64) - 1


@dataclass(frozen=True)
class Segment:
    """Thread-local variables without names."""

    tls: TlsSegment | None

    def thread_local(self, offset: int) -> DataPlace | None:
        return None


def memory(words: dict[int, int]) -> Read:
    return lambda address, size: words[address].to_bytes(size, "little") if address in words else b""


def made(*slots: TlsSlot, size: int = 0x30, is_program: bool = False) -> TlsObject:
    return TlsObject("object", BIAS, Segment(TlsSegment(0x3000, size, 16)), is_program, slots)


def offsets(one: TlsObject, words: dict[int, int], *addresses: int) -> list[int | None]:
    """Return for each address its offset in the object's segment, None outside."""
    copies = Copies.of(FS, [one], memory(words))
    found = [copies.object_at(address) for address in addresses]
    return [each[1] if each else None for each in found]


def test_the_programs_copy_ends_at_the_thread_pointer() -> None:
    """It needs no memory to be read, and a program without thread-local variables has none."""
    assert offsets(made(is_program=True), {}, FS - 0x31, FS - 0x30, FS - 1, FS) == [None, 0, 0x2F, None]
    none = TlsObject("object", BIAS, Segment(None), True)
    assert offsets(none, {}, FS - 1) == [None]


def test_a_library_that_came_with_the_program() -> None:
    """One of its words says where one of its variables is, counted down from the thread pointer."""
    words = {BIAS + 0x4000: -0x90 & MASK}
    slot = TlsSlot(SlotKind.OFFSET, 0x4000, 0x10)
    assert offsets(made(slot), words, FS - 0xA1, FS - 0xA0, FS - 0x71, FS - 0x70) == [None, 0, 0x2F, None]


def test_a_library_that_was_loaded_later() -> None:
    """Its module's number is the index in the thread's vector; glibc and musl have entries of different sizes."""
    slot = TlsSlot(SlotKind.MODULE, 0x4000, 0)
    words = {BIAS + 0x4000: 3, FS + 8: VECTOR}
    glibc, musl = {VECTOR + 8: 0, VECTOR + 48: LATER}, {VECTOR + 8: FS - 0x30, VECTOR + 24: LATER}
    assert offsets(made(slot), words | glibc, LATER, LATER + 0x30) == [0, None]
    assert offsets(made(slot), words | musl, LATER + 8) == [8]


def test_a_thread_that_never_used_a_library_has_no_copy() -> None:
    """glibc makes the copy at the first use; until then the entry is all ones."""
    slot = TlsSlot(SlotKind.MODULE, 0x4000, 0)
    words = {BIAS + 0x4000: 3, FS + 8: VECTOR, VECTOR + 8: 0, VECTOR + 48: MASK}
    assert offsets(made(slot), words, MASK, MASK - 8, 0) == [None, None, None]


def test_memory_that_says_nothing() -> None:
    """Words that are zero, unreadable, or no module's number give no copy."""
    slot = TlsSlot(SlotKind.MODULE, 0x4000, 0)
    for words in ({}, {BIAS + 0x4000: 0}, {BIAS + 0x4000: 3}, {BIAS + 0x4000: MASK, FS + 8: VECTOR},
                  {BIAS + 0x4000: 3, FS + 8: MASK}):
        assert offsets(made(slot), words, FS - 8, 0, LATER) == [None, None, None]


def test_a_second_word_is_asked_where_the_first_says_nothing() -> None:
    """A word that was not written yet does not hide one that was."""
    slots = (TlsSlot(SlotKind.OFFSET, 0x4000, 0), TlsSlot(SlotKind.MODULE, 0x4008, 0))
    words = {BIAS + 0x4008: 1, FS + 8: VECTOR, VECTOR + 8: 0, VECTOR + 16: LATER}
    assert offsets(made(*slots), words, LATER) == [0]


def test_what_came_with_the_thread_is_its_memory() -> None:
    """From the lowest copy that is near to the end of the C library's record; a copy elsewhere counts for nothing."""
    slot, other = TlsSlot(SlotKind.OFFSET, 0x4000, 0), TlsSlot(SlotKind.MODULE, 0x4008, 0)
    objects = [made(is_program=True), made(slot), made(other)]
    copies = Copies.of(FS, objects, memory({BIAS + 0x4000: -0x200 & MASK, BIAS + 0x4008: 1, FS + 8: VECTOR,
                                            VECTOR + 8: 0, VECTOR + 16: LATER}))
    inside = [copies.in_static_area(address)
              for address in (FS - 0x201, FS - 0x200, FS - 0x100, FS, FS + THREAD_RECORD - 1, FS + THREAD_RECORD, LATER)]
    assert inside == [False, True, True, True, True, False, False]
