"""Variables by name."""

from __future__ import annotations

import subprocess
from pathlib import Path

from symbolizer.elf import Elf
from symbolizer.elf_data import find_data


def test_an_exported_variable_is_found_and_nothing_else(tmp_path: Path) -> None:
    """The address is nm's; a function, a prefix of the name and a missing name are no variable."""
    source, library = tmp_path / "v.c", tmp_path / "v.so"
    source.write_text("int before = 1; int shown = 2; int shown_not = 3; int work(void) { return shown; }")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, source], check=True)
    listed = subprocess.run(["nm", "-D", library], check=True, capture_output=True, text=True).stdout
    wanted = next(int(line.split()[0], 16) for line in listed.splitlines() if line.endswith(" shown"))
    elf = Elf.parse(library.read_bytes())
    assert find_data(elf, "shown") == wanted
    assert [find_data(elf, name) for name in ("work", "show", "missing")] == [None, None, None]
