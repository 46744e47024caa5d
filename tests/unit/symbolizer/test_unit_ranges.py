"""Which compilation unit describes which addresses, and how units are put into pieces."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.unit_ranges import UnitRanges, pieces, unit_starts


def unit(length: int) -> bytes:
    return struct.pack("<I", length) + bytes(length)


def aranges(unit_offset: int, *pairs: tuple[int, int], version: int = 2, address_size: int = 8) -> bytes:
    body = struct.pack("<HIBB4x", version, unit_offset, address_size, 0)
    body += b"".join(struct.pack("<QQ", *pair) for pair in (*pairs, (0, 0)))
    return struct.pack("<I", len(body)) + body


def test_units_follow_each_other() -> None:
    """Each unit starts where the one before ends."""
    assert unit_starts(memoryview(unit(7) + unit(20) + unit(9))) == [0, 11, 35]


@pytest.mark.parametrize("damage", [b"\x00\x00\x00\x00", b"\xff\xff\xff\xff" + bytes(20), b"\x40\x00\x00\x00", b"\x01", unit(6)])
def test_a_damaged_unit_ends_the_list(damage: bytes) -> None:
    """What cannot be a unit's length, 64-bit DWARF included, ends the list without an error."""
    assert unit_starts(memoryview(unit(7) + damage)) == [0]


def test_an_address_belongs_to_the_unit_whose_range_holds_it() -> None:
    """Ranges are [start, start + size), in whatever order the sets come."""
    found = UnitRanges.parse_aranges(memoryview(aranges(64, (0x3000, 0x10)) + aranges(0, (0x1000, 0x20), (0x2000, 0x30))))
    assert [found.unit_of(vaddr) for vaddr in (0xFFF, 0x1000, 0x101F, 0x1020, 0x202F, 0x2030, 0x3000, 0x300F, 0x3010)] == [
        None, 0, 0, None, 0, None, 64, 64, None]
    assert found.units() == {0, 64}


def test_ranges_of_dropped_code_do_not_count() -> None:
    """A linker that drops code leaves ranges at address zero, or of no size."""
    found = UnitRanges.parse_aranges(memoryview(aranges(0, (0, 0x20)) + aranges(8, (0x1000, 0))))
    assert found.unit_of(0x10) is None and found.units() == set()


@pytest.mark.parametrize("damaged", [aranges(0, (0x1000, 16), version=9), aranges(0, (0x1000, 16), address_size=4),
                                     b"\xff\xff\xff\xff" + bytes(40), aranges(0, (0x1000, 16))[:30]])
def test_sets_that_cannot_be_read_are_left_out(damaged: bytes) -> None:
    """Another version, other addresses, a wrong length: those ranges are not known."""
    assert UnitRanges.parse_aranges(memoryview(damaged)).units() == set()


def test_a_range_up_to_the_last_address() -> None:
    """A range whose end is no 64-bit number is left out."""
    assert UnitRanges.parse_aranges(memoryview(aranges(0, (2**64 - 16, 32)))).units() == set()


@given(st.binary(max_size=400))
def test_any_bytes(data: bytes) -> None:
    """Whatever the bytes, there is an answer."""
    UnitRanges.parse_aranges(memoryview(data)).unit_of(0x1000)
    unit_starts(memoryview(data))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=30), st.integers(1, 100))
def test_pieces_are_whole_units_and_all_of_them(lengths: list[int], size: int) -> None:
    """Pieces meet end to end, begin at units, and are at most one unit longer than asked for."""
    starts = [sum(lengths[:index]) for index in range(len(lengths))]
    found = pieces(starts, sum(lengths), size)
    assert [found[0][0], *(end for _, end in found)] == [start for start, _ in found] + [sum(lengths)]
    assert {start for start, _ in found} <= set(starts)
    assert all(end - start < size + max(lengths) for start, end in found)
