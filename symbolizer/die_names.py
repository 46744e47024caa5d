"""What symbolic does not read of DWARF, by pyelftools: supplementary files, split units, the ranges of units.

Runs in the worker (line_worker.py) only: slow, one address at a time, and a damaged file can raise anything.
"""

from __future__ import annotations

import os
import posixpath
from bisect import bisect_right
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from elftools.dwarf.ranges import BaseAddressEntry
from elftools.elf.elffile import ELFFile

from symbolizer import line_program
from symbolizer.unit_ranges import UnitRanges

Range = tuple[int, int]
#: An inlined function is described where it was inlined, where it was declared, and sometimes between.
MOST_REFERENCES = 8
MOST_INLINED = 64
#: Stacks go through several files, so they come in turns.
MOST_FILES = 4
#: Of units, each with some 20,000 rows in C++, 3 MB.
MOST_LINE_TABLES = 64
#: Scopes in which functions stand, besides other functions.
_SCOPES = {
    "DW_TAG_namespace", "DW_TAG_class_type", "DW_TAG_structure_type", "DW_TAG_union_type", "DW_TAG_module",
    "DW_TAG_lexical_block", "DW_TAG_try_block", "DW_TAG_catch_block", "DW_TAG_imported_unit",
}
_FUNCTIONS = {"DW_TAG_subprogram", "DW_TAG_inlined_subroutine"}


def unit_ranges(descriptor: int) -> UnitRanges:
    """Return which unit describes which addresses."""
    return _unit_index(_dwarf(descriptor))


def names(descriptors: list[int], vaddr: int) -> list[str]:
    """Return the linker names of the functions at the vaddr, innermost first, "" where there is none.

    The second descriptor, if given, is the supplementary file (.gnu_debugaltlink).
    """
    dwarf = _dwarf(descriptors[0], *descriptors[1:2])
    unit = _unit_at(dwarf, vaddr)
    if unit is None:
        return []
    chain: list[str] = []
    die: Any = unit.get_top_DIE()
    while die is not None and len(chain) < MOST_INLINED:
        die = _function_at(dwarf, die, vaddr)
        if die is not None:
            chain.append(_name(die))
    return chain[::-1]


def place(descriptor: int, vaddr: int) -> tuple[str | None, int | None, str | None] | None:
    """Return file and line by the unit's line table alone, and the .dwo file of a split unit; None without a unit."""
    dwarf = _dwarf(descriptor)
    unit = _unit_at(dwarf, vaddr)
    if unit is None:
        return None
    top = unit.get_top_DIE()
    dwo = top.attributes.get("DW_AT_dwo_name") or top.attributes.get("DW_AT_GNU_dwo_name")
    folder = _text(top, "DW_AT_comp_dir")
    file, line = _line_at(_identity(descriptor), unit.cu_offset, vaddr)
    return (
        posixpath.join(folder, file) if file else None,
        line,
        posixpath.join(folder, _decode(dwo.value)) if dwo is not None else None,
    )


