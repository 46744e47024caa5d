"""Line number programs give the rows that pyelftools gives, and damaged ones end."""

import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from hypothesis import given
from hypothesis import strategies as st

from symbolizer.line_program import Parameters, run

SOURCE = """
#include <algorithm>
#include <map>
#include <string>
#include <vector>
std::map<std::string, std::vector<int>> table;
int main(int c, char **v) {
    for (int i = 0; i < c; i++) table[v[i]].push_back(i);
    for (auto &row : table) std::sort(row.second.begin(), row.second.end());
    return table.size();
}
"""


def parameters(header: object) -> Parameters:
    assert isinstance(header, dict)
    return Parameters(header["line_base"], header["line_range"], header["opcode_base"],
                      header["minimum_instruction_length"], tuple(header["standard_opcode_lengths"]))


@pytest.mark.parametrize("options", [["-gdwarf-5", "-O2"], ["-gdwarf-4", "-O0"], ["-gdwarf-3", "-O1"]])
def test_rows_of_real_programs(tmp_path: Path, options: list[str]) -> None:
    """Every row of every unit: address, file and line as pyelftools has them."""
    (tmp_path / "a.cc").write_text(SOURCE)
    subprocess.run(["g++", *options, "a.cc", "-o", "a"], check=True, cwd=tmp_path)
    count = 0
    with (tmp_path / "a").open("rb") as file:
        dwarf = ELFFile(file).get_dwarf_info()
        for unit in dwarf.iter_CUs():
            program = dwarf.line_program_for_CU(unit)
            assert program is not None
            states = [entry.state for entry in program.get_entries() if entry.state is not None]
            expected = [(state.address, 0, 0) if state.end_sequence else (state.address, state.file, state.line)
                        for state in states]
            program.stream.seek(program.program_start_offset)
            data = program.stream.read(program.program_end_offset - program.program_start_offset)
            assert run(data, parameters(dict(program.header))) == expected
            count += len(expected)
    assert count > 500


HEADER = Parameters(-5, 14, 13, 1, (0, 1, 1, 1, 1, 0, 0, 0, 1, 0, 0, 1))


def test_rows_end_with_their_sequence() -> None:
    """Behind a sequence no file and no line is known, and the next one starts anew."""
    set_address = b"\x00\x09\x02" + (0x1000).to_bytes(8, "little")
    assert run(set_address + b"\x03\x0a\x01\x02\x04\x00\x01\x01" + b"\x01", HEADER) == [
        (0x1000, 1, 11), (0x1004, 0, 0), (0, 1, 1)]


def test_lines_go_back_too() -> None:
    """An advance can be negative."""
    assert run(b"\x03\x0a\x01\x03\x7b\x01", HEADER) == [(0, 1, 11), (0, 1, 6)]


def test_unknown_opcodes_are_skipped_by_their_length() -> None:
    """The header says how many operands each opcode has, also for those that only later versions know."""
    assert run(b"\x0c\x85\x01\x05\x03\x01", HEADER) == [(0, 1, 1)]


@given(st.binary(max_size=300), st.integers(0, 255), st.integers(1, 30))
def test_any_bytes(data: bytes, range_: int, base: int) -> None:
    """Whatever the bytes, it ends; bytes that end too early are an IndexError."""
    with suppress(IndexError):
        run(data, Parameters(-3, range_, base, 1, (1,) * (base - 1)))
