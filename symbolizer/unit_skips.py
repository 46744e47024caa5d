"""How to make a reader of DWARF pass over a unit: its first entry is given a declaration that says nothing of code.

A linker that drops a unit's code leaves such entries, so readers know them; others can still refer into the unit.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

# DWARF 5, sections 7.5.3 and 7.5.6.
_LOW_PC, _RANGES, _HIGH_PC, _STATEMENTS = 0x11, 0x55, 0x12, 0x10
_OF_CODE = {_LOW_PC, _RANGES, _HIGH_PC, _STATEMENTS, 0x72, 0x73, 0x74, 0x2132, 0x2133}  # and the bases of its tables
_IMPLICIT_CONST = 0x21
_SIZES = {0x0B: 1, 0x05: 2, 0x06: 4, 0x07: 8, 0x0E: 4, 0x13: 4, 0x0C: 1, 0x17: 4, 0x1F: 4, 0x19: 0, _IMPLICIT_CONST: 0}
_STRING_INDEXES = {0x1A, 0x25, 0x26, 0x27, 0x28}
_REFERS_ACROSS = (b"\x31\x10", b"\x47\x10")  # abstract_origin or specification as DW_FORM_ref_addr
#: The extended header of a split or skeleton unit has an id of 8 bytes (DWARF 5, section 7.5.1).
_UNIT_ID = 8
_UNITS_WITH_ID = (4, 5)
_LONGEST_HEADER = 20
_MANY_DECLARATIONS = 4096
_MANY_ATTRIBUTES = 256
#: Attributes in all tables that are read, some seconds; a hundred units of C++ have a million.
_MANY_IN_ALL = 1 << 21
#: An entry of this size is always within a unit's first entry.
_SMALL = 16


class UnitSkips:
    """The patches of one file; `info` and `abbrev` are its .debug_info and .debug_abbrev."""

    def __init__(self, info: memoryview, abbrev: memoryview) -> None:
        self._info = info
        self._abbrev = abbrev
        self._budget = _MANY_IN_ALL
        self._substitute = lru_cache(maxsize=None)(self._find_substitute)

    def are_safe(self, start: int) -> bool:
        """Return whether names that other units refer to can still be read in a skipped unit such as the one at start.

        They cannot where units both refer to each other and read their strings through a table of their own.
        """
        if start + _LONGEST_HEADER > len(self._info):
            return False
        abbrev = bytes(self._abbrev)
        if not any(pair in abbrev for pair in _REFERS_ACROSS):
            return True
        code, _ = _leb(self._info, start + self._header(start))
        forms = next((forms for number, forms in self._declarations(self._table(start)) if number == code), [])
        return not any(form in _STRING_INDEXES for _, form in forms)

    def patch(self, start: int) -> list[tuple[int, int]]:
        """Return (offset in .debug_info, byte to put there) so that the unit at start is skipped; empty if in doubt."""
        if start + _LONGEST_HEADER > len(self._info):
            return []
        at = start + self._header(start)
        _, end = _leb(self._info, at)
        substitute = self._substitute(self._table(start))
        length = end - at
        if substitute is None or substitute >> 7 * length:
            return []
        # LEB128 of just that length: all bytes but the last say that another one follows.
        return [(at + index, substitute >> 7 * index & 0x7F | (0x80 if index < length - 1 else 0))
                for index in range(length)]

    def _header(self, start: int) -> int:
        if self._version(start) < 5:
            return 11
        return 12 + (_UNIT_ID if self._info[start + 6] in _UNITS_WITH_ID else 0)

    def _version(self, start: int) -> int:
        return int.from_bytes(self._info[start + 4 : start + 6], "little")

    def _table(self, start: int) -> int:
        at = start + (6 if self._version(start) < 5 else 8)
        return int.from_bytes(self._info[at : at + 4], "little")

    def _find_substitute(self, table: int) -> int | None:
        """Return the code of a declaration of a small entry without code, None if the table at that offset has none."""
        for code, attributes in self._declarations(table):
            sizes = [_SIZES.get(form, _SMALL) for _, form in attributes]
            if attributes and sum(sizes) < _SMALL and not any(name in _OF_CODE for name, _ in attributes):
                return code
        return None

    def _declarations(self, at: int) -> Iterator[tuple[int, list[tuple[int, int]]]]:
        """Give code and (attribute, form) pairs of the declarations in the table at that offset (section 7.5.3).

        All tables together may have so many attributes; after that they look empty, and units are not skipped.
        """
        data = self._abbrev
        for _ in range(_MANY_DECLARATIONS):
            code, at = _leb(data, at)
            if code == 0 or at >= len(data) or self._budget <= 0:
                return
            _, at = _leb(data, at)
            at += 1
            attributes: list[tuple[int, int]] = []
            while len(attributes) < _MANY_ATTRIBUTES:
                name, at = _leb(data, at)
                form, at = _leb(data, at)
                if form == _IMPLICIT_CONST:
                    _, at = _leb(data, at)
                if not (name or form):
                    break
                attributes.append((name, form))
            self._budget -= len(attributes) + 1
            yield code, attributes


def _leb(data: memoryview, at: int) -> tuple[int, int]:
    """Return an unsigned LEB128 number and the position behind it; zero behind the end."""
    value = shift = 0
    while at < len(data) and shift < 64:
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if not byte & 0x80:
            break
    return value, at