def _identity(descriptor: int) -> tuple[int, int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino, status.st_size


_files: dict[tuple[tuple[int, int, int], ...], Any] = {}


def _dwarf(*descriptors: int) -> Any:
    key = tuple(_identity(descriptor) for descriptor in descriptors)
    if key not in _files:
        if len(_files) >= MOST_FILES:
            _files.clear()
            _line_rows.cache_clear()
            _unit_index.cache_clear()
        main, *others = [
            ELFFile(os.fdopen(os.dup(descriptor), "rb")).get_dwarf_info(follow_links=False)
            for descriptor in descriptors
        ]
        if others:
            main.supplementary_dwarfinfo = others[0]
        _files[key] = main
    return _files[key]


def _unit_at(dwarf: Any, vaddr: int) -> Any:
    offset = _unit_index(dwarf).unit_of(vaddr)
    return None if offset is None else dwarf.get_CU_at(offset)


@lru_cache(maxsize=MOST_FILES)
def _unit_index(dwarf: Any) -> UnitRanges:
    """Return which unit describes which addresses, by the units themselves where .debug_aranges leaves them out."""
    section = dwarf.debug_aranges_sec
    data = section.stream.getvalue() if section is not None else b""
    known = UnitRanges.parse_aranges(memoryview(data))
    listed = known.units()
    rows = known.rows()
    for unit in dwarf.iter_CUs():
        if unit.cu_offset not in listed:
            rows += [(start, end, unit.cu_offset) for start, end in _ranges(dwarf, unit.get_top_DIE())]
    return UnitRanges.of(rows)


def _function_at(dwarf: Any, scope: Any, vaddr: int) -> Any:
    """Return the function below the scope, or the call inlined into it, that holds the vaddr; None if there is none."""
    for child in scope.iter_children():
        holds = any(start <= vaddr < end for start, end in _ranges(dwarf, child))
        if child.tag in _FUNCTIONS and holds:
            return child
        # A block has ranges, a namespace has none.
        if child.tag in _SCOPES and child.has_children and (holds or "DW_AT_name" in child.attributes):
            found = _function_at(dwarf, child, vaddr)
            if found is not None:
                return found
    return None


def _ranges(dwarf: Any, die: Any) -> Iterator[Range]:
    """Give the address ranges of an entry, [start, end) each (DWARF 5, section 2.17)."""
    attributes = die.attributes
    if "DW_AT_ranges" in attributes:
        yield from _range_list(dwarf, die)
    elif "DW_AT_low_pc" in attributes and "DW_AT_high_pc" in attributes:
        low, high = attributes["DW_AT_low_pc"].value, attributes["DW_AT_high_pc"]
        end = high.value if high.form.startswith("DW_FORM_addr") else low + high.value
        if low:
            yield low, end


def _range_list(dwarf: Any, die: Any) -> Iterator[Range]:
    attribute, unit = die.attributes["DW_AT_ranges"], die.cu
    lists = dwarf.range_lists()
    if lists is None:
        return
    low = unit.get_top_DIE().attributes.get("DW_AT_low_pc")
    base = low.value if low is not None else 0
    for entry in lists.get_range_list_at_offset(attribute.value, cu=unit):
        if isinstance(entry, BaseAddressEntry):
            base = entry.base_address
        elif entry.begin_offset or entry.end_offset:
            shift = 0 if getattr(entry, "is_absolute", False) else base
            yield entry.begin_offset + shift, entry.end_offset + shift


def _name(die: Any) -> str:
    """Return an entry's linker name, else its name; both may stand at the entry that it refers to."""
    for _ in range(MOST_REFERENCES):
        for attribute in ("DW_AT_linkage_name", "DW_AT_MIPS_linkage_name", "DW_AT_name"):
            if attribute in die.attributes:
                return _text(die, attribute)
        references = ("DW_AT_abstract_origin", "DW_AT_specification")
        reference = next((each for each in references if each in die.attributes), None)
        if reference is None:
            break
        die = die.get_DIE_from_attribute(reference)
    return ""


def _text(die: Any, attribute: str) -> str:
    return _decode(die.attributes[attribute].value) if attribute in die.attributes else ""


def _decode(value: Any) -> str:
    return value.decode("utf-8", "backslashreplace") if isinstance(value, bytes) else ""


def _line_at(file: tuple[int, int, int], unit: int, vaddr: int) -> tuple[str | None, int | None]:
    starts, places = _line_rows(file, unit)
    row = bisect_right(starts, vaddr) - 1
    return places[row] if row >= 0 else (None, None)


@lru_cache(maxsize=MOST_LINE_TABLES)
def _line_rows(file: tuple[int, int, int], offset: int) -> tuple[list[int], list[tuple[str | None, int | None]]]:
    """Return the start of each row of a unit's line table, sorted, and its file and line."""
    dwarf = _files[(file,)]
    program = dwarf.line_program_for_CU(dwarf.get_CU_at(offset))
    if program is None:
        return [], []
    header = program.header
    program.stream.seek(program.program_start_offset)
    data = program.stream.read(program.program_end_offset - program.program_start_offset)
    rows = line_program.run(data, line_program.Parameters(
        header["line_base"], header["line_range"], header["opcode_base"], header["minimum_instruction_length"],
        tuple(header["standard_opcode_lengths"])))
    rows.sort(key=lambda row: row[0])
    paths = _file_paths(header)
    places = [(paths.get(file_number), line or None) if line or file_number else (None, None)
              for _, file_number, line in rows]
    return [start for start, _, _ in rows], places


def _file_paths(header: Any) -> dict[int, str]:
    """Return path by file number: from 0 in DWARF 5, from 1 before it, where folder 0 is the unit's."""
    folders = [_decode(folder) for folder in header["include_directory"]]
    first = 0 if header["version"] >= 5 else 1
    if first:
        folders = ["", *folders]
    found = {}
    for number, entry in enumerate(header["file_entry"], first):
        folder = folders[entry.dir_index] if entry.dir_index < len(folders) else ""
        found[number] = posixpath.join(folder, _decode(entry.name))
    return found
