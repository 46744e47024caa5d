"""A unit is passed over when its first entry is given a declaration without code."""

from hypothesis import given
from hypothesis import strategies as st

from symbolizer.unit_skips import UnitSkips

COMPILE_UNIT, BASE_TYPE, SUBPROGRAM = 0x11, 0x24, 0x2E
NAME, LOW_PC, BYTE_SIZE, ABSTRACT_ORIGIN = 0x03, 0x11, 0x0B, 0x31
STRP, ADDR, DATA1, STRX1, REF_ADDR = 0x0E, 0x01, 0x0B, 0x25, 0x10


def leb(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def declaration(code: int, tag: int, *attributes: tuple[int, int]) -> bytes:
    return leb(code) + leb(tag) + b"\0" + b"".join(leb(name) + leb(form) for name, form in attributes) + b"\0\0"


def unit(code: int, version: int = 5, kind: int = 1, table: int = 0) -> bytes:
    header = bytes([version, 0])
    if version >= 5:
        header += bytes([kind, 8]) + table.to_bytes(4, "little") + (bytes(8) if kind in (4, 5) else b"")
    else:
        header += table.to_bytes(4, "little") + b"\x08"
    body = header + leb(code) + bytes(20)
    return len(body).to_bytes(4, "little") + body


def skips(info: bytes, *declarations: bytes) -> UnitSkips:
    return UnitSkips(memoryview(info), memoryview(b"".join(declarations) + b"\0"))


ROOT = declaration(1, COMPILE_UNIT, (NAME, STRP), (LOW_PC, ADDR))
SMALL = declaration(2, BASE_TYPE, (BYTE_SIZE, DATA1), (NAME, STRP))


def test_the_first_entry_gets_a_small_declaration_without_code() -> None:
    """The code of the first declaration that says nothing of addresses stands where the unit's was."""
    assert skips(unit(1), ROOT, declaration(3, SUBPROGRAM, (LOW_PC, ADDR)), SMALL).patch(0) == [(12, 2)]


def test_headers_have_three_lengths() -> None:
    """DWARF 4, DWARF 5, and units with an id have their first entry at different places."""
    for version, kind, at in ((4, 0, 11), (5, 1, 12), (5, 4, 20)):
        assert skips(unit(1, version, kind), ROOT, SMALL).patch(0) == [(at, 2)]
    other = unit(1)
    assert skips(other + unit(1), ROOT, SMALL).patch(len(other)) == [(len(other) + 12, 2)]


def test_a_code_of_two_bytes_stays_one_of_two_bytes() -> None:
    """What follows the entry's code must not move."""
    root = declaration(300, COMPILE_UNIT, (LOW_PC, ADDR))
    assert skips(unit(300), root, SMALL).patch(0) == [(12, 0x82), (13, 0)]


def test_a_table_at_an_offset() -> None:
    """Each unit says where in .debug_abbrev its declarations are."""
    first = declaration(5, BASE_TYPE, (BYTE_SIZE, DATA1)) + b"\0"
    made = UnitSkips(memoryview(unit(1, table=len(first))), memoryview(first + ROOT + SMALL + b"\0"))
    assert made.patch(0) == [(12, 2)]


def test_without_a_fitting_declaration_the_unit_stays() -> None:
    """A unit is read needlessly rather than wrongly."""
    assert skips(unit(1), ROOT).patch(0) == []
    assert skips(unit(1), ROOT, declaration(200, BASE_TYPE, (BYTE_SIZE, DATA1))).patch(0) == []


def test_strings_by_table_and_references_across_units_do_not_go_together() -> None:
    """A name that is read through the table of a skipped unit would be another name."""
    by_table = declaration(1, COMPILE_UNIT, (NAME, STRX1))
    across = declaration(4, SUBPROGRAM, (ABSTRACT_ORIGIN, REF_ADDR))
    assert not skips(unit(1), by_table, across).are_safe(0)
    assert skips(unit(1), by_table, SMALL).are_safe(0)
    assert skips(unit(1), ROOT, across).are_safe(0)


@given(st.binary(min_size=24, max_size=200), st.binary(max_size=200))
def test_any_bytes(info: bytes, abbrev: bytes) -> None:
    """Whatever the bytes, there is an answer."""
    made = UnitSkips(memoryview(info), memoryview(abbrev))
    assert all(0 <= byte < 256 for _, byte in made.patch(0))
    made.are_safe(0)
